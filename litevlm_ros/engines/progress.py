"""A build's progress, as TensorRT tells it (IProgressMonitor): one bar for each phase, nested as the phases are."""

from __future__ import annotations

from typing import Any

from litevlm_ros.engines.tensorrt_module import load_tensorrt


def progress_monitor(*, quiet: bool = False) -> Any:
    """A monitor for `IBuilderConfig.progress_monitor`. Call its `stop()` to let TensorRT end the build early.

    Bars appear on a terminal only; a log gets no half-drawn lines. `quiet` leaves them out altogether.
    """
    from tqdm import tqdm

    trt = load_tensorrt().module

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        """Called by TensorRT from its own threads, one at a time for each phase."""

        def __init__(self) -> None:
            super().__init__()
            self._bars: dict[str, Any] = {}
            self._stopped = False

        def stop(self) -> None:
            self._stopped = True
            for name in list(self._bars):
                self.phase_finish(name)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if self._stopped:
                return
            depth = len(self._bars)
            self._bars[phase_name] = tqdm(
                total=num_steps,
                desc="  " * depth + phase_name,
                position=depth,
                leave=False,
                disable=True if quiet else None,
            )

        def step_complete(self, phase_name: str, step: int) -> bool:
            bar = self._bars.get(phase_name)
            if bar is not None:
                bar.update(step + 1 - bar.n)
            return not self._stopped

        def phase_finish(self, phase_name: str) -> None:
            bar = self._bars.pop(phase_name, None)
            if bar is not None:
                bar.close()

    return Monitor()
