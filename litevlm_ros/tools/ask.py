"""Ask a running node a question about what its cameras see, or about photos, and print the answer.

ros2 run litevlm_ros ask "Is the way ahead clear?"
ros2 run litevlm_ros ask "What is left of us?" --cameras left,back --stream
ros2 run litevlm_ros ask "What does the sign say?" --image photo.jpg
ros2 run litevlm_ros ask "What is a yield sign?" --cameras none

Only the answer goes to stdout; all else goes to stderr. The exit status is 0 with an answer, 1 without one, 2 for
options that cannot be right, and 130 after Ctrl-C, which cancels the question.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from litevlm_ros.errors import ImageError, visible
from litevlm_ros.node.command_line import split
from litevlm_ros.node.ros_environment import check_environment
from litevlm_ros.processes import StopRequest, stop_on_signals
from litevlm_ros.tools.command import new_parser, note, run_command, say

_MOST_BYTES = 100_000_000
"""Largest size of a photo's file in bytes. No photo that a node takes has as many."""

_UINT32 = 2**32 - 1


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 with an answer, 1 without one and 130 after Ctrl-C. Raises SystemExit(2) for wrong options."""
    own, for_ros = split(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(own)
    with stop_on_signals() as stop:
        return run_command(
            lambda: _run(options, for_ros, stop),
            prefix="ask: ",
            missing="ask: this needs ROS 2 and the built package ({error}): source the workspace's setup.bash, or in a "
            "checkout run make setup, then . scripts/env.sh",
            interrupted="cancelled",
        )


def _run(options: argparse.Namespace, for_ros: Sequence[str], stop: StopRequest) -> int:
    deadline = time.monotonic() + options.timeout
    photos = [_read_photo(file) for file in options.image]
    check_environment(for_ros)
    # Imported late, so that --help and the checks of photos work without ROS.
    from litevlm_ros.node.question_client import QuestionClient

    client = QuestionClient(for_ros, stop, deadline)
    printer = _Printer(options.stream)
    try:
        answer = client.ask(_goal(options, photos), options.node, printer.piece)
        printer.end(answer.text)
    finally:
        printer.stop()
        client.close()
    about = ", ".join(answer.cameras) or "no image"
    note(f"ask: about {about}; {answer.generated_tokens} tokens in {answer.timings.total / 1e3:.2f} s")
    return 0


def _read_photo(file: Path) -> tuple[str, bytes]:
    """Returns the format and the bytes of a JPEG or PNG. Raises ImageError, which names the file, for anything else."""
    from litevlm_ros.images.compressed import check_compressed

    if not file.exists():
        raise ImageError(f"{file}: there is no such file; correct --image")
    if not file.is_file():
        raise ImageError(f"{file}: this is {'a directory' if file.is_dir() else 'no file'}; give --image one photo")
    if file.stat().st_size > _MOST_BYTES:
        raise ImageError(f"{file}: the file has more than {_MOST_BYTES // 10**6} MB; scale the photo down first")
    data = file.read_bytes()
    try:
        codec = check_compressed("", data).codec
    except ImageError as error:
        raise ImageError(f"{file}: {str(error).partition(': ')[2] or error}") from None
    return codec.lower(), data


def _goal(options: argparse.Namespace, photos: Sequence[tuple[str, bytes]]) -> Any:
    """Makes a litevlm_ros/Ask goal."""
    from array import array

    from sensor_msgs.msg import CompressedImage

    from litevlm_ros.action import Ask

    return Ask.Goal(
        question=options.question,
        cameras=options.cameras,
        compressed_images=[CompressedImage(format=kind, data=array("B", data)) for kind, data in photos],
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed,
    )


class _Printer:
    """Prints an answer on stdout: at its end, or while it comes."""

    def __init__(self, stream: bool) -> None:
        self._stream = stream
        self._shown = ""

    def piece(self, text: str) -> None:
        """Takes the answer so far. Pieces that were lost are in it."""
        text = text.lstrip()
        if self._stream and text.startswith(self._shown):
            sys.stdout.write(visible(text[len(self._shown) :]))
            sys.stdout.flush()
            self._shown = text

    def end(self, text: str) -> None:
        """Takes the whole answer."""
        if self._shown and not text.startswith(self._shown.rstrip()):
            self.stop()
        say(text[len(self._shown) :])
        self._shown = ""

    def stop(self) -> None:
        """Ends the line of an answer that breaks off."""
        if self._shown:
            say("")
        self._shown = ""


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("ask", __doc__)
    parser.add_argument("question", type=_question, metavar="QUESTION", help="question in natural language")
    parser.add_argument("--node", metavar="NAME", help="node to ask, such as /litevlm (the only one that there is)")
    parser.add_argument(
        "--timeout", type=_seconds, default=120.0, metavar="S", help="seconds to wait for the answer (%(default)g)"
    )
    parser.add_argument("--stream", action="store_true", help="print the answer while it comes")
    images = parser.add_argument_group("images")
    images.add_argument(
        "--cameras",
        type=_names,
        default=[],
        metavar="A,B",
        help="cameras to look at, or names for the photos; none: no image at all (the node selects among all)",
    )
    images.add_argument(
        "--image",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="photo to ask about instead of the cameras, JPEG or PNG; may be repeated",
    )
    answer = parser.add_argument_group("answer")
    answer.add_argument(
        "--max-new-tokens", type=_whole(_UINT32), default=0, metavar="N", help="most tokens (that of the node)"
    )
    answer.add_argument("--temperature", type=_number(100.0), default=0.0, metavar="T", help="0: greedy (%(default)g)")
    answer.add_argument("--top-k", type=_whole(_UINT32), default=0, metavar="K", help="likeliest tokens (0: all)")
    answer.add_argument("--top-p", type=_number(1.0), default=0.0, metavar="P", help="share of likeliest (0: all)")
    answer.add_argument(
        "--seed", type=_whole(2**64 - 1), default=0, metavar="N", help="seed of sampling (0: a new one)"
    )
    return parser


def _question(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("the question is not UTF-8; set LANG=C.UTF-8") from None
    if not text.strip():
        raise argparse.ArgumentTypeError("the question is empty")
    return text


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _whole(most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) > most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {most}")
        return int(text)

    return whole


def _number(most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {most:g}")
        return value

    return number


def _seconds(text: str) -> float:
    value = _number(1e9)(text)
    if not value:
        raise argparse.ArgumentTypeError("0 seconds leave no time for an answer")
    return value


if __name__ == "__main__":
    sys.exit(main())
