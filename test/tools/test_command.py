from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from litevlm_ros.errors import ConfigError
from litevlm_ros.tools.command import (
    add_backend_options,
    add_decode_option,
    add_loaded_precision_options,
    add_made_precision_options,
    add_model_option,
    add_part_options,
    chosen_parts,
    end_on_signals,
    made_precisions,
    new_parser,
    note,
    require_positive,
    run_command,
    say,
)


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_the_status_is_that_of_the_work(returned: int | None, status: int) -> None:
    assert run_command(lambda: returned) == status


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("threads is -1"), "soak: threads is -1\n"),
        (FileNotFoundError(2, "No such file", "x.json"), "soak: [Errno 2] No such file: 'x.json'\n"),
        (ImportError("No module named 'rclpy'"), "install it (No module named 'rclpy')\n"),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(error), prefix="soak: ", missing="install it ({error})", failed=2) == 2
    assert capsys.readouterr().err == line


def test_what_files_and_servers_say_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("built by \x1b[2JTensorRT\r\n")
    note("\x1b]0;title\x07")
    for error in (ConfigError("\x1b[2J"), OSError(5, "\x1b[2J"), ImportError("\x1b[2J")):
        run_command(raising(error), missing="{error}")
    written = capsys.readouterr()
    assert written.out == "built by \\x1b[2JTensorRT\\r\n\n"
    assert "\x1b" not in written.err
    assert written.err.count(r"\x1b[2J") == 3


def test_ctrl_c_is_told_by_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(KeyboardInterrupt()), prefix="soak: ") == 130
    assert run_command(raising(KeyboardInterrupt()), interrupted="go on with --resume") == 130
    assert capsys.readouterr().err == "soak: interrupted\ngo on with --resume\n"


@pytest.mark.parametrize("error", [ZeroDivisionError(), ImportError("a fault of ours")])
def test_a_fault_of_the_tool_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_command(raising(error))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_others_do_not_disturb_the_cleaning(handlers: None, number: int) -> None:
    end_on_signals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), each)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = new_parser("build", "Build it.")
    add_part_options(parser, "build")
    add_made_precision_options(parser, ("fp16", "fp8"))
    return parser.parse_args(arguments)


def test_each_part_has_the_common_precision_or_its_own() -> None:
    options = parsed("--text-precision", "fp8")
    assert made_precisions(options, "fp16", "build") == {"vision_encoder": "fp16", "text_decoder": "fp8"}
    assert made_precisions(parsed("--skip-text"), "fp8", "build") == {"vision_encoder": "fp8"}
    assert chosen_parts(parsed("--skip-vision"), "build") == ("text_decoder",)
    with pytest.raises(ConfigError, match="--skip-vision and --skip-text leave nothing to build; drop one of them"):
        chosen_parts(parsed("--skip-vision", "--skip-text"), "build")


def test_options_that_are_left_out_have_the_pipelines_defaults() -> None:
    parser = new_parser("evaluate", None)
    add_model_option(parser)
    add_backend_options(parser)
    add_loaded_precision_options(parser)
    add_decode_option(parser)
    assert vars(parser.parse_args([])) == {
        "model": None, "backend": "auto", "threads": 0, "vision_precision": "auto", "text_precision": "auto",
        "decode": "auto",
    }  # fmt: skip
    add_model_option(other := new_parser("export", None), Path("models"))
    assert other.parse_args([]).model == Path("models")


def test_a_number_below_1_is_named() -> None:
    options = argparse.Namespace(runs=3, views=None, ask_every=0)
    require_positive(options, "runs", "views")
    with pytest.raises(ConfigError, match="--ask-every is 0; allowed: from 1"):
        require_positive(options, "runs", "ask_every")
