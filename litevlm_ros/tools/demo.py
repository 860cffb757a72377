"""Run cameras and node, show captions, ask questions, and draw a picture of it all.

ros2 run litevlm_ros demo --seconds 20 --output demo_out
ros2 run litevlm_ros demo --model internvl2-1b --video street.mp4
ros2 run litevlm_ros demo --model my_checkpoint --camera /dev/video0 --question "Is the door open?"

Without --model it is the demo model, which knows the rendered street only. --model downloads or reads another one and
makes what it needs: TensorRT engines if there is an NVIDIA GPU, else graphs for the CPU. First it tells what that takes
and refuses if disk or memory is too small. All of it is kept, so that the next start takes seconds, and the same
command continues after an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.node.ros_environment import check_environment
from litevlm_ros.packages import DOWNLOAD, ROS_ADVICE
from litevlm_ros.processes import end_with_parent
from litevlm_ros.tools.command import end_on_signals, new_parser, run_command, say

if TYPE_CHECKING:
    from litevlm_ros.lab.demo.model_plan import ModelPlan

_NEEDS_ROS = "The demo needs ROS 2 and the built package ({error}): " + ROS_ADVICE
_NEEDS_CONVERSION = (
    "demo: a model is downloaded and converted with torch, onnx, onnxscript and huggingface_hub ({error}), which `make "
    "demo MODEL=...` installs in a checkout"
)
_INTERRUPTED = "interrupted"
_CONTINUES = "interrupted; what is finished is kept: the same command continues"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if captions and answers arrived, 1 if not, 130 after Ctrl-C.

    With --check or --prepare, 0 if the model can run, or is ready.
    """
    options = _parser().parse_args(argv)
    end_on_signals()
    interrupted = _INTERRUPTED if options.model is None else _CONTINUES
    if options.prepare:
        return run_command(
            lambda: _prepare(options),
            prefix="demo: ",
            missing=_NEEDS_CONVERSION,
            packages=DOWNLOAD,
            interrupted=interrupted,
        )
    return run_command(lambda: _run(options), prefix="demo: ", missing=_NEEDS_ROS, interrupted=interrupted)


def _run(options: argparse.Namespace) -> int:
    check_environment()
    # Imported late, so that --help works without ROS.
    from litevlm_ros.lab.demo.model_plan import obstacle
    from litevlm_ros.lab.demo.pictures import Pictures
    from litevlm_ros.lab.demo.show import run_demo, run_model

    if options.model is None:
        _refuse_without_model(options)
    # Mistakes come to light before the long work.
    if not options.seconds > 0:
        raise ConfigError(f"--seconds is {options.seconds:g}; give how long to run, such as 20")
    pictures = Pictures(options.video, options.camera, options.image)
    pictures.check()
    if options.model is None:
        return 0 if run_demo(options.seconds, pictures, options.output) else 1
    plan = _plan(options)
    for line in plan.lines():
        say(line)
    plan.check()
    if options.check:
        return 0
    if not plan.is_ready:
        # A process of its own gives the memory of the conversion back before the node needs it.
        status = _prepare_apart(options)
        if status:
            return status
        if reason := obstacle(plan.wanted.directory, plan.backend):
            raise EngineError(f"the model was prepared, but cannot run: {reason}")
    return 0 if run_model(plan, options.seconds, pictures, options.question, options.output, say) else 1


def _refuse_without_model(options: argparse.Namespace) -> None:
    given = {"--question": options.question, "--check": options.check}
    for flag in (flag for flag, value in given.items() if value):
        raise ConfigError(f"{flag} is for a model that --model names; the demo model answers its own questions")


def _plan(options: argparse.Namespace) -> ModelPlan:
    from litevlm_ros.lab.demo.model_plan import make_plan
    from litevlm_ros.lab.demo.wanted_model import find_wanted

    return make_plan(find_wanted(options.model, options.models))


def _prepare(options: argparse.Namespace) -> None:
    if options.model is None:
        raise ConfigError("--prepare needs --model; the demo model is ready")
    # Imported late, so that --help is quick.
    from litevlm_ros.lab.demo.model_preparation import prepare

    plan = _plan(options)
    plan.check()
    prepare(plan, say)


def _prepare_apart(options: argparse.Namespace) -> int:
    """Runs --prepare as a process, on the same terminal. Returns its exit status, which it has explained there."""
    command = [sys.executable, "-m", "litevlm_ros.tools.demo", "--prepare"]
    command += ["--model", options.model, "--models", str(options.models)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            # Ctrl-C on a terminal has reached it too; a signal to this process alone has not.
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)
            return child.wait()


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("demo", __doc__)
    pictures = parser.add_argument_group("pictures", "Without one of them: the rendered street.")
    choice = pictures.add_mutually_exclusive_group()
    choice.add_argument("--video", type=Path, metavar="FILE", help="show the node this video")
    choice.add_argument("--camera", metavar="DEVICE", help="show it what this camera sees, such as /dev/video0")
    choice.add_argument("--image", type=Path, metavar="PATH", help="show it this photo, or those of a folder in turn")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="NAME|PATH",
        help="a published model such as internvl2-1b, OWNER/NAME on the hub, the directory of a checkpoint, or a model "
        "directory (default: the demo model)",
    )
    model.add_argument(
        "--models",
        type=Path,
        default=Path("models"),
        metavar="DIR",
        help="where models are kept, each in a directory of its own (%(default)s)",
    )
    model.add_argument(
        "--question",
        action="append",
        default=[],
        metavar="TEXT",
        help="ask the model this, and nothing else; may be given several times",
    )
    only = model.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="tell what it takes, and end")
    only.add_argument("--prepare", action="store_true", help="download and convert the model, and end")
    run = parser.add_argument_group("run")
    run.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="how long to run; with --model from the first caption on (%(default)g)",
    )
    run.add_argument(
        "--output",
        type=Path,
        default=Path("demo_out"),
        metavar="DIR",
        help="for the picture, the logs, and with --model captions.jsonl (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
