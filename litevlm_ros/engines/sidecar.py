"""The sidecar `NAME.engine.json` of each `NAME.engine`, which says from what, by what and for what it was built.

An engine file tells nothing of this before TensorRT has loaded it, or has refused to without a reason. So the sidecar
is read first, and a mismatch is explained with the command that mends it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litevlm_ros.checksums import Checksum, comparing, unchanged_weights
from litevlm_ros.engines.fingerprint import Machine, hash_weights
from litevlm_ros.engines.graphs import graph_hash
from litevlm_ros.engines.tensorrt_module import title
from litevlm_ros.errors import CheckpointError, EngineError
from litevlm_ros.files import write_text
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import PARTS, TEXT, VISION, sidecar_file
from litevlm_ros.precision import PRECISIONS, precision_flag

FORMAT = 3
"""The version of the JSON. Readers refuse other numbers."""


_DIGEST = "sha256"
"""The key in the JSON of the SHA-256 over everything else in it."""


@dataclass(frozen=True)
class EngineSidecar:
    """Everything that is known about an engine. Sizes are in bytes, and hashes are hex digits of SHA-256.

    `file` is the engine's file name; `part` is VISION or TEXT. `compute_capabilities` lists the GPUs it runs on.
    `target` is the compute capability that was asked for and decided on the precision. `precision_reason` says why
    `precision_built` is not `precision_asked`; '' if it is. `calibration` says in words which data the scales of packed
    weights were chosen with; '' if none was needed. `weights_sha256` is that of the weights that are packed in the
    engine; '' if none are, since plans fit all weights of a model's shapes. `graph_sha256` is that of the graphs
    (`graph_hash`). `plans` lists the keys of the plans, and `compiled` tells whether their kernels are in the engine.
    `max_prompt` is the most new tokens of a call, `max_context` the most cache rows (both 0 for the vision encoder),
    and `max_tiles` the most tiles of a prompt (0 for the text decoder).
    `build_seconds` is the time that the engine took, and `built_at` is UTC as ISO 8601.
    """

    file: str
    part: str
    flavour: str
    version: str
    compute_capabilities: tuple[str, ...]
    target: str
    engine_sha256: str
    engine_bytes: int
    weights_sha256: str
    graph_sha256: str
    precision_asked: str
    precision_built: str
    precision_reason: str
    calibration: str
    plans: tuple[str, ...]
    compiled: bool
    max_prompt: int
    max_context: int
    max_tiles: int
    build_seconds: float
    built_at: str
    format: int = field(default=FORMAT)

    # Files

    def write(self, directory: Path) -> Path:
        """Writes the JSON file beside the engine in `directory`, whole or not at all. Raises OSError."""
        file = sidecar_file(directory / self.file)
        values = dataclasses.asdict(self)
        write_text(file, json.dumps({**values, _DIGEST: _digest(values)}, indent=2) + "\n")
        return file

    @classmethod
    def read(cls, engine: Path) -> EngineSidecar:
        """Reads the sidecar of the file `engine`. Raises EngineError if it is missing, damaged or of another format."""
        file = sidecar_file(engine)
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                raise ValueError(f"it is not of format {FORMAT}")
            sidecar = cls._from_json(values)
        except FileNotFoundError:
            raise EngineError(f"{file} is missing, so it is not known what {engine.name} was built for; build the "
                              f"engine again with `{rebuild_command(engine)}`") from None  # fmt: skip
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise EngineError(f"{file} cannot be used ({error}); build the engine again with "
                              f"`{rebuild_command(engine)}`") from error  # fmt: skip
        if sidecar.file != engine.name:
            raise EngineError(f"{file} describes {sidecar.file}, not {engine.name}: one of them was renamed. Give them "
                              f"their names back, or build again with `{rebuild_command(engine)}`")  # fmt: skip
        return sidecar

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> EngineSidecar:
        digest = values.pop(_DIGEST, None)  # earlier sidecars have none
        if digest is not None and digest != _digest(values):
            raise ValueError("it is damaged: its values are not those that were written")
        # Earlier sidecars name the scales of FP8; all but those of one form are what they are today.
        if values.pop("fp8_form", "") == "tensor":
            raise ValueError("its FP8 weights have one scale for a whole matrix instead of one for each output")
        expected = {entry.name: entry.type for entry in dataclasses.fields(cls)}
        if values.keys() != expected.keys():
            raise ValueError(f"unknown or missing keys: {', '.join(sorted(values.keys() ^ expected.keys()))}")
        simple: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
        for name, kind in expected.items():
            if str(kind) in simple and not isinstance(values[name], simple[str(kind)]):
                raise ValueError(f"{name} is {values[name]!r}, not of type {kind}")
        if values["part"] not in PARTS:
            raise ValueError(f"part is {values['part']!r}, not {' or '.join(PARTS)}")
        plans = tuple(str(key) for key in values["plans"])
        capabilities = tuple(str(capability) for capability in values["compute_capabilities"])
        return cls(**{**values, "plans": plans, "compute_capabilities": capabilities})

    # Checks

    def check(self, machine: Machine, directory: Path | None = None) -> list[str]:
        """Lists why this engine does not run on `machine`, each reason with the command that helps.

        `directory` is the engine's, for the command. The GPU is not compared if the machine has none.
        """
        reasons = []
        if (self.flavour, self.version) != (machine.flavour, machine.version):
            reasons.append(f"it was built by {title(self.flavour, self.version)} and {machine.tensorrt} is installed")
        if machine.compute_capability and machine.compute_capability not in self.compute_capabilities:
            reasons.append(f"it was built for compute capability {' and '.join(self.compute_capabilities)} and this "
                           f"GPU is {machine.compute_capability}")  # fmt: skip
        fix = f"build it again with `{self.command(directory)}`"
        return [f"{self.file} does not fit this machine: {reason}; {fix}" for reason in reasons]

    def check_file(self, engine: Path, *, contents: bool = True) -> list[str]:
        """Lists why the file `engine` is not the one that was built, each reason with the command that helps.

        It compares sizes and, with `contents`, the SHA-256.
        """
        checksum = self._checksum()
        difference = checksum.difference(engine) if contents else checksum.size_difference(engine)
        return [str(self._refusal(engine, difference))] if difference else []

    @contextlib.contextmanager
    def unchanged(self, engine: Path, model: Path) -> Iterator[None]:
        """Compares the contents of the file `engine` with those that were built, while the block loads it.

        So it does with the weights that an engine without packed ones reads from the model directory `model`. The block
        is to load both parts: all files are then compared at the same time.

        Raises EngineError or CheckpointError, with the command that helps, if a file has changed.
        """
        weights = contextlib.nullcontext() if self.weights_sha256 else unchanged_weights(model / self.part)
        with comparing({engine: self._checksum()}, self._refusal), weights:
            yield

    def _checksum(self) -> Checksum:
        return Checksum(self.engine_bytes, self.engine_sha256)

    def _refusal(self, engine: Path, difference: str) -> EngineError:
        return EngineError(f"{engine} is not the engine that was built: {difference}; copy it again, or build it with "
                           f"`{self.command(engine.parent)}`")  # fmt: skip

    def check_weights(self, model: Path) -> list[str]:
        """Lists why this engine is not one of the model directory `model`, with the command that helps.

        An engine without packed weights fits all, and a model directory without weights is taken to be the right one.
        """
        if not self.weights_sha256:
            return []
        try:
            found = hash_weights(model / self.part)
        except CheckpointError:
            return []
        if found == self.weights_sha256:
            return []
        return [f"{self.file} was built from other weights than those in {model / self.part}; build it again with "
                f"`{self.command(model)}`"]  # fmt: skip

    def check_graph(self, model: ModelConfig, directory: Path | None = None) -> list[str]:
        """Lists why this engine is not one of `model` and of this version of the code, with the command that helps.

        `directory` is the model directory, for the command.
        """
        if graph_hash(self.part, self.precision_built, model) == self.graph_sha256:
            return []
        return [f"{self.file} was built for another model than the config.json files in {directory or 'models'} "
                "describe, or by another version of litevlm_ros; build it again with "
                f"`{self.command(directory)}`"]  # fmt: skip

    def command(self, directory: Path | None = None) -> str:
        """Returns the command that builds this engine again."""
        flags = f"{precision_flag(self.part)} {self.precision_asked} --skip-{_OTHER[self.part]} --force"
        return f"ros2 run litevlm_ros build_engines --model {directory or 'models'} {flags}"


def _digest(values: dict[str, Any]) -> str:
    """Returns the SHA-256 over the values of a sidecar, in an order and a form that do not depend on the file's."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


_OTHER = {VISION: "text", TEXT: "vision"}


def rebuild_command(engine: Path) -> str:
    """Returns the command that builds the file `engine` again, as far as its name tells what it is."""
    part, _, precision = engine.stem.rpartition("_")
    known = part in PARTS and precision in PRECISIONS
    flags = f" --precision {precision} --skip-{_OTHER[part]} --force" if known else ""
    return f"ros2 run litevlm_ros build_engines --model {engine.parent}{flags}"
