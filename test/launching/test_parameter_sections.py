from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.launching.parameter_sections import read_sections, section_matches


@pytest.mark.parametrize(
    ("section", "in_root", "in_robot1", "deeper"),
    [
        # What rclpy reads for /litevlm, /robot1/litevlm and /a/robot1/litevlm.
        ("/**", True, True, True),
        ("**", True, True, True),
        ("litevlm", True, False, False),
        ("/litevlm", True, False, False),
        ("/**/litevlm", True, True, True),
        ("/*/litevlm", False, True, False),
        ("/robot1/litevlm", False, True, False),
        ("robot1/litevlm", False, True, False),
        ("/robot1/*", False, True, False),
        ("/robot1/**", False, True, False),
        ("/*", True, False, False),
        ("/*/*", False, True, False),
        ("/**/robot1/litevlm", False, True, True),
        ("/robot1", False, False, False),
        ("/lite.lm", False, False, False),
    ],
)
def test_which_nodes_a_section_is_for(section: str, in_root: bool, in_robot1: bool, deeper: bool) -> None:
    nodes = ("/litevlm", "/robot1/litevlm", "/a/robot1/litevlm")
    assert [section_matches(section, node) for node in nodes] == [in_root, in_robot1, deeper]


def test_names_may_be_nested(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("robot1: {/litevlm: {ros__parameters: {a: 1}}}\n/**: {ros__parameters: {b: 2}}\n7: x\n")
    assert read_sections(file) == [("/robot1/litevlm", {"a": 1}), ("/**", {"b": 2})]
