from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from litevlm_ros.errors import LiteVLMError
from litevlm_ros.processes import Child, StopRequest, stop_on_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def script(folder: Path, text: str) -> dict[str, str]:
    (folder / "child_script.py").write_text(text)
    return {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_output_and_status(tmp_path):
    environment = script(
        tmp_path, "import sys\nfor i in range(40): print(i)\nsys.stderr.write('bad\\n')\nsys.exit(3)\n"
    )
    with Child("child_script", [], tmp_path / "log", environment) as child:
        wait_for(lambda: child.status is not None)
        assert child.status == 3
        assert child.tail(3).splitlines()[-1] in ("bad", "39")
        assert len(child.tail(3).splitlines()) == 3
        with pytest.raises(LiteVLMError, match=r"^child_script ended early with status 3\. Its last lines:\n\d+"):
            child.require_running()


def test_it_is_interrupted_on_leaving(tmp_path):
    text = (
        "import time\ntry:\n  print('ready', flush=True)\n  time.sleep(60)\nexcept KeyboardInterrupt:\n  print('bye')\n"
    )
    with Child("child_script", [], tmp_path / "log", script(tmp_path, text)) as child:
        wait_for(lambda: "ready" in child.tail())
    assert child.status == 0
    assert child.tail().endswith("bye")


def test_it_is_killed_when_it_does_not_listen(tmp_path, monkeypatch):
    monkeypatch.setattr("litevlm_ros.processes._STOP_SECONDS", 0.2)
    text = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('ready', flush=True)\nwhile True: pass\n"
    with Child("child_script", [], tmp_path / "log", script(tmp_path, text)) as child:
        wait_for(lambda: "ready" in child.tail())
    assert child.status == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
def test_it_dies_when_the_parent_is_killed(tmp_path):
    script(tmp_path, "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    parent_text = (
        "import os, pathlib, time\n"
        "from litevlm_ros.processes import Child\n"
        f"Child('child_script', [], pathlib.Path({str(tmp_path / 'log')!r}), os.environ)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    parent = subprocess.Popen([sys.executable, "-c", parent_text], env=environment)
    try:
        log = tmp_path / "log"
        wait_for(lambda: log.exists() and log.read_text().strip().isdigit())
        pid = int(log.read_text())
        assert alive(pid)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not alive(pid))


# --- the request to stop

AT_EACH_INSTRUCTION = """
import signal, sys
from litevlm_ros.processes import stop_on_signals

def trace(frame, event, argument):
    global left
    frame.f_trace_opcodes = True
    left -= event == "opcode"
    if event == "opcode" and left == 0:
        signal.raise_signal(signal.SIGINT)
    return trace

signalled = 0
sys._getframe().f_trace_opcodes = True  # without it Python 3.12 traces no instruction of any frame
while True:
    left = signalled + 1
    with stop_on_signals() as stop:
        sys.settrace(trace)
        stop.wait(0.001)
        sys.settrace(None)
    if left > 0:
        break
    assert stop.is_set() and stop.wait(60), signalled
    signalled += 1
print(signalled)
"""


def test_a_signal_at_any_instruction_of_a_wait_makes_the_request() -> None:
    """A threading.Event hangs here: its set() takes a lock that the interrupted wait() may hold."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", AT_EACH_INSTRUCTION], env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.stderr == ""
    assert int(run.stdout) > 20


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_ends_a_wait_at_once(handlers: None, number: signal.Signals) -> None:
    with stop_on_signals() as stop:
        assert not stop.wait(0.001)
        timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
        timer.start()
        began = time.monotonic()
        assert stop.wait(60)
        assert time.monotonic() - began < 30
        os.kill(os.getpid(), number)
    assert stop.is_set()
    timer.join()


def test_signals_behind_the_block_are_ignored(handlers: None) -> None:
    with stop_on_signals() as stop:
        pass
    for number in NUMBERS:
        os.kill(os.getpid(), number)
    assert not stop.is_set()


def test_a_block_that_raises_restores_the_handlers(handlers: None) -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with pytest.raises(LiteVLMError), stop_on_signals():
        raise LiteVLMError("it could not begin")
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_ends_a_process_but_not_under_nohup(handlers: None, ignored: bool) -> None:
    code = (
        "from litevlm_ros.processes import stop_on_signals\n"
        "with stop_on_signals() as stop:\n    print('ready', flush=True)\n    stop.wait(60)\nprint('ended')\n"
    )
    command = [*(["nohup"] if ignored else []), sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGHUP)
        if ignored:
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.5)
            child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=30)[0] == "ended\n"
    assert child.returncode == 0


def test_one_request_ends_the_waits_of_all_threads() -> None:
    stop = StopRequest()
    ended: list[bool] = []
    threads = [threading.Thread(target=lambda: ended.append(stop.wait())) for _ in range(3)]
    for thread in threads:
        thread.start()
    stop.set()
    for thread in threads:
        thread.join(30)
    assert ended == [True, True, True]
