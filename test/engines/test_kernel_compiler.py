"""Worker processes compile kernels, with a TensorRT and a GPU that are not there: `fake_rtx` stands for both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from package_files import ROOT

from litevlm_ros.engines.kernel_compiler import KernelCompiler, kernel_compiler, runtime_settings
from litevlm_ros.errors import EngineError


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Has workers, which import everything anew, find stand-ins for TensorRT-RTX and pycuda."""
    directory = Path(__file__).parent.parent / "support" / "fake_rtx"
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.setenv("PYTHONPATH", f"{directory}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.usefixtures("rtx")
@pytest.mark.timeout(60)
def test_kernels_of_several_plans_are_compiled_by_silent_workers(capfd: pytest.CaptureFixture[str]) -> None:
    with kernel_compiler(2) as compiler:
        begun = [compiler.submit(f"plan {index}", f"plan {index}".encode()) for index in range(4)]
        kernels = [KernelCompiler.finished(each) for each in begun]
    # The stand-in tells in its cache how it was used.
    assert kernels == [f"kernels of plan {index} EAGER USER_MANAGED x=(4, 8)".encode() for index in range(4)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("rtx")
@pytest.mark.timeout(60)
def test_failures_of_a_worker_are_explained() -> None:
    with kernel_compiler(1) as compiler:
        refused, context = compiler.submit("the refused", b"refused"), compiler.submit("the hopeless", b"no context")
        fine = compiler.submit("the fine", b"fine")
        with pytest.raises(EngineError, match=r"does not load the refused, which it has built: no such plan"):
            KernelCompiler.finished(refused)
        with pytest.raises(EngineError, match=r"does not compile kernels of the hopeless: out of registers"):
            KernelCompiler.finished(context)
        assert KernelCompiler.finished(fine)
        with pytest.raises(EngineError, match=r"ended by the system, most likely because memory ran out"):
            KernelCompiler.finished(compiler.submit("the deadly", b"die"))


_PARENT = """
from litevlm_ros.engines.kernel_compiler import KernelCompiler, kernel_compiler
if __name__ == "__main__":
    with kernel_compiler(2) as compiler:
        begun = [compiler.submit(str(index), b"slow") for index in range(40)]
        print("begun", flush=True)
        for each in begun:
            KernelCompiler.finished(each)
"""


@pytest.mark.usefixtures("rtx")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_when_the_parent_is_interrupted(number: signal.Signals, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    paths = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    parent = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == "begun\n"
    workers: list[Any] = []
    while len([each for each in workers if "spawn_main" in " ".join(each.cmdline())]) < 2:
        workers = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(0.05)
    started = time.monotonic()
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=30)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    assert time.monotonic() - started < 20, "40 plans of a second each would have taken as long"
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)


def test_tensorrt_compiles_nothing_at_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from litevlm_ros.engines import kernel_compiler as module
    from litevlm_ros.engines.tensorrt_module import TensorRT

    strategies = SimpleNamespace(USER_MANAGED="mine")
    trt = SimpleNamespace(ExecutionContextAllocationStrategy=strategies)
    monkeypatch.setattr(module, "load_tensorrt", lambda: TensorRT(trt, "tensorrt", "10.3.0"))
    assert runtime_settings(object(), b"kernels") == ("mine", None)
