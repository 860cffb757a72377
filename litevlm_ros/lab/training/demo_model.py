"""The tiny InternVL model that ships with the package, built from transformers' classes, for training only.

It is saved in the layout of a downloaded checkpoint, so that the export treats it as any other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import InternVLConfig, InternVLModel

from litevlm_ros import prompt_families
from litevlm_ros.files import replacing
from litevlm_ros.lab.training.packing import COLOUR_CLASSES, DISTANCE_CLASSES, IGNORED, KIND_CLASSES, TOKENS_PER_VIEW
from litevlm_ros.model_directory import WEIGHTS
from litevlm_ros.vision.tiling import IMAGENET_MEAN, IMAGENET_STD

IMAGE_SIZE = 224
_PATCH_SIZE = 14


def demo_config(vocabulary_size: int, image_token: int) -> InternVLConfig:
    """Returns the configuration, of about 6 million parameters: InternViT 192 x 6 (width x layers), Qwen2 256 x 4."""
    return InternVLConfig(
        vision_config={
            "hidden_size": 192,
            "num_hidden_layers": 6,
            "num_attention_heads": 3,
            "intermediate_size": 768,
            "image_size": [IMAGE_SIZE, IMAGE_SIZE],
            "patch_size": [_PATCH_SIZE, _PATCH_SIZE],
            "attention_bias": True,
            "layer_norm_eps": 1e-6,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": vocabulary_size,
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 704,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
        },
        image_token_id=image_token,
        image_seq_length=TOKENS_PER_VIEW,
        tie_word_embeddings=True,
    )


class DemoModel(nn.Module):
    """InternVL with two losses: one over packed questions, and one over what each visual token shows.

    The second has a head of its own (`grid_head`), which is not saved.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: InternVLConfig) -> None:
        super().__init__()
        self.config = config
        self.internvl = InternVLModel(config)
        width = self._table.embedding_dim
        self.grid_head = nn.Linear(width, KIND_CLASSES + COLOUR_CLASSES + DISTANCE_CLASSES)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255, persistent=False)

    @property
    def _table(self) -> nn.Embedding:
        return cast(nn.Embedding, self.internvl.get_input_embeddings())

    def see(self, pixels: Tensor) -> Tensor:
        """Encodes pixel values from 0 to 255, float [n, 3, size, size], as visual tokens [n, T, width]."""
        return self.internvl.get_image_features((pixels - self.mean) / self.deviation).pooler_output

    def grid_loss(self, visual: Tensor, labels: Tensor) -> Tensor:
        """Returns the cross entropy of kind, colour and distance per visual token; labels int [n, T, 3]."""
        loss = visual.new_zeros(())
        scores = self.grid_head(visual).float().split([KIND_CLASSES, COLOUR_CLASSES, DISTANCE_CLASSES], dim=-1)
        for index, score in enumerate(scores):
            weight = torch.ones(score.shape[-1], device=score.device)
            weight[0] = 0.2
            loss = loss + functional.cross_entropy(score.flatten(0, 1), labels[..., index].flatten(), weight)
        return loss / len(scores)

    def read(self, ids: Tensor, segment: Tensor, positions: Tensor, visual: Tensor) -> Tensor:
        """Returns logits [b, s, vocabulary] of packed sequences, int [b, s] each.

        `visual` [b, m, width] are the rows that ids from the vocabulary's size on address.
        """
        vocabulary = self._table.num_embeddings
        words = self._table(ids.clamp(max=vocabulary - 1))
        rows = (ids - vocabulary).clamp(min=0).unsqueeze(-1).expand(-1, -1, visual.shape[-1])
        embeds = torch.where((ids >= vocabulary).unsqueeze(-1), visual.gather(1, rows).to(words.dtype), words)
        index = torch.arange(ids.shape[1], device=ids.device)
        earlier = index[:, None] >= index[None, :]
        together = (segment[:, None, :] == 0) | (segment[:, :, None] == segment[:, None, :])
        mask = (earlier & together).unsqueeze(1)
        hidden = self.internvl.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        return functional.linear(hidden, self._table.weight)

    @staticmethod
    def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross entropy over the answers' tokens."""
        return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def save(self, directory: Path) -> None:
        """Writes vision_encoder/ and text_decoder/ with fp16 safetensors and configurations."""
        weights = {name: value.detach().to("cpu", torch.float16) for name, value in self.internvl.state_dict().items()}
        text = {
            f"model.{n.removeprefix('language_model.')}": v
            for n, v in weights.items()
            if n.startswith("language_model.")
        }
        vision = {n: v for n, v in weights.items() if not n.startswith("language_model.")}
        whole = json.loads(self.config.to_json_string(use_diff=False))
        whole |= {"template": prompt_families.DEMO, "max_dynamic_patch": 1}
        qwen2 = whole["text_config"] | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
        for name, tensors, config in (("vision_encoder", vision, whole), ("text_decoder", text, qwen2)):
            folder = directory / name
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / WEIGHTS) as unfinished:
                save_file({n: t.contiguous() for n, t in tensors.items()}, unfinished, {"format": "pt"})
            (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
