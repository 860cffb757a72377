"""Imports the TensorRT that is installed, and passes its messages to Python's log.

TensorRT (`tensorrt`, part of JetPack) and TensorRT-RTX (`tensorrt_rtx`, `tensorrt_rtx_bindings`) have one API; an
engine of one is of no use to the other.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any

from litevlm_ros.errors import EngineError
from litevlm_ros.packages import pip_command

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Import names, in the order in which they are tried."""

_MINIMUM = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 2)}
_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_LOGGER = logging.getLogger("litevlm_ros.tensorrt")


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT. `flavour` is 'tensorrt' or 'tensorrt_rtx', `version` such as '10.3.0'."""

    module: Any
    flavour: str
    version: str

    @property
    def title(self) -> str:
        """Name and version for people: 'TensorRT-RTX 1.4.0.76'."""
        return title(self.flavour, self.version)

    @property
    def is_rtx(self) -> bool:
        """True for TensorRT-RTX, which builds without a GPU and compiles its kernels when an engine runs."""
        return self.flavour == "tensorrt_rtx"


def title(flavour: str, version: str) -> str:
    """Returns name and version for people: 'TensorRT 10.3.0' or 'TensorRT-RTX 1.4.0.76'."""
    return f"{_TITLES.get(flavour, flavour)} {version}"


@functools.cache
def load_tensorrt() -> TensorRT:
    """Imports the first of MODULES that starts. Raises EngineError, with the fix, if none does or it is too old."""
    broken = []
    for name in MODULES:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # its libraries, or the CUDA runtime, are missing
            broken.append(f"{name} is installed but does not start ({error})")
            continue
        found = TensorRT(module, "tensorrt_rtx" if "rtx" in name else "tensorrt", str(module.__version__))
        _check_version(found)
        return found
    happened = "; ".join(broken) if broken else "TensorRT is not installed"
    raise EngineError(f"{happened}; install it: {_install()}")


def _check_version(found: TensorRT) -> None:
    minimum = _MINIMUM[found.flavour]
    numbers = tuple(int(part) for part in found.version.split(".")[:2] if part.isdigit())
    if numbers < minimum:
        wanted = ".".join(str(number) for number in minimum)
        raise EngineError(f"{found.title} is too old, {wanted} or newer is needed; install it: {_install()}")


class Messages:
    """The last errors that TensorRT logged, oldest first. They are the reason when a call returns nothing."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=8)

    def add(self, message: str) -> None:
        """Notes an error."""
        self._errors.append(message.strip())

    def take(self) -> str:
        """Returns all errors since the last call in one line; 'no reason given' if there are none."""
        taken = "; ".join(dict.fromkeys(self._errors))
        self._errors.clear()
        return taken or "no reason given"


@functools.cache
def tensorrt_logger() -> tuple[Any, Messages]:
    """Returns the logger of this process, which TensorRT wants for all its objects, and the errors that it noted.

    Errors and warnings go to the log `litevlm_ros.tensorrt` as such, everything else as debug messages. Raises
    EngineError as `load_tensorrt` does.
    """
    trt = load_tensorrt().module
    messages = Messages()
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
    }

    class Logger(trt.ILogger):  # type: ignore[name-defined]
        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                messages.add(message)
            _LOGGER.log(level, "%s", message)

    return Logger(), messages


def _install() -> str:
    """Returns the words that tell how TensorRT is installed."""
    wheels = pip_command("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings")
    return (
        "on a Jetson `sudo apt-get install --reinstall python3-libnvinfer-dev`, and create the virtual environment "
        f"with --system-site-packages; elsewhere `{wheels}`, or `{pip_command('tensorrt')}`"
    )
