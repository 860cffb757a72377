"""Where the model that ships with the package is. Knows no ROS, so that tools find it too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from litevlm_ros.errors import ConfigError

_SHARE = Path("share") / "litevlm_ros"
_DEMO_MODEL = Path("models") / "demo"


def demo_model_directory() -> Path:
    """The demo model of this checkout, of the sourced ROS workspaces (the last sourced first), or of pip's prefix.

    Raises ConfigError if it is in none of them.
    """
    workspaces = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    roots = [Path(__file__).parent.parent, *(prefix / _SHARE for prefix in (*workspaces, Path(sys.prefix)))]
    for root in roots:
        if (root / _DEMO_MODEL).is_dir():
            return root / _DEMO_MODEL
    tried = ", ".join(str(root / _DEMO_MODEL) for root in roots)
    raise ConfigError(f"the demo model is not installed (looked in {tried}). Give a model directory")
