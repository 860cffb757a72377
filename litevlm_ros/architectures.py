"""The architectures that this package runs, and those that people try and it does not run: each is a row of a table.

A checkpoint's config.json names its architecture as `model_type` and as the class names in `architectures`. Whatever
is not run faithfully is refused from config.json alone, before any weight is downloaded or read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from litevlm_ros.config_json import ConfigSection
from litevlm_ros.errors import CheckpointError


@dataclass(frozen=True)
class LanguageModel:
    """A language model that is run. `head_dim` is that of a config.json that gives none; None is hidden size / heads.

    `qkv_bias` and `qk_norm` are those of TextConfig.
    """

    model_type: str
    architecture: str
    qkv_bias: bool
    qk_norm: bool
    head_dim: int | None


LANGUAGE_MODELS = (
    LanguageModel("qwen2", "Qwen2ForCausalLM", qkv_bias=True, qk_norm=False, head_dim=None),
    LanguageModel("qwen3", "Qwen3ForCausalLM", qkv_bias=False, qk_norm=True, head_dim=128),
)
"""Sources: Qwen2 and Qwen2.5 (arXiv 2407.10671), Qwen3 (arXiv 2505.09388), and their classes in transformers."""

NATIVE = "internvl"
"""The `model_type` of a whole InternVL in transformers' own spelling."""

_WHOLE_MODELS = {"internvl_chat": "InternVLChatModel", NATIVE: "InternVLForConditionalGeneration"}
"""`model_type` → class of the whole models that are run: OpenGVLab's own spelling, and transformers'."""

_SMALL, _LARGER = "--model internvl3-1b or internvl3_5-1b", "--model internvl3-2b or internvl3_5-2b"
"""Published models to take instead, by the number of their parameters: about 1e9, and about 2e9."""

_OTHER_LANGUAGE_MODELS = {
    "internlm2": f"InternLM2, which InternVL2-2B, 2-8B, 2.5-2B and 2.5-8B have. Take {_LARGER}",
    "internlm3": f"InternLM3. Take {_LARGER}",
    "llama": f"Llama, which InternVL2-40B and InternVL2-Llama3-76B have. Take {_LARGER}",
    "phi3": f"Phi-3, which InternVL2-4B has. Take {_LARGER}",
    "qwen2_moe": f"Qwen2 with a mixture of experts. Take {_LARGER}",
    "qwen3_moe": f"Qwen3 with a mixture of experts, as in InternVL3_5-30B-A3B. Take {_LARGER}",
    "gpt_oss": f"GPT-OSS, which InternVL3_5-GPT-OSS-20B-A4B has. Take {_LARGER}",
}
"""`model_type` of a language model that is not run → what it is, and what to take instead."""

_ROUTER = (
    "an InternVL3.5 'Flash', whose router gives some tiles fewer visual tokens. Take the model of the same name "
    "without -Flash, such as --model internvl3_5-1b"
)
_VISION_ALONE = f"the vision encoder alone. Take the whole InternVL that it belongs to, such as {_SMALL}"

_OTHER_MODELS = {
    "internvl_flash": _ROUTER,
    "intern_vit_6b": _VISION_ALONE,
    "internvl_vision": _VISION_ALONE,
    "llava_onevision": f"LLaVA-OneVision, whose vision encoder is SigLIP. Take {_SMALL}",
    "llava_qwen": f"a LLaVA with Qwen, whose vision encoder is SigLIP. Take {_SMALL}",
    "llava": f"a LLaVA, whose vision encoder is CLIP. Take {_SMALL}",
    "llava_next": f"LLaVA-NeXT, whose vision encoder is CLIP. Take {_SMALL}",
    "qwen2_vl": f"Qwen2-VL, whose vision encoder and positions differ from InternVL's. Take {_LARGER}",
    "qwen2_5_vl": f"Qwen2.5-VL, whose vision encoder and positions differ from InternVL's. Take {_LARGER}",
    "qwen3_vl": f"Qwen3-VL, whose vision encoder and positions differ from InternVL's. Take {_LARGER}",
    "qwen3_vl_moe": f"Qwen3-VL with a mixture of experts. Take {_LARGER}",
    "smolvlm": f"SmolVLM, whose vision encoder is SigLIP. Take {_SMALL}",
    "idefics3": f"Idefics3, whose vision encoder is SigLIP. Take {_LARGER}",
    "paligemma": f"PaliGemma, whose vision encoder is SigLIP. Take {_LARGER}",
    "gemma3": f"Gemma 3, whose vision encoder is SigLIP. Take {_LARGER}",
    "minicpmv": f"MiniCPM-V. Take {_LARGER}",
}
"""`model_type` of a whole model that is not run → what it is, and what to take instead."""


def check_whole_model(whole: ConfigSection) -> None:
    """Raises CheckpointError if `whole` is not the configuration of an InternVL, or is that of a variant not run.

    A configuration that names no architecture passes: what it lacks is then named key by key.
    """
    kind, classes = _named(whole)
    if kind in _WHOLE_MODELS and (not classes or set(classes) & set(_WHOLE_MODELS.values())):
        if whole.get("flash_mode") or whole.get("flash_relative_threshold") is not None:
            _refuse(whole, kind, classes, _ROUTER)
        _check_weights(whole)
        return
    if kind is None and not classes:
        return
    described = _OTHER_MODELS.get(kind or "")
    if described is None and "text_config" not in whole.values and "llm_config" not in whole.values:
        if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in classes) or kind in _language_types():
            described = (
                "a language model without a vision encoder. The two halves of an InternVL are trained together, so "
                f"take a whole one, such as {_SMALL}"
            )
        elif any(name.startswith("InternVision") for name in classes):
            described = _VISION_ALONE
    _refuse(whole, kind, classes, described or f"no InternVL, which is what this package runs. Take {_SMALL}")


def language_model(section: ConfigSection) -> LanguageModel:
    """Returns the row of the language model that `section` describes. Raises CheckpointError if it is not run."""
    _check_quantization(section)
    kind, classes = _named(section)
    for row in LANGUAGE_MODELS:
        if row.model_type == kind or (kind is None and row.architecture in classes):
            return row
    if kind in _WHOLE_MODELS:
        whole = "a whole InternVL, where that of its language model is wanted. Split it with `ros2 run litevlm_ros "
        _refuse(section, kind, classes, whole + "download_models --model CHECKPOINT`")
    known = " and ".join(row.model_type for row in LANGUAGE_MODELS)
    others = f"a language model that is not run; those that are run are {known}. Take {_SMALL}"
    _refuse(section, kind, classes, _OTHER_LANGUAGE_MODELS.get(kind or "", others))


def _named(section: ConfigSection) -> tuple[str | None, list[str]]:
    kind = section.get("model_type")
    return (kind if isinstance(kind, str) else None), section.texts("architectures")


def _language_types() -> set[str]:
    return {row.model_type for row in LANGUAGE_MODELS} | _OTHER_LANGUAGE_MODELS.keys()


def _check_weights(whole: ConfigSection) -> None:
    """Raises CheckpointError if the weights are not plain matrices: LoRA beside them, or quantized."""
    _check_quantization(whole)
    for key in ("use_llm_lora", "use_backbone_lora"):
        rank = whole.get(key, 0)
        if rank:
            raise CheckpointError(
                f"{whole.file}: {key} is {rank!r}: the checkpoint holds LoRA matrices that are not merged into its "
                "weights. Merge them first, with the script of InternVL's own repository (in internvl_chat/): "
                "`python tools/merge_lora.py CHECKPOINT MERGED`; then give --model MERGED"
            )


def _check_quantization(section: ConfigSection) -> None:
    """Raises CheckpointError for weights that AWQ, GPTQ, bitsandbytes, MLX or the like have quantized."""
    for key in ("quantization_config", "quantization", "compression_config"):
        settings = section.get(key)
        if not settings:
            continue
        method = settings.get("quant_method") if isinstance(settings, dict) else None
        how = f" by {method}" if isinstance(method, str) else ""
        raise CheckpointError(
            f"{section.file}: {section.prefix}{key} says that the weights are quantized{how}. Take the repository with "
            "the weights in 16 bits, whose name has no -AWQ, -GPTQ, -4bit or the like; this package quantizes them "
            "itself: `ros2 run litevlm_ros build_engines --fp8`, or `--precision int8` or `int4`"
        )


def _refuse(section: ConfigSection, kind: str | None, classes: list[str], described: str) -> NoReturn:
    names = f" ({', '.join(classes)})" if classes else ""
    raise CheckpointError(f"{section.file}: {section.prefix}model_type is {kind!r}{names}: this is {described}")
