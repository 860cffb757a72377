"""The package's own files agree with one another."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree

import pytest
from package_files import ROOT, scripts, setup_cfg

import litevlm_ros

MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
CMAKE = (ROOT / "CMakeLists.txt").read_text()
INTERFACES = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.glob("[ams]*/*.*") if path.suffix in (".action", ".msg", ".srv")
)


def test_version_is_the_same_everywhere() -> None:
    versions = {MANIFEST.findtext("version"), setup_cfg()["metadata"]["version"], litevlm_ros.__version__}
    assert len(versions) == 1, versions


def test_licence_is_the_same_everywhere() -> None:
    licence = MANIFEST.find("license")
    assert licence is not None
    assert licence.text == setup_cfg()["metadata"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / licence.attrib["file"]).read_text()


def test_every_interface_is_generated() -> None:
    listed = re.findall(r"^ +((?:action|msg|srv)/\w+\.(?:action|msg|srv))$", CMAKE, re.MULTILINE)
    assert listed == INTERFACES


def test_every_package_that_cmake_finds_is_declared() -> None:
    found = set(re.findall(r"^find_package\((\w+)", CMAKE, re.MULTILINE))
    declared = {element.text for tag in ("depend", "buildtool_depend") for element in MANIFEST.findall(tag)}
    assert found == declared


def test_every_ros_package_that_is_imported_is_declared() -> None:
    ros_packages = re.compile(
        r"^\s*(?:import|from) (rclpy|cv_bridge|ament_index_python|launch|launch_ros|\w+_msgs)\b", re.M
    )
    sources = [*ROOT.glob("litevlm_ros/**/*.py"), *ROOT.glob("launch/*.py")]
    imported = {name for source in sources for name in ros_packages.findall(source.read_text())}
    declared = {element.text for tag in ("depend", "exec_depend") for element in MANIFEST.findall(tag)}
    # rclpy itself depends on rcl_interfaces, and hands its messages to the parameter callbacks.
    assert imported - declared - {"rcl_interfaces"} == set()


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_field_says_what_it_is(interface: str) -> None:
    for line in (ROOT / interface).read_text().splitlines():
        field = re.fullmatch(r"([\w/]+(?:\[\])?) (\w+)( +#.+)?", line)
        if field and field[1] != "Timings" and field[1] != "Answer":
            assert field[3], f"{interface}: {field[2]} has no comment"


def test_executables_are_in_the_form_that_cmake_reads() -> None:
    pattern = re.search(r'file\(STRINGS setup\.cfg scripts REGEX "(.+)"\)', CMAKE)
    assert pattern
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    assert len([line for line in lines if re.search(pattern[1], line)]) == len(scripts()) > 0


@pytest.mark.parametrize(("name", "target"), scripts().items())
def test_every_executable_has_its_function(name: str, target: str) -> None:
    module, function = target.split(":")
    source = ROOT / (module.replace(".", "/") + ".py")
    assert source.exists(), f"setup.cfg lists {name}, but there is no {source.relative_to(ROOT)}"
    defined = [node.name for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert function in defined


def test_every_tool_is_an_executable() -> None:
    tools = {
        path.stem for path in ROOT.glob("litevlm_ros/tools/*.py") if re.search(r"^def main\(", path.read_text(), re.M)
    }
    listed = {target.removeprefix("litevlm_ros.tools.").removesuffix(":main") for target in scripts().values()}
    assert tools - listed == set()


def test_requirements_are_installed_in_both_forms() -> None:
    """Messages about missing packages read the tested versions there, wherever the package was installed."""
    (shared,) = re.findall(r"^foreach\(directory (launch .+)\)$", CMAKE, re.MULTILINE)
    assert {"requirements", "models/demo"} <= set(shared.split())
    assert '"requirements"' in (ROOT / "setup.py").read_text()
