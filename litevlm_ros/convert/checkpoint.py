"""Loading of a model directory's weights into our torch modules.

Only safetensors are read: single files and shards, fp32, fp16 and bf16, OpenGVLab's and transformers' key names. Every
key that is missing, unexpected or wrongly shaped is reported by name and file.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from litevlm_ros.convert.checkpoint_keys import (
    PositionSources,
    Sources,
    is_derived,
    lm_head_key,
    text_sources,
    vision_sources,
)
from litevlm_ros.convert.draft_head import DraftHead, stored_name
from litevlm_ros.convert.intern_vit import InternVisionEncoder
from litevlm_ros.convert.qwen2 import Qwen2Decoder
from litevlm_ros.convert.safetensors_files import SafetensorsDirectory
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.model_directory import HEAD_DIRECTORY, TEXT, VISION

_SHOWN = 8


def load_vision_encoder(model: str | Path, dtype: torch.dtype = torch.float32) -> InternVisionEncoder:
    """Loads InternViT and the projector of a model directory, in eval mode on the CPU. Raises CheckpointError."""
    config = ModelConfig.from_directory(model)
    files = SafetensorsDirectory(Path(model) / VISION)
    sources, positions = find_vision_sources(files, config.vision)
    with torch.device("meta"):
        module = InternVisionEncoder(config.vision, config.text.hidden_size)
    reader = _Reader(files, module, dtype)
    reader.expect({key for keys in sources.values() for key in keys} | set(vars(positions).values()))
    state = {name: reader.concatenated(name, keys) for name, keys in sources.items()}
    state["positions"] = reader.summed_positions(positions)
    reader.raise_problems()
    module.load_state_dict(state, assign=True)
    return module.eval()


def load_text_decoder(model: str | Path, dtype: torch.dtype = torch.float32) -> Qwen2Decoder:
    """Loads the Qwen2 decoder of a model directory, in eval mode on the CPU. Raises CheckpointError."""
    config = ModelConfig.from_directory(model).text
    files = SafetensorsDirectory(Path(model) / TEXT)
    sources = find_text_sources(files, config)
    with torch.device("meta"):
        module = Qwen2Decoder(config)
    reader = _Reader(files, module, dtype)
    spare = lm_head_key(files.tensors) if config.tie_word_embeddings else None
    reader.expect({key for keys in sources.values() for key in keys} | ({spare} if spare else set()))
    state = {name: reader.concatenated(name, sources[name]) for name in reader.shapes}
    reader.raise_problems()
    module.load_state_dict(state, assign=True, strict=not config.tie_word_embeddings)
    if config.tie_word_embeddings:
        module.lm_head.weight = module.embed_tokens.weight  # loading replaced one of the two names only
    return module.eval()


def load_draft_head(model: str | Path, dtype: torch.dtype = torch.float32) -> DraftHead:
    """Loads the draft head of a model directory with its decoder, in eval mode on the CPU. Raises CheckpointError."""
    text = load_text_decoder(model, dtype)
    with torch.device("meta"):
        head = DraftHead(text)
    files, own = SafetensorsDirectory(Path(model) / HEAD_DIRECTORY), head.own
    reader = _Reader(files, own, dtype)
    reader.expect({stored_name(name) for name in reader.shapes})
    state = {name: reader.concatenated(name, (stored_name(name),)) for name in reader.shapes}
    reader.raise_problems("Train the head again with `ros2 run litevlm_ros train_draft_head`")
    own.load_state_dict(state, assign=True)
    return head.eval()


def find_vision_sources(files: SafetensorsDirectory, config: VisionConfig) -> tuple[Sources, PositionSources]:
    """Finds the tensors of `InternVisionEncoder`'s parameters. Raises CheckpointError if there is no InternViT."""
    found = vision_sources(files.tensors, config)
    if found is None:
        raise CheckpointError(
            f"{files.directory} holds no InternViT: it has no patch embedding. Download the model again"
        )
    return found


def find_text_sources(files: SafetensorsDirectory, config: TextConfig) -> Sources:
    """Finds the tensors of `Qwen2Decoder`'s parameters. Raises CheckpointError if there is no Qwen2."""
    found = text_sources(files.tensors, config)
    if found is None:
        raise CheckpointError(
            f"{files.directory} holds no Qwen2: it has no embed_tokens.weight. Download the model again"
        )
    return found


class _Reader:
    """Reads tensors for one module and collects every problem, so that a person sees all of them at once."""

    def __init__(self, files: SafetensorsDirectory, module: nn.Module, dtype: torch.dtype) -> None:
        self.files = files
        self.shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        self.dtype = dtype
        self.problems: list[str] = []

    def expect(self, keys: set[str]) -> None:
        """Records the keys that are missing, and those of the files that are not among `keys`."""
        present = self.files.tensors
        for key in sorted(keys - present.keys()):
            self.problems.append(f"{key} is missing from {self.files.directory}")
        for key in sorted(key for key in present.keys() - keys if not is_derived(key)):
            self.problems.append(f"{key} in {present[key].file} is unexpected")

    def concatenated(self, name: str, keys: tuple[str, ...]) -> Tensor:
        """Returns parameter `name` in the wanted dtype. A convolution's kernel is flattened, which moves no bytes."""
        shape = self.shapes[name]
        stored = [self.files.tensors[key].shape for key in keys if key in self.files.tensors]
        if len(stored) < len(keys):
            return torch.empty(0)
        rows = sum(part[0] if part else 0 for part in stored)
        if rows != shape[0] or any(prod(part[1:]) != prod(shape[1:]) for part in stored):
            self._misshaped(keys, f"{list(shape)} in all")
            return torch.empty(0)
        return self._converted(torch.cat([self.files.load(key).reshape(-1, *shape[1:]) for key in keys]), keys)

    def summed_positions(self, sources: PositionSources) -> Tensor:
        """Returns `InternVisionEncoder.positions`, summed in fp32."""
        keys = (sources.embedding, sources.cls, sources.patch_bias)
        rows, width = self.shapes["positions"]
        stored = [self.files.tensors.get(key) for key in keys]
        if any(part is None for part in stored):
            return torch.empty(0)
        for key, part, size in zip(keys, stored, (rows * width, width, width), strict=True):
            if part is not None and prod(part.shape) != size:
                hint = "; positions for another image size are not interpolated" if key == sources.embedding else ""
                self._misshaped((key,), f"{size} numbers{hint}")
                return torch.empty(0)
        embedding, cls, bias = (self.files.load(key).float().reshape(-1, width) for key in keys)
        return self._converted(torch.cat((embedding[:1] + cls, embedding[1:] + bias)), keys)

    def raise_problems(self, fix: str = "Download the model again, or correct the config.json") -> None:
        """Raises CheckpointError if a problem was recorded."""
        if self.problems:
            more = len(self.problems) - _SHOWN
            listed = "\n  ".join(self.problems[:_SHOWN] + ([f"and {more} more"] if more > 0 else []))
            raise CheckpointError(
                f"The weights in {self.files.directory} do not fit the config.json. {fix}.\n  {listed}"
            )

    def _misshaped(self, keys: tuple[str, ...], wanted: str) -> None:
        for key in keys:
            stored = self.files.tensors[key]
            self.problems.append(f"{key} in {stored.file} is {list(stored.shape)}; the config.json asks for {wanted}")

    def _converted(self, tensor: Tensor, keys: tuple[str, ...]) -> Tensor:
        converted = tensor.to(self.dtype)
        if not converted.isfinite().all():
            kind = str(self.dtype).removeprefix("torch.")
            self.problems.append(
                f"{' + '.join(keys)} in {self.files.directory} holds numbers that are not finite in {kind}"
            )
        return converted
