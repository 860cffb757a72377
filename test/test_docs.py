"""The documents name only things that exist: files, headings, tools and their flags, parameters, launch arguments."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from package_files import ROOT, executables

TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True
).stdout.split()
DOCUMENTS = [ROOT / name for name in TRACKED] or [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NODE = {"litevlm_node"}


def anchors(document: Path) -> set[str]:
    """Returns the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), f"{document.name} links {target}"
        assert not anchor or anchor in anchors(file), f"{document.name} links {target}; {file.name} has {anchors(file)}"


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yields each `ros2 run` or `ros2 launch` command of the documents: its verb and the words after `litevlm_ros`."""
    for document in DOCUMENTS:
        for verb, rest in re.findall(r"ros2 (run|launch) litevlm_ros ((?:[^`\n\\]|\\\n)+)", document.read_text()):
            text = re.split(r"\s#|\s&&\s|;|\)", rest.replace("\\\n", " "))[0]
            yield verb, shlex.split(re.sub(r"\.\.\.$|[,.]$", "", text.strip()), posix=True)


RUNS = [words for verb, words in commands() if verb == "run"]
LAUNCHES = [words for verb, words in commands() if verb == "launch"]


@cache
def flags(tool: str) -> set[str]:
    """Returns the flags that `--help` of a tool lists."""
    module, _, function = executables()[tool].partition(":")
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        getattr(importlib.import_module(module), function)(["--help"])
    return set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text.getvalue(), re.MULTILINE))


def test_documents_show_commands() -> None:
    assert len(RUNS) > 10
    assert len(LAUNCHES) > 4


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_tools_take_the_flags_they_are_shown_with(words: list[str]) -> None:
    tool, *arguments = words
    assert tool in executables()
    if tool not in NODE:
        assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= flags(tool)


@pytest.mark.parametrize("words", LAUNCHES, ids=" ".join)
def test_launch_files_take_the_arguments_they_are_shown_with(words: list[str]) -> None:
    file, *arguments = words
    source = (ROOT / "launch" / file).read_text()
    known = "".join(path.read_text() for path in (ROOT / "litevlm_ros" / "launching").glob("*.py")) + source
    for argument in arguments:
        name, assigned, _ = argument.partition(":=")
        assert argument == "--show-args" or assigned, argument
        assert not assigned or f'"{name}"' in known, f"{file} has no argument {name}"


@pytest.mark.ros
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_parameters_exist(document: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    pytest.importorskip("litevlm_ros.msg", reason="needs the built package")
    known = importlib.import_module("litevlm_ros.node.parameters").PARAMETERS
    text = document.read_text()
    named = set(re.findall(r"-p (\w+):=", text)) | set(re.findall(r"ros2 param \w+ /litevlm ([a-z_]+)", text))
    if document.parent.name == "docs" and document.name != "architecture.md":
        # Words in code that have an underscore, alone or with a value, are parameters, tools or among OTHER_WORDS.
        words = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:: [\w.]+)?`", text))
        named |= words - set(executables()) - OTHER_WORDS
    assert named <= set(known)


OTHER_WORDS = {
    "litevlm_ros",
    "nav2_lifecycle_manager",
    "bond_timeout",
    "service_timeout",
    "camera_driver",
    "log_level",
    "params_file",
    "respawn_delay",
    "use_composed_cameras",
    "use_sim_time",
    "isaac_ros_argus_camera",
    "best_effort",
}


def test_the_changelog_has_the_form_that_ros_tools_read() -> None:
    lines = (ROOT / "CHANGELOG.rst").read_text().splitlines()
    assert lines[1] == "Changelog for package litevlm_ros"
    assert lines[0] == lines[2]
    assert set(lines[0]) == {"^"}
    assert len(lines[0]) >= len(lines[1])
    version = lines.index("Forthcoming")
    assert set(lines[version + 1]) == {"-"}
