"""Files of parameters that have no section for the node, so that ROS reads nothing from them and says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from litevlm_ros.launching.parameter_sections import read_sections, section_matches


def unused_files(files: Sequence[Path], node: str) -> list[str]:
    """Returns one sentence for each file that has sections, but none for the node of this full name."""
    found = []
    for file in files:
        sections = _sections_of(file)
        if not any(section_matches(section, node) for section in sections):
            has = f"it has sections for {', '.join(sections)}" if sections else "it has no section with ros__parameters"
            found.append(
                f"Nothing in {file} is used, because no section of it is for {node}: {has}. Call one {node}, or "
                "/** for every node"
            )
    return found


def _sections_of(file: Path) -> list[str]:
    try:
        sections = read_sections(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ["/**"]  # rclpy has read it, by rules of its own
    return list(dict.fromkeys(name for name, _ in sections))
