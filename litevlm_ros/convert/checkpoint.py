"""Loading of a model directory's weights into our torch modules.

Only safetensors are read: single files and shards, fp32, fp16 and bf16, OpenGVLab's and transformers' key names. Every
key that is missing, unexpected or wrongly shaped is reported by name and file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from litevlm_ros.checkpoint.check import WeightCheck, check_text, check_vision
from litevlm_ros.checkpoint.files import SafetensorsDirectory, read_positions, unreadable
from litevlm_ros.checkpoint.keys import PositionSources
from litevlm_ros.convert.draft_head import DraftHead, stored_name
from litevlm_ros.convert.intern_vit import InternVisionEncoder
from litevlm_ros.convert.qwen2 import Qwen2Decoder
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import HEAD_DIRECTORY, TEXT, VISION


def load_vision_encoder(model: str | Path, dtype: torch.dtype = torch.float32) -> InternVisionEncoder:
    """Loads InternViT and the projector of a model directory, in eval mode on the CPU. Raises CheckpointError."""
    config = ModelConfig.from_directory(model)
    check, sources, positions = check_vision(Path(model) / VISION, config.vision)
    with torch.device("meta"):
        module = InternVisionEncoder(config.vision, config.text.hidden_size)
    reader = _Reader(check, module, dtype)
    state = {name: reader.concatenated(name, keys) for name, keys in sources.items()}
    state["positions"] = reader.summed_positions(positions)
    check.raise_problems()
    module.load_state_dict(state, assign=True)
    return module.eval()


def load_text_decoder(model: str | Path, dtype: torch.dtype = torch.float32) -> Qwen2Decoder:
    """Loads the Qwen2 decoder of a model directory, in eval mode on the CPU. Raises CheckpointError."""
    config = ModelConfig.from_directory(model).text
    check, sources = check_text(Path(model) / TEXT, config)
    with torch.device("meta"):
        module = Qwen2Decoder(config)
    reader = _Reader(check, module, dtype)
    state = {name: reader.concatenated(name, sources[name]) for name in reader.shapes}
    check.raise_problems()
    module.load_state_dict(state, assign=True, strict=not config.tie_word_embeddings)
    if config.tie_word_embeddings:
        module.lm_head.weight = module.embed_tokens.weight  # loading replaced one of the two names only
    return module.eval()


def load_draft_head(model: str | Path, dtype: torch.dtype = torch.float32) -> DraftHead:
    """Loads the draft head of a model directory with its decoder, in eval mode on the CPU. Raises CheckpointError."""
    text = load_text_decoder(model, dtype)
    with torch.device("meta"):
        head = DraftHead(text)
    check, own = WeightCheck(SafetensorsDirectory(Path(model) / HEAD_DIRECTORY)), head.own
    reader = _Reader(check, own, dtype)
    check.expect({stored_name(name) for name in reader.shapes})
    state = {name: reader.concatenated(name, (stored_name(name),)) for name in reader.shapes}
    check.raise_problems("Train the head again with `ros2 run litevlm_ros train_draft_head`")
    own.load_state_dict(state, assign=True)
    return head.eval()


def load_tensor(files: SafetensorsDirectory, key: str) -> Tensor:
    """Returns a tensor of a checkpoint in its stored dtype. Raises CheckpointError."""
    file = files.tensors[key].file
    try:
        with safe_open(file, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise unreadable(file, error) from error
    return tensor


class _Reader:
    """Reads the parameters of one module; problems are recorded in `check`."""

    def __init__(self, check: WeightCheck, module: nn.Module, dtype: torch.dtype) -> None:
        self.check = check
        self.shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        self.dtype = dtype

    def concatenated(self, name: str, keys: tuple[str, ...]) -> Tensor:
        """Returns parameter `name` in the wanted dtype. A convolution's kernel is flattened, which moves no bytes."""
        shape = self.shapes[name]
        if not self.check.concatenated(keys, shape):
            return torch.empty(0)
        parts = [load_tensor(self.check.files, key).reshape(-1, *shape[1:]) for key in keys]
        return self._converted(torch.cat(parts), keys)

    def summed_positions(self, sources: PositionSources) -> Tensor:
        """Returns `InternVisionEncoder.positions`, summed in fp32."""
        rows, width = self.shapes["positions"]
        summands = self.check.positions(sources, (rows, width))
        if not summands:
            return torch.empty(0)
        keys = (sources.embedding, sources.cls, sources.patch_bias)
        return self._converted(torch.from_numpy(read_positions(summands)), keys)

    def _converted(self, tensor: Tensor, keys: tuple[str, ...]) -> Tensor:
        converted = tensor.to(self.dtype)
        if not converted.isfinite().all():
            self.check.not_finite(keys, str(self.dtype).removeprefix("torch."))
        return converted
