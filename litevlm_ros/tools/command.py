"""The parts that several executables share: their exit status, their errors as one line, and their common options."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from litevlm_ros.config import BACKENDS, DECODES
from litevlm_ros.errors import ConfigError, LiteVLMError, visible
from litevlm_ros.model_directory import PARTS, TEXT, VISION
from litevlm_ros.packages import pip_command
from litevlm_ros.precision import PRECISION_CHOICES
from litevlm_ros.processes import end_signals

_INTERRUPTED = 130
"""The status by which a shell knows that Ctrl-C ended a program."""


def run_command(
    work: Callable[[], int | None],
    *,
    prefix: str = "",
    missing: str = "",
    packages: Sequence[str] = (),
    interrupted: str = "interrupted",
    failed: int = 1,
) -> int:
    """Runs a tool and returns its exit status: that of `work` (None is 0), `failed` after an error, 130 after Ctrl-C.

    A LiteVLMError or an OSError becomes one line on stderr; any other exception is a fault of the tool and is raised.
    `missing` is the line for what is not installed, with '{error}' for the ImportError; without it that is raised too.
    The command that installs `packages`, pip's names, is added to it. `interrupted` is the line after Ctrl-C. `prefix`,
    such as 'soak: ', precedes errors and `interrupted`.
    """
    try:
        return work() or 0
    except ImportError as error:
        if not missing:
            raise
        note(explain_missing(missing, packages, error))
    except (LiteVLMError, OSError) as error:
        note(f"{prefix}{error}")
    except KeyboardInterrupt:
        note(f"{prefix}{interrupted}")
        return _INTERRUPTED
    return failed


def explain_missing(missing: str, packages: Sequence[str], error: ImportError) -> str:
    """Returns the line for packages that are not installed, as `run_command` says it."""
    told = missing.format(error=error)
    return f"{told}; install with `{pip_command(*packages)}`" if packages else told


def end_on_signals() -> None:
    """Makes the first of `end_signals` raise KeyboardInterrupt, and ignores further ones while the tool cleans up."""
    numbers = end_signals()

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)


def say(line: str) -> None:
    """Prints a line of results at once, also into a pipe; what files say in it cannot steer a terminal."""
    print(visible(line), flush=True)


def note(line: str) -> None:
    """Prints a line about the progress or an error on stderr, so that results can be piped; otherwise as `say`."""
    print(visible(line), file=sys.stderr, flush=True)


def new_parser(tool: str, description: str | None) -> argparse.ArgumentParser:
    """Makes a parser whose --help shows `description` with its own line breaks."""
    return argparse.ArgumentParser(
        prog=tool, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


Options = Any
"""An ArgumentParser, or a group of one."""


def add_model_option(options: Options, default: Path | None = None) -> None:
    """Adds --model, a directory. Its value is None for the demo model unless there is a `default`.

    `litevlm_ros.model_directory.demo_model_directory` finds the demo model; a parser must not, since --help works
    without one.
    """
    shown = "the demo model" if default is None else "%(default)s"
    options.add_argument("--model", type=Path, default=default, metavar="DIR", help=f"model directory ({shown})")


def add_backend_options(options: Options) -> None:
    """Adds --backend and --threads as `PipelineConfig` takes them."""
    options.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="backend that runs the model (%(default)s)"
    )
    add_threads_option(options, default=0, shown="one for each core")


def add_threads_option(options: Options, default: int = 1, shown: str = "%(default)s") -> None:
    """Adds --threads, a number of CPU threads; `shown` is its default in --help."""
    options.add_argument("--threads", type=int, default=default, metavar="N", help=f"CPU threads ({shown})")


def add_decode_option(options: Options) -> None:
    """Adds --decode as `PipelineConfig` takes it."""
    options.add_argument(
        "--decode",
        choices=DECODES,
        default="auto",
        help="what computes decode steps on TensorRT: one kernel of this package, or the engine's blocks; auto is the "
        "kernel where it is supported and right (%(default)s)",
    )


def add_loaded_precision_options(options: Options) -> None:
    """Adds --vision-precision and --text-precision, which choose among the engines or graphs that are there."""
    for part in ("vision", "text"):
        options.add_argument(
            f"--{part}-precision",
            choices=PRECISION_CHOICES,
            default="auto",
            help=f"precision of the {part} engine or graph (%(default)s)",
        )


def add_part_options(options: Options, verb: str) -> None:
    """Adds --skip-vision and --skip-text for a tool that makes the parts of a model, which `chosen_parts` reads."""
    options.add_argument("--skip-vision", action="store_true", help=f"do not {verb} the vision encoder")
    options.add_argument("--skip-text", action="store_true", help=f"do not {verb} the text decoder")


def chosen_parts(options: argparse.Namespace, verb: str) -> tuple[str, ...]:
    """Returns the parts that are not skipped: VISION, TEXT or both. Raises ConfigError for none to `verb`."""
    skipped = {VISION: options.skip_vision, TEXT: options.skip_text}
    parts = tuple(part for part in PARTS if not skipped[part])
    if not parts:
        raise ConfigError(f"--skip-vision and --skip-text leave nothing to {verb}; drop one of them")
    return parts


def add_made_precision_options(options: Options, choices: Sequence[str]) -> None:
    """Adds --vision-precision and --text-precision, which override the common precision of what a tool makes."""
    for part, name in (("vision", "vision encoder"), ("text", "text decoder")):
        options.add_argument(f"--{part}-precision", choices=choices, help=f"precision of the {name} alone")


def made_precisions(options: argparse.Namespace, common: str, verb: str) -> dict[str, str]:
    """Returns the precision of each part that is not skipped. Raises ConfigError if both are."""
    own = {VISION: options.vision_precision, TEXT: options.text_precision}
    return {part: own[part] or common for part in chosen_parts(options, verb)}


def require_positive(options: argparse.Namespace, *names: str) -> None:
    """Raises ConfigError for an option below 1; those that were not given (None) pass."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; allowed: from 1")
