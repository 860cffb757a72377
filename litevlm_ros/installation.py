"""Where files that ship beside the Python package are. Knows no ROS: tools use it too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from litevlm_ros.errors import ConfigError

_SHARE = Path("share") / "litevlm_ros"


def shipped(path: Path) -> Path:
    """`path`, such as models/demo, of this checkout, of a sourced ROS workspace (the last sourced first), or of pip's
    prefix.

    Raises ConfigError if it is in none of them.
    """
    workspaces = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    roots = [Path(__file__).parent.parent, *(prefix / _SHARE for prefix in (*workspaces, Path(sys.prefix)))]
    for root in roots:
        if (root / path).exists():
            return root / path
    tried = ", ".join(str(root / path) for root in roots)
    raise ConfigError(f"{path} of this package is not installed (looked in {tried})")
