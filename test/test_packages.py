from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_files import ROOT, executables

from litevlm_ros import model_directory, packages
from litevlm_ros.packages import CONVERSION, DOWNLOAD, ENGINES, pip_command


def test_it_installs_for_the_interpreter_that_runs_with_the_tested_versions() -> None:
    command = shlex.split(pip_command("torch", "huggingface-hub", "somethingelse"))
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    torch, hub, other = command[-3:]
    assert re.fullmatch(r"torch==[\d.]+", torch)
    assert re.fullmatch(r"huggingface_hub==[\d.]+", hub)
    assert other == "somethingelse", "there is no tested version of it"


def test_of_versions_for_several_pythons_it_takes_this_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    share = tmp_path / "share" / "litevlm_ros" / "requirements"
    share.mkdir(parents=True)
    (share / "runtime.txt").write_text('# words\na-b==1.0; python_version < "3.0"\na-b==2.0; python_version >= "3.0"\n')
    (share / "ros_apt.txt").write_text("A.b<3  # the system's\n")
    (share / "gpu.txt").write_text('c==1.0; platform_machine == "none"\nd==1; extra == "x"\n')
    monkeypatch.setattr(model_directory, "__file__", str(tmp_path / "lib" / "litevlm_ros" / "model_directory.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/somewhere")
    assert shlex.split(pip_command("a_b", "c", "d"))[-3:] == ["a-b==2.0", "c", "d"]
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/somewhere:/opt/ros/humble")
    assert shlex.split(pip_command("a_b"))[-1] == "A.b<3"
    shutil.rmtree(share)
    assert shlex.split(pip_command("a_b"))[-1] == "a_b", "a command without versions is better than none"


def test_an_interpreter_of_the_system_is_told_to_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    assert "--break-system-packages" not in pip_command("x")
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    assert "install --user --break-system-packages x" in pip_command("x")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    assert "--break-system-packages" not in pip_command("x"), "a virtual environment has its own packages"


def test_every_package_that_a_message_names_has_a_tested_version() -> None:
    """pip takes names that are not there, so that a typing error would only show on the user's machine."""
    found = {*CONVERSION, *DOWNLOAD, *ENGINES}
    for file in sorted((ROOT / "litevlm_ros").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "pip_command":
                found |= {each.value for each in node.args if isinstance(each, ast.Constant)}
            for keyword in node.keywords if node.func.id == "run_command" else ():
                if keyword.arg == "packages" and isinstance(keyword.value, ast.Tuple):
                    found |= {each.value for each in keyword.value.elts if isinstance(each, ast.Constant)}
    lines = "\n".join(file.read_text() for file in (ROOT / "requirements").glob("*.txt"))
    tested = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)[=<>]", lines, re.MULTILINE)}
    assert {name for name in found if name.lower().replace("_", "-") not in tested} <= {"tensorrt"}


# --- commands in messages and documents


def _commands() -> Iterator[tuple[str, str]]:
    """All `ros2 run litevlm_ros TOOL ...` in messages and documents: where they are, and the words behind the tool."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*.md")]
    for file in pages:
        text = re.sub(r" \\\n\s*", " ", file.read_text(encoding="utf-8"))
        for command in re.findall(r"ros2 run litevlm_ros ([a-z_]+[^`\n#]*)", text):
            yield file.relative_to(ROOT).as_posix(), command
    for file in sorted([*(ROOT / "litevlm_ros").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = ""
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            for command in re.findall(r"(?:ros2 run litevlm_ros|VALUE) ([a-z]+_[a-z_]+[^`\n#;]*)", text):
                if command.split()[0] in executables():
                    yield file.relative_to(ROOT).as_posix(), command
            for command in re.findall(r"ros2 run litevlm_ros ([a-z_]+[^`\n#;]*)", text):
                yield file.relative_to(ROOT).as_posix(), command


@pytest.fixture(scope="module")
def flags() -> dict[str, str]:
    """Keeps what --help of each executable shows, for all tests of this file."""
    return {}


@pytest.mark.slow
def test_every_command_that_is_recommended_exists_with_its_flags(flags: dict[str, str]) -> None:
    wrong = []
    for place, command in sorted(set(_commands())):
        tool, *words = command.split()
        tool = tool.rstrip(".,:)")
        if tool not in executables():
            wrong.append(f"{place}: {tool}")
            continue
        if tool == "litevlm_node":  # it takes ROS's arguments
            continue
        if tool not in flags:
            module = executables()[tool].partition(":")[0]
            shown = subprocess.run(
                [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
            )
            flags[tool] = shown.stdout
        for word in words:
            flag = re.match(r"--[a-z][a-z0-9-]*", word)
            if flag and not flag[0].endswith("-") and not re.search(rf"(?<![\w-]){flag[0]}(?![\w-])", flags[tool]):
                wrong.append(f"{place}: {tool} {flag[0]}")
    assert wrong == []


def test_every_make_target_that_is_recommended_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    sources = [*(ROOT / "litevlm_ros").rglob("*.py"), *(ROOT / "scripts").rglob("*.py"), *ROOT.glob("docs/*.md")]
    for file in [*sources, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "models" / "README.md"]:
        for target in re.findall(r"`make ([a-z]+)", file.read_text(encoding="utf-8")):
            assert target in targets, f"{file}: make {target}"


def test_every_python_module_that_is_recommended_exists() -> None:
    for file in [*(ROOT / "litevlm_ros").rglob("*.py"), *ROOT.glob("docs/*.md"), *ROOT.glob("*.md")]:
        for module in re.findall(r"python3? -m (litevlm_ros[\w.]*)", file.read_text(encoding="utf-8")):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{file}: {module}"


def test_no_text_recommends_extras_of_this_package() -> None:
    """pip knows them only where it has installed this package: not after colcon, whose form most robots have."""
    for file in [
        *(ROOT / "litevlm_ros").rglob("*.py"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("*.md"),
        *ROOT.glob("m*/*.md"),
    ]:
        assert "litevlm_ros[" not in file.read_text(encoding="utf-8"), file
