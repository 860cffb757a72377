from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.node.params_files import unused_files

NODE = "/robot1/litevlm"


@pytest.mark.parametrize(
    "content",
    [
        "/**: {ros__parameters: {a: 1}}",
        "/robot1/litevlm: {ros__parameters: {a: 1}}",
        "robot1/litevlm: {ros__parameters: {a: 1}}",
        "robot1: {litevlm: {ros__parameters: {a: 1}}}",
        "/*/litevlm: {ros__parameters: {a: 1}}",
        "/**/litevlm: {ros__parameters: {a: 1}}",
        "{/lidar: {ros__parameters: {a: 1}}, /robot1/*: {ros__parameters: {a: 1}}}",
        "a: [",
    ],
)
def test_a_file_with_a_section_for_the_node(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.yaml").write_text(content)
    assert unused_files([tmp_path / "p.yaml"], NODE) == []


@pytest.mark.parametrize(
    ("content", "sections"),
    [
        ("litevlm: {ros__parameters: {a: 1}}", "it has sections for /litevlm."),
        ("{/lidar: {ros__parameters: {a: 1}}, /*: {ros__parameters: {a: 1}}}", "it has sections for /lidar, /*."),
        ("robot1: {vlm: {ros__parameters: {a: 1}}}", "it has sections for /robot1/vlm."),
        ("", "it has no section with ros__parameters."),
    ],
)
def test_a_file_without_is_told_with_its_sections(tmp_path: Path, content: str, sections: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(content)
    assert unused_files([file], NODE) == [
        f"Nothing in {file} is used, because no section of it is for {NODE}: {sections} "
        f"Call one {NODE}, or /** for every node"
    ]
