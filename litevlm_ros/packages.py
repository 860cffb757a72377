"""The commands that install Python packages which are missing, for the messages that say so.

They install into the interpreter that runs now, wherever this package itself was installed from: a checkout, a ROS
workspace or pip. The versions are those that the package is tested with, from the files in requirements/.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import sys
import sysconfig
from pathlib import Path

from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import shipped

CONVERSION = ("torch", "onnx", "onnxscript")
"""Packages that export, pack and train models."""
DOWNLOAD = (*CONVERSION, "huggingface_hub")
"""Packages that download a model and split it into its halves."""
ENGINES = ("onnx", "tqdm", "pycuda", "cuda-bindings", "nvidia-cudnn-frontend")
"""Packages that build and run engines besides TensorRT, which comes with JetPack or in packages of its own."""

ROS_ADVICE = (
    "source the workspace that this package was built in (`. install/setup.bash`); in a checkout run `make setup`, "
    "then `. scripts/env.sh`"
)
"""The words that tell where ROS 2 and the messages of this package come from."""

_FILES = ("runtime.txt", "convert.txt", "dev.txt", "gpu.txt")
"""The files with versions, the one that is asked first to the left."""
_FILES_WITH_SYSTEM_ROS = ("ros_apt.txt", *_FILES[1:])
"""Those for ROS from apt, whose own Python extensions want the system's numpy."""

_LINE = re.compile(r"(?P<name>[\w.-]+)(?P<version>[<=>!~]=?[^;#\s]+)\s*(?:;(?P<marker>[^#]+))?")
_MARKER = re.compile(r'\s*(python_version|platform_machine)\s*(<|>=|==)\s*"([\w.]+)"\s*')


def pip_command(*packages: str) -> str:
    """Returns the command that installs packages, given by pip's names, for the interpreter that runs this."""
    versions = _versions()
    wanted = [versions.get(_normal(name), name) for name in packages]
    return shlex.join([sys.executable or "python3", "-m", "pip", "install", *_options(), *wanted])


def _options() -> list[str]:
    """Returns what pip needs where the system's package manager owns the interpreter, as on Ubuntu 24.04."""
    in_environment = sys.prefix != sys.base_prefix
    if in_environment or not (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").exists():
        return []
    return ["--user", "--break-system-packages"]


def _versions() -> dict[str, str]:
    """Returns normal names of packages → name and version as pip takes them; none if requirements/ is not there."""
    found: dict[str, str] = {}
    for name in _FILES_WITH_SYSTEM_ROS if _has_system_ros() else _FILES:
        with contextlib.suppress(ConfigError, OSError):
            for line in shipped(Path("requirements") / name).read_text(encoding="utf-8").splitlines():
                match = _LINE.match(line)
                if match and _applies(match["marker"]):
                    found.setdefault(_normal(match["name"]), match["name"] + match["version"])
    return found


def _applies(marker: str | None) -> bool:
    """Tells whether a line's marker is true here. A marker of another kind than these files have is not."""
    if marker is None:
        return True
    match = _MARKER.fullmatch(marker)
    if match is None:
        return False
    variable, comparison, value = match.groups()
    if variable == "platform_machine":
        return comparison == "==" and platform.machine() == value
    here, there = sys.version_info[:2], tuple(map(int, value.split(".")))
    return {"<": here < there, ">=": here >= there, "==": here == there}[comparison]


def _has_system_ros() -> bool:
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return any(prefix.startswith("/opt/ros/") for prefix in prefixes)


def _normal(name: str) -> str:
    """Returns a package's name as PyPI compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
