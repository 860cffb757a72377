"""Run node, six cameras and a client for a long time, and see whether memory or latency grow.

ros2 run litevlm_ros soak --minutes 20 --output soak_out

Writes soak.json and soak.png there. Ends with 1 where memory is not flat, latency drifts, a question stays without an
answer or a camera without captions.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.world.scene import CAMERAS
from litevlm_ros.processes import Child

if TYPE_CHECKING:
    from litevlm_ros.lab.soak.client import SoakClient
    from litevlm_ros.lab.soak.record import Record

_START_SECONDS = 60.0
_SAMPLE_SECONDS = 1.0


class _InterruptedError(Exception):
    """Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if all stayed as it was, 1 if not, 2 where it could not run, 130 after Ctrl-C."""
    options = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _soak(options)
    except LiteVLMError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    except _InterruptedError:
        print("soak: interrupted", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise _InterruptedError


def _soak(options: argparse.Namespace) -> int:
    try:
        from litevlm_ros.lab.soak.chart import draw
        from litevlm_ros.lab.soak.client import SoakClient
        from litevlm_ros.lab.soak.record import Record, table
        from litevlm_ros.machine import describe
    except ImportError as error:
        raise LiteVLMError(f"a soak needs ROS 2, the built package and matplotlib ({error}): run make setup, then "
                           ". scripts/env.sh, and pip install matplotlib") from error  # fmt: skip
    for flag in ("minutes", "rate", "ask_every"):
        if not getattr(options, flag) > 0:
            raise LiteVLMError(f"--{flag.replace('_', '-')} is {getattr(options, flag):g}; allowed: above 0")
    options.output.mkdir(parents=True, exist_ok=True)
    record = Record(60 * options.minutes)
    with ExitStack() as stack:
        start = [
            ("litevlm_ros.tools.demo_cameras", ["--rate", f"{options.rate:g}"], "cameras.log"),
            ("litevlm_ros.node.process", _node_arguments(options), "node.log"),
        ]
        cameras, node = (
            stack.enter_context(Child(module, arguments, options.output / log, os.environ))
            for module, arguments, log in start
        )
        client = SoakClient(record, options.ask_every)
        stack.callback(client.close)
        _run(record, client, [cameras, node], node)
    record.node_log = [
        line for line in node.log.read_text(errors="replace").splitlines()
        if any(word in line for word in ("[WARN]", "[ERROR]", "Traceback", "received"))
    ]  # fmt: skip
    host = describe()
    title = f"{options.minutes:g} minutes, {len(CAMERAS)} cameras of {options.rate:g} Hz on {host['cores']} cores"
    (options.output / "soak.json").write_text(json.dumps({"describe": host, **record.json()}), encoding="utf-8")
    draw(record, title, options.output / "soak.png")
    print(f"{host['cpu']}: {title}\n{table(record.figures())}")
    findings = record.findings(CAMERAS)
    for finding in findings:
        print(f"NOT WELL: {finding}")
    print(f"written to {options.output}")
    return int(bool(findings))


def _run(record: Record, client: SoakClient, children: Sequence[Child], node: Child) -> None:
    """Fills the record. Raises LiteVLMError where a process ends."""
    from litevlm_ros.lab.soak.usage import Usage
    from litevlm_ros.lab.soak.yardstick import yardstick_ms

    deadline = time.monotonic() + _START_SECONDS
    while not client.ready(CAMERAS):
        _check(children)
        if time.monotonic() > deadline:
            raise LiteVLMError(
                f"not every camera was captioned within {_START_SECONDS:g} s. The node's last lines:\n{node.tail()}"
            )
    began = client.begin()
    sample_at = began
    while (now := time.monotonic()) < began + record.seconds:
        client.step()
        if now >= sample_at:
            _check(children)
            record.usage.append((now - began, Usage.of(node.process_id)))
            record.yardstick.append((now - began, yardstick_ms()))
            sample_at = now + _SAMPLE_SECONDS


def _node_arguments(options: argparse.Namespace) -> list[str]:
    # Raw images of six cameras at once do not fit into Fast DDS's shared memory.
    parameters = [f"cameras:=[{', '.join(CAMERAS)}]", "transport:=compressed", "caption_period:=0.001"]
    if options.model is not None:
        parameters.append(f"model_dir:={options.model}")
    return ["--ros-args", *(part for parameter in parameters for part in ("-p", parameter))]


def _check(children: Sequence[Child]) -> None:
    for child in children:
        if child.status is not None:
            raise LiteVLMError(f"{child.name} ended early with status {child.status}. Its last lines:\n{child.tail()}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, metavar="M", help="how long (%(default)g)")
    parser.add_argument("--rate", type=float, default=30.0, metavar="HZ", help="of each camera (%(default)g)")
    parser.add_argument("--ask-every", type=float, default=1.0, metavar="S", help="seconds (%(default)g)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model directory (default: the demo model)")
    parser.add_argument("--output", type=Path, default=Path("soak_out"), metavar="DIR", help="(%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
