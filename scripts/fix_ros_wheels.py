"""Makes the CMake exports of the ROS 2 wheels point at this environment.

The wheels' share/**/*.cmake files name the Python headers and site-packages of the machine that built the wheels, such
as /opt/python/cp311-cp311/include/python3.11. Run this with the environment's own interpreter; it replaces those paths
with the interpreter's, and finds nothing to replace on a second run.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

BUILDER_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")
BUILDER_SITE_PACKAGES = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages")


def localise(text: str, include: str, site_packages: str) -> str:
    """`text` with the builder's header and site-packages directories replaced."""
    text = BUILDER_INCLUDE.sub(lambda _: include, text)
    return BUILDER_SITE_PACKAGES.sub(lambda _: site_packages, text)


def fix_exports(share: Path, include: str, site_packages: str) -> int:
    """Rewrites the CMake files below `share` where they need it, and returns how many did."""
    fixed = 0
    for file in sorted(share.glob("**/*.cmake")):
        before = file.read_text(encoding="utf-8")
        after = localise(before, include, site_packages)
        if after != before:
            file.write_text(after, encoding="utf-8")
            fixed += 1
    return fixed


def main() -> int:
    paths = sysconfig.get_paths()
    headers = Path(paths["include"]) / "Python.h"
    if not headers.exists():
        version = sysconfig.get_python_version()
        print(f"setup: {headers} is missing. On Debian and Ubuntu: sudo apt install python{version}-dev", file=sys.stderr)
        return 1
    fixed = fix_exports(Path(paths["data"]) / "share", paths["include"], paths["purelib"])
    if fixed:
        print(f"setup: fixed {fixed} CMake exports of the ROS 2 wheels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
