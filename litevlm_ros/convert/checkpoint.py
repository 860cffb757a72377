"""Loading of a model directory's weights: one parameter at a time, or all of them into our torch modules.

Only safetensors are read: single files and shards, fp32, fp16 and bf16, OpenGVLab's and transformers' key names. Every
key that is missing, unexpected or wrongly shaped is reported by name and file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from litevlm_ros.checkpoint.check import WeightCheck, check_text, check_vision
from litevlm_ros.checkpoint.files import SafetensorsDirectory, read_positions, unreadable
from litevlm_ros.checkpoint.keys import PositionSources, Sources
from litevlm_ros.checksums import check_weights
from litevlm_ros.convert.draft_head import DraftHead, stored_name
from litevlm_ros.convert.intern_vit import InternVisionEncoder
from litevlm_ros.convert.qwen import QwenDecoder
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import HEAD_DIRECTORY, TEXT, VISION

_POSITIONS = "positions"

_Module = TypeVar("_Module", bound=nn.Module)


class StoredParameters(Generic[_Module]):
    """The parameters of `module` as they lie in safetensors files, read one at a time.

    `module` has their names and shapes. It is on the meta device, so it takes no memory. Of tied weights there is one
    parameter, by its first name.
    """

    def __init__(
        self, check: WeightCheck, module: _Module, sources: Sources, positions: PositionSources | None = None
    ) -> None:
        """`sources` and `positions` name the tensors that make the parameters; `check` has opened their files."""
        self.module = module
        self.shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        self._check = check
        self._sources = sources
        self._positions = positions

    def read(self, name: str) -> Tensor:
        """Returns a parameter in the type in which it is stored; `positions` are summed in fp32.

        The bytes of what is one tensor in the files are mapped into memory, not copied. Raises CheckpointError if the
        files do not hold the parameter.
        """
        found = self._found(name)
        self._check.raise_problems()
        return found

    def check(self, dtype: torch.dtype) -> None:
        """Raises CheckpointError with every parameter that is not in the files, or has numbers beyond `dtype`."""
        self.record_problems(dtype)
        self._check.raise_problems()

    def record_problems(self, dtype: torch.dtype) -> None:
        """Records in the WeightCheck what `check` would raise."""
        for name in self.shapes:
            found = self._found(name)
            if found.numel() and not holds(dtype, found):
                self._check.not_finite(self._keys(name), str(dtype).removeprefix("torch."))

    def state(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Returns all parameters in `dtype`, in memory of their own. Raises CheckpointError as `read` does."""
        return {name: self.read(name).to(dtype, copy=True) for name in self.shapes}

    def _keys(self, name: str) -> tuple[str, ...]:
        if self._positions and name == _POSITIONS:
            return (self._positions.embedding, self._positions.cls, self._positions.patch_bias)
        return self._sources[name]

    def _found(self, name: str) -> Tensor:
        """Returns a parameter, or an empty tensor if the files do not hold it, which is recorded."""
        shape = self.shapes[name]
        if self._positions and name == _POSITIONS:
            rows, width = shape
            summands = self._check.positions(self._positions, (rows, width))
            return torch.from_numpy(read_positions(summands)) if summands else torch.empty(0)
        keys = self._sources[name]
        if not self._check.concatenated(keys, shape):
            return torch.empty(0)
        # Reshaping flattens a convolution's kernel, which moves no bytes.
        parts = [load_tensor(self._check.files, key).reshape(-1, *shape[1:]) for key in keys]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def holds(dtype: torch.dtype, tensor: Tensor) -> bool:
    """Tells whether all numbers of a tensor are finite in `dtype`. Takes no memory."""
    # Rounding keeps the order of numbers, and a NaN is both the least and the greatest.
    return bool(torch.stack(tensor.aminmax()).to(dtype).isfinite().all())


def stored_vision_encoder(model: str | Path) -> StoredParameters[InternVisionEncoder]:
    """Opens InternViT and the projector of a model directory. Raises CheckpointError."""
    config = ModelConfig.from_directory(model)
    check_weights(Path(model) / VISION)
    check, sources, positions = check_vision(Path(model) / VISION, config.vision)
    with torch.device("meta"):
        module = InternVisionEncoder(config.vision, config.text.hidden_size)
    return StoredParameters(check, module, sources, positions)


def stored_text_decoder(model: str | Path) -> StoredParameters[QwenDecoder]:
    """Opens the text decoder of a model directory. Raises CheckpointError."""
    config = ModelConfig.from_directory(model).text
    check_weights(Path(model) / TEXT)
    check, sources = check_text(Path(model) / TEXT, config)
    with torch.device("meta"):
        module = QwenDecoder(config)
    return StoredParameters(check, module, sources)


def load_vision_encoder(model: str | Path, dtype: torch.dtype = torch.float32) -> InternVisionEncoder:
    """Loads InternViT and the projector of a model directory, in eval mode on the CPU. Raises CheckpointError."""
    stored = stored_vision_encoder(model)
    stored.check(dtype)
    stored.module.load_state_dict(stored.state(dtype), assign=True)
    return stored.module.eval()


def load_text_decoder(model: str | Path, dtype: torch.dtype = torch.float32) -> QwenDecoder:
    """Loads the text decoder of a model directory, in eval mode on the CPU. Raises CheckpointError."""
    stored = stored_text_decoder(model)
    stored.check(dtype)
    module = stored.module
    tied = module.config.tie_word_embeddings
    module.load_state_dict(stored.state(dtype), assign=True, strict=not tied)
    if tied:
        module.lm_head.weight = module.embed_tokens.weight  # loading replaced one of the two names only
    return module.eval()


def load_draft_head(model: str | Path, dtype: torch.dtype = torch.float32) -> DraftHead:
    """Loads the draft head of a model directory with its decoder, in eval mode on the CPU. Raises CheckpointError."""
    text = load_text_decoder(model, dtype)
    with torch.device("meta"):
        head = DraftHead(text)
    check_weights(Path(model) / HEAD_DIRECTORY)
    check = WeightCheck(SafetensorsDirectory(Path(model) / HEAD_DIRECTORY))
    sources: Sources = {name: (stored_name(name),) for name, _ in head.own.named_parameters()}
    check.expect({key for keys in sources.values() for key in keys})
    stored = StoredParameters(check, head.own, sources)
    stored.record_problems(dtype)
    check.raise_problems("Train the head again with `ros2 run litevlm_ros train_draft_head`")
    stored.module.load_state_dict(stored.state(dtype), assign=True)
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
