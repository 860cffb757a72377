"""Installation with pip, for use without ROS. With ROS the package is built by colcon (CMakeLists.txt).

The metadata is in setup.cfg. Only the demo model, the message definitions and the tested versions of packages need
code: they are data outside the Python package, and go to the same place below the prefix as in a ROS installation.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from setuptools import setup

data_files: defaultdict[str, list[str]] = defaultdict(list)
for directory in ("models/demo", "msg", "requirements"):
    for file in sorted(Path(directory).rglob("*")):
        if file.is_file():
            data_files[f"share/litevlm_ros/{file.parent.as_posix()}"].append(file.as_posix())

setup(data_files=list(data_files.items()))
