"""An engine as it should be, which says why the one that is there, if any, has to be built again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from litevlm_ros.checksums import hash_file
from litevlm_ros.engines.fingerprint import this_machine
from litevlm_ros.engines.plan_archive import PlanKey
from litevlm_ros.engines.shapes import Sizes
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.engines.target import Target
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import format_capability
from litevlm_ros.model_directory import TEXT, VISION, engine_name
from litevlm_ros.precision import Precision


@dataclass(frozen=True)
class WantedEngine:
    """An engine as it should be, in the terms of a sidecar. `keys` are its plans, in the order of the file.

    `compiled` tells whether their kernels are compiled ahead.
    """

    part: str
    precision: Precision
    target: Target
    sizes: Sizes
    keys: tuple[PlanKey, ...]
    compiled: bool
    weights_sha256: str
    graph_sha256: str

    @property
    def file(self) -> str:
        """The name of its file, such as 'text_decoder_fp8.engine'."""
        return engine_name(self.part, self.precision.built)

    @property
    def limits(self) -> tuple[int, int, int]:
        """The sidecar's max_prompt, max_context and max_tiles."""
        text = self.part == TEXT
        prompt, context = (self.sizes.max_prompt, self.sizes.max_context) if text else (0, 0)
        return prompt, context, self.sizes.max_tiles if self.part == VISION else 0

    def reason_to_build(self, output: Path, *, recalibrate: bool = False) -> str:
        """Says why the engine in the directory `output`, if any, is not this one; returns '' if it is.

        With `recalibrate`, an engine that was calibrated is not.
        """
        file = output / self.file
        if not file.is_file():
            return "there is none yet"
        try:
            sidecar = EngineSidecar.read(file)
        except EngineError as error:
            return str(error).partition(";")[0]
        machine = this_machine()
        capability = format_capability(self.target.capability)
        if (sidecar.flavour, sidecar.version) != (machine.flavour, machine.version):
            return f"it was built by version {sidecar.version} and {machine.tensorrt} is installed"
        if capability not in sidecar.compute_capabilities:
            return f"it was built for compute capability {', '.join(sidecar.compute_capabilities)}, not {capability}"
        if sidecar.weights_sha256 != self.weights_sha256:
            return "the weights have changed"
        if sidecar.graph_sha256 != self.graph_sha256:
            return "this version draws another graph, or the model's config.json has changed"
        if sidecar.precision_built != self.precision.built:
            return f"it was built in {sidecar.precision_built}"
        limits = (sidecar.max_prompt, sidecar.max_context, sidecar.max_tiles)
        if limits != self.limits:
            return "it was built for another max_tiles or max_context"
        if sidecar.plans != tuple(map(str, self.keys)):
            return "this version builds it with other plans"
        if self.compiled and not sidecar.compiled:
            return "its kernels are not compiled yet"
        if sidecar.calibration and recalibrate:
            return "calibration images were given"
        damage = sidecar.check_file(file)
        return damage[0].partition(";")[0] if damage else ""

    def sidecar(self, file: Path, calibration: str, seconds: float) -> EngineSidecar:
        """Describes this engine, written to `file` after `seconds` of work. `calibration` is as in the sidecar."""
        machine = this_machine()
        capability = format_capability(self.target.capability)
        prompt, context, tiles = self.limits
        return EngineSidecar(
            file=self.file,
            part=self.part,
            flavour=machine.flavour,
            version=machine.version,
            compute_capabilities=(capability,),
            target=capability,
            engine_sha256=hash_file(file),
            engine_bytes=file.stat().st_size,
            weights_sha256=self.weights_sha256,
            graph_sha256=self.graph_sha256,
            precision_asked=self.precision.asked,
            precision_built=self.precision.built,
            precision_reason=self.precision.reason,
            calibration=calibration,
            plans=tuple(map(str, self.keys)),
            compiled=self.compiled,
            max_prompt=prompt,
            max_context=context,
            max_tiles=tiles,
            build_seconds=round(seconds, 1),
            built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
