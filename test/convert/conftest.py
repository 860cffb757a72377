"""A tiny random InternVL as transformers' own class, and its checkpoint in every form that people download."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")
transformers = pytest.importorskip("transformers", reason="the reference model is transformers' InternVL")

from safetensors.torch import save_file  # noqa: E402

from litevlm_ros.convert.checkpoint_split import split_checkpoint  # noqa: E402

Tensors = dict[str, Any]


def reference_model(*, tied: bool = False, qkv_bias: bool = True) -> Any:
    """Random weights scaled so that every layer changes its input visibly and logits spread over several units."""
    config = transformers.InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [56, 56],
            "patch_size": [14, 14],
            "attention_bias": qkv_bias,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "vocab_size": 97,
            "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "tie_word_embeddings": tied,
        },
        image_seq_length=4,
        image_token_id=96,
        tie_word_embeddings=tied,
    )
    config._attn_implementation = "eager"
    model = transformers.InternVLForConditionalGeneration(config).eval().float()
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if name.endswith("norm.weight") or ("layernorm" in name and name.endswith("weight")):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() >= 2 and "embed" not in name.rsplit(".", 2)[-2]:
                parameter.copy_(noise * 1.5 / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.5 * noise)
    return model


def original_tensors(model: Any) -> Tensors:
    """The model's weights under OpenGVLab's names, with Q, K and V of the vision encoder fused."""
    state = model.state_dict()
    tensors: Tensors = {}
    for key, tensor in state.items():
        if key == "lm_head.weight":
            if not model.config.text_config.tie_word_embeddings:
                tensors["language_model.lm_head.weight"] = tensor
        elif key.startswith("model.language_model."):
            tensors[key.replace("model.language_model.", "language_model.model.")] = tensor
        elif key.startswith("model.multi_modal_projector."):
            module, kind = key.split(".")[-2:]
            tensors[f"mlp1.{ {'layer_norm': 0, 'linear_1': 1, 'linear_2': 3}[module] }.{kind}"] = tensor
        elif ".k_proj." not in key and ".v_proj." not in key:
            tensors[_original_vision_key(key)] = _fused(state, key)
    return tensors


def _fused(state: Tensors, key: str) -> Any:
    if ".q_proj." not in key:
        return state[key]
    return torch.cat([state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"])


def _original_vision_key(key: str) -> str:
    for theirs, original in (
        ("model.vision_tower.", "vision_model."),
        ("embeddings.cls_token", "embeddings.class_embedding"),
        ("embeddings.position_embeddings", "embeddings.position_embedding"),
        ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding"),
        ("encoder.layer.", "encoder.layers."),
        ("attention.q_proj", "attn.qkv"),
        ("attention.projection_layer", "attn.proj"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("lambda_1", "ls1"),
        ("lambda_2", "ls2"),
    ):
        key = key.replace(theirs, original)
    return key


def original_config(model: Any) -> dict[str, Any]:
    """The configuration as OpenGVLab writes it."""
    vision, text = model.config.vision_config, model.config.text_config
    return {
        "model_type": "internvl_chat",
        "template": "Hermes-2",
        "ps_version": "v2",
        "select_layer": -1,
        "force_image_size": 56,
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "max_dynamic_patch": 6,
        "use_thumbnail": True,
        "vision_config": {
            "model_type": "intern_vit_6b",
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_size": 56,
            "patch_size": 14,
            "num_channels": 3,
            "qkv_bias": vision.attention_bias,
            "qk_normalization": False,
            "norm_type": "layer_norm",
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
        },
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.max_position_embeddings,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": 1000000.0,
            "tie_word_embeddings": text.tie_word_embeddings,
            "use_sliding_window": False,
        },
    }


def write_original(model: Any, directory: Path, *, shards: int = 1, dtype: Any = torch.float32) -> Path:
    """A whole checkpoint as OpenGVLab publishes it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(original_config(model)))
    tensors = {key: tensor.to(dtype).contiguous() for key, tensor in original_tensors(model).items()}
    if shards == 1:
        save_file(tensors, directory / "model.safetensors")
        return directory
    names = [f"model-{index + 1:05d}-of-{shards:05d}.safetensors" for index in range(shards)]
    where = {key: names[index % shards] for index, key in enumerate(tensors)}
    for name in names:
        save_file({key: tensors[key] for key in tensors if where[key] == name}, directory / name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return directory


def write_native(model: Any, directory: Path) -> Path:
    """A whole checkpoint as transformers writes it."""
    model.save_pretrained(directory)
    return directory


@dataclass
class Cache:
    """A fixed-size cache of the text decoder, filled with noise: rows from `length` on must never matter."""

    layers: int
    rows: int
    heads: int
    width: int
    length: int = 0
    keys: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = torch.Generator().manual_seed(3)
        for stores in (self.keys, self.values):
            for _ in range(self.layers):
                stores.append(5 * torch.randn(self.rows, self.heads, self.width, generator=random))

    def append(self, new_keys: list[Any], new_values: list[Any]) -> None:
        count = new_keys[0].shape[0]
        for stores, news in ((self.keys, new_keys), (self.values, new_values)):
            for store, new in zip(stores, news, strict=True):
                store[self.length : self.length + count] = new
        self.length += count


Step = Callable[..., tuple[Any, Any, Any, list[Any], list[Any]]]


def conversation_errors(step: Step, model: Any) -> dict[str, float]:
    """Relative logit errors of a prefill, cached steps, a gap in positions, several tokens at once and a rollback.

    The reference runs the whole sequence anew each time, without any cache.
    """
    text = model.config.text_config
    random = torch.Generator().manual_seed(11)
    visual = torch.randn(5, text.hidden_size, generator=random)
    cache = Cache(text.num_hidden_layers, 40, text.num_key_value_heads, text.hidden_size // text.num_attention_heads)
    said: list[int] = []
    places: list[int] = []
    errors: dict[str, float] = {}

    def turn(name: str, ids: list[int], positions: list[int], wanted: list[int]) -> None:
        logits, best, _, new_keys, new_values = step(
            torch.tensor(ids),
            torch.tensor(positions),
            torch.tensor([cache.length]),
            torch.tensor(wanted),
            visual,
            cache.keys,
            cache.values,
        )
        del said[cache.length :], places[cache.length :]
        said.extend(ids)
        places.extend(positions)
        expected = reference_logits(model, said, places, visual)[[cache.length + index for index in wanted]]
        cache.append(new_keys, new_values)
        assert expected.std() > 0.5, "degenerate logits compare nothing"
        errors[name] = float((logits - expected).abs().max() / expected.abs().max())
        assert best.tolist() == expected.argmax(-1).tolist(), name

    image = [text.vocab_size + row for row in (0, 1, 3, 4)]  # row 2 was not selected; its position stays empty
    turn("prefill", [5, 9, *image, 17, 20, 2], [0, 1, 2, 3, 5, 6, 7, 8, 9], [8, 0, 5])
    turn("decode", [31], [10], [0])
    turn("decode again", [31], [11], [0])
    turn("gap", [64], [25], [0])
    turn("several", [8, 13, 96], [26, 27, 28], [2, 1])
    cache.length = 10
    turn("rollback", [77, 3], [10, 11], [0, 1])
    turn("decode after rollback", [text.vocab_size + 2], [12], [0])
    return errors


def reference_logits(model: Any, ids: list[int], positions: list[int], visual: Any) -> Any:
    """transformers' logits [S, V] of a whole sequence, where ids from the vocabulary size on are rows of `visual`."""
    vocabulary = model.config.text_config.vocab_size
    table = model.get_input_embeddings().weight
    rows = [visual[token - vocabulary] if token >= vocabulary else table[token] for token in ids]
    # Without an attention mask transformers takes a gap in the positions for the start of another sequence.
    hidden = model.model.language_model(
        inputs_embeds=torch.stack(rows)[None],
        position_ids=torch.tensor([positions]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(hidden)[0]


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def reference() -> Any:
    return reference_model()


@pytest.fixture(scope="session")
def tied_reference() -> Any:
    return reference_model(tied=True)


@pytest.fixture(scope="session")
def checkpoints(reference: Any, tied_reference: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whole checkpoints by name: original, original-sharded, native, native-tied, original-tied."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "original": write_original(reference, root / "original"),
        "original-sharded": write_original(reference, root / "original-sharded", shards=3),
        "original-tied": write_original(tied_reference, root / "original-tied"),
        "native": write_native(reference, root / "native"),
        "native-tied": write_native(tied_reference, root / "native-tied"),
    }


@pytest.fixture(scope="session")
def models(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same as model directories."""
    root = tmp_path_factory.mktemp("models")
    for name, checkpoint in checkpoints.items():
        split_checkpoint(checkpoint, root / name)
    return {name: root / name for name in checkpoints}


@pytest.fixture
def conversation() -> Callable[[Step, Any], dict[str, float]]:
    return conversation_errors


@pytest.fixture
def make_reference() -> Callable[..., Any]:
    return reference_model


@pytest.fixture
def save_original() -> Callable[..., Path]:
    return write_original
