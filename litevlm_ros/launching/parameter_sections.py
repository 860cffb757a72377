"""The sections of ROS parameter files, and the nodes that they are for. This module needs no ROS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_PARAMETERS = "ros__parameters"
_WILD = {"**": "(/[^/]+)*", "*": "/[^/]+"}


def read_sections(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns the name of each section, such as /** or /robot1/litevlm, with its parameters.

    Names may be nested in the file, as {robot1: {litevlm: ...}}. Raises OSError, UnicodeDecodeError or yaml.YAMLError
    if the file cannot be read.
    """
    return list(_named(yaml.safe_load(file.read_text(encoding="utf-8")), ""))


def section_matches(section: str, node: str) -> bool:
    """Returns whether ROS reads a section for the node of this full name.

    As in rcl, * stands for one word of the name, and ** for any number. A section without slash is in no namespace.
    """
    words = [word for word in section.split("/") if word]
    return re.fullmatch("".join(_WILD.get(word, f"/{re.escape(word)}") for word in words), node) is not None


def _named(content: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key == _PARAMETERS:
            yield name, value if isinstance(value, dict) else {}
        else:
            yield from _named(value, f"{name}/{str(key).strip('/')}")
