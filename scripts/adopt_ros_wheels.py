"""Makes a virtual environment that holds the ROS 2 wheels usable as a ROS 2 installation.

Two things are missing from the wheels. Their CMake exports (share/**/*.cmake) name the Python headers and
site-packages of the machine that built them, such as /opt/python/cp311-cp311/include/python3.11; these become this
interpreter's. And there is no script to source, as /opt/ros/jazzy has; it is written from wheels_local_setup.sh.in,
under the names for which colcon looks when it chains workspaces.

Run this with the environment's own interpreter. A second run finds nothing to do.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

BUILDER_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")
BUILDER_SITE_PACKAGES = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages")
LOCAL_SETUP = Path(__file__).with_name("wheels_local_setup.sh.in")


def localise(text: str, include: str, site_packages: str) -> str:
    """Returns `text` with the builder's header and site-packages directories replaced."""
    text = BUILDER_INCLUDE.sub(lambda _: include, text)
    return BUILDER_SITE_PACKAGES.sub(lambda _: site_packages, text)


def fix_exports(share: Path, include: str, site_packages: str) -> int:
    """Rewrites the CMake files below `share` that name the builder's directories, and returns their number."""
    fixed = 0
    for file in sorted(share.glob("**/*.cmake")):
        before = file.read_text(encoding="utf-8")
        after = localise(before, include, site_packages)
        if after != before:
            file.write_text(after, encoding="utf-8")
            fixed += 1
    return fixed


def write_local_setup(prefix: Path, site_packages: Path) -> None:
    """Writes local_setup.{sh,bash,zsh} for the wheels in `prefix`."""
    libraries = [prefix / "lib", *sorted(site_packages.glob("ros_*.libs"))]
    script = LOCAL_SETUP.read_text(encoding="utf-8")
    script = script.replace("@PREFIX@", str(prefix))
    script = script.replace("@LIBRARIES@", ":".join(str(library) for library in libraries))
    for shell in ("sh", "bash", "zsh"):
        (prefix / f"local_setup.{shell}").write_text(script, encoding="utf-8")


def main() -> int:
    paths = sysconfig.get_paths()
    headers = Path(paths["include"]) / "Python.h"
    if not headers.exists():
        remedy = f"sudo apt install python{sysconfig.get_python_version()}-dev"
        print(f"setup: {headers} is missing. On Debian and Ubuntu: {remedy}", file=sys.stderr)
        return 1
    prefix = Path(paths["data"])
    fixed = fix_exports(prefix / "share", paths["include"], paths["purelib"])
    if fixed:
        print(f"setup: fixed {fixed} CMake exports of the ROS 2 wheels")
    write_local_setup(prefix, Path(paths["purelib"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
