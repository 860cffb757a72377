"""The GPU that engines are built for: the one at hand, or for TensorRT-RTX another one."""

from __future__ import annotations

from dataclasses import dataclass

from litevlm_ros.engines.tensorrt_module import load_tensorrt
from litevlm_ros.errors import ConfigError
from litevlm_ros.machine import find_device, format_capability


@dataclass(frozen=True)
class Target:
    """The GPUs that an engine is built for. `name` is TensorRT-RTX's for them; '' where the GPU at hand decides."""

    capability: tuple[int, int]
    name: str = ""

    @property
    def is_here(self) -> bool:
        """True if it is the GPU at hand."""
        return self.name in ("", "CURRENT")


def find_target(asked: tuple[int, int] | None) -> Target:
    """Finds the target for a compute capability; None stands for the GPU at hand.

    Raises ConfigError if the installed TensorRT cannot build for it here, and EngineError if there is no TensorRT.
    """
    tensorrt, device = load_tensorrt(), find_device()
    here = device.compute_capability if device else None
    wanted = asked or here
    if wanted is None:
        hint = "say for which with --target-sm, such as 89" if tensorrt.is_rtx else "build on the machine with the GPU"
        raise ConfigError(f"there is no NVIDIA GPU here to build for, or its driver does not start; {hint}")
    if wanted == here:
        return Target(wanted, "CURRENT" if tensorrt.is_rtx else "")
    if not tensorrt.is_rtx:
        found = f"the GPU here is {format_capability(here)}" if here else "there is no GPU here"
        raise ConfigError(f"target-sm is {format_capability(wanted)} and {found}; {tensorrt.title} builds only for the "
                          "GPU it runs on. Leave --target-sm out there, or install TensorRT-RTX")  # fmt: skip
    name = f"SM{wanted[0]}{wanted[1]}"
    known = [each for each in tensorrt.module.ComputeCapability.__members__ if each.startswith("SM")]
    if name not in known:
        raise ConfigError(f"target-sm is {format_capability(wanted)}; {tensorrt.title} builds for "
                          f"{', '.join(each[2:-1] + '.' + each[-1] for each in known)} and the GPU at hand. A Jetson's "
                          "engines are built on a Jetson, by JetPack's TensorRT")  # fmt: skip
    return Target(wanted, name)
