"""The contents of the package's own files, for the tests that compare them."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO_MODEL = ROOT / "models" / "demo"


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def scripts() -> dict[str, str]:
    """console_scripts as name -> "module:function"."""
    lines = setup_cfg()["options.entry_points"]["console_scripts"].strip().splitlines()
    return dict(line.split(" = ") for line in lines)


def executables() -> dict[str, str]:
    """The executables of `ros2 run litevlm_ros`, as name -> "module:function"."""
    return {
        name.removeprefix("litevlm_") if target.startswith("litevlm_ros.tools.") else name: target
        for name, target in scripts().items()
    }
