from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from package_files import ROOT

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.benchmarking.boards import BOARDS
from litevlm_ros.launching.preflight import (
    Board,
    MissingCameraError,
    assign_devices,
    camera_names,
    check_cameras,
    missing_engines,
    read_parameters,
)

BOARD = Board("Jetson", "orin_nano.yaml", "--fp8 --max-tiles 6")


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", ["/**", "litevlm", "/robot/litevlm"])
def test_parameters_of_every_kind_of_section(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "a.yaml", f"{name}:\n  ros__parameters:\n    cameras: [a, b]\n    max_tiles: 2\n")
    assert read_parameters(file) == {"cameras": ["a", "b"], "max_tiles": 2}


def test_only_sections_for_the_node_count(tmp_path: Path) -> None:
    text = (
        "/**: {ros__parameters: {a: 1, b: 1}}\nlitevlm: {ros__parameters: {b: 2}}\nlidar: {ros__parameters: {b: 3}}\n"
    )
    file = write(tmp_path / "a.yaml", text)
    assert read_parameters(file, "/litevlm") == {"a": 1, "b": 2}
    assert read_parameters(file, "/robot1/litevlm") == {"a": 1, "b": 1}
    file = write(tmp_path / "b.yaml", "litevlm: {ros__parameters: {b: 2}}\nlidar: {ros__parameters: {b: 3}}\n")
    with pytest.raises(ConfigError, match=r"sections for /litevlm, /lidar, and none for /eyes\. Name one `/\*\*`"):
        read_parameters(file, "/eyes")


@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("*.yaml")), ids=lambda file: file.stem)
def test_what_ships_fits_a_node_of_every_name(file: Path) -> None:
    assert read_parameters(file, "/fleet/robot1/eyes") == read_parameters(file)


def test_nested_namespaces(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "robot:\n  litevlm:\n    ros__parameters: {threads: 1}\n")
    assert read_parameters(file) == {"threads": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "cannot be read"), ("", "has no parameters"), ("cameras: [a]\n", "needs a section"), ("7", "needs a")],
)
def test_no_parameter_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_parameters(write(tmp_path / "a.yaml", text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params_file .*none\.yaml cannot be read"):
        read_parameters(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("value", "names"),
    [("a, b,", ["a", "b"]), ("['a', \"b\"]", ["a", "b"]), (["a", "b"], ["a", "b"]), ("", []), (None, []), ([""], [])],
)
def test_camera_names(value: Any, names: list[str]) -> None:
    assert camera_names(value) == names


def test_without_a_model_it_says_how_to_get_one(tmp_path: Path) -> None:
    model = tmp_path / "models"
    notice = missing_engines({"model_dir": str(model)}, BOARD)
    assert f"ros2 run litevlm_ros download_models --output {model}\n" in notice
    assert f"ros2 run litevlm_ros build_engines --model {model} --fp8 --max-tiles 6\n" in notice


def test_missing_engines_are_named_with_their_command(tmp_path: Path) -> None:
    parameters = {"model_dir": str(tmp_path), "vision_precision": "int8", "text_precision": "int4"}
    (tmp_path / "vision_encoder_int8.engine").touch()
    notice = missing_engines(parameters, BOARD)
    assert notice.startswith(f"No text_decoder_int4.engine in {tmp_path}: ")
    assert notice.endswith(
        f"on this Jetson:\n    ros2 run litevlm_ros build_engines --model {tmp_path} --fp8 --max-tiles 6"
    )
    (tmp_path / "text_decoder_int4.engine").touch()
    assert missing_engines(parameters, BOARD) == ""


def test_engines_of_any_precision_elsewhere(tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    engines.mkdir()
    parameters = {"model_dir": str(tmp_path), "engine_dir": str(engines)}
    notice = missing_engines(parameters, BOARD)
    assert f"No vision_encoder_*.engine and no text_decoder_*.engine in {engines}" in notice
    assert f"--model {tmp_path} --output {engines} --fp8" in notice
    for part in ("vision_encoder", "text_decoder"):
        (engines / f"{part}_fp16.engine").touch()
    assert missing_engines(parameters, BOARD) == ""


@pytest.mark.parametrize("board", ["orin_agx", "orin_nx", "orin_nano"])
def test_a_boards_parameters_name_what_its_build_makes(board: str) -> None:
    parameters = read_parameters(ROOT / "config" / f"{board}.yaml")
    flags = (ROOT / "launch" / f"{board}.launch.py").read_text()
    vision = "fp16" if "--fp8 --vision-precision fp16" in flags else "fp8"
    assert '"--fp8' in flags
    assert parameters["vision_precision"] in ("auto", vision)
    assert parameters["text_precision"] in ("auto", "fp8")
    assert BOARDS[board].built == (vision, "fp8")
    assert parameters["memory_budget_mb"] == (3000 if board == "orin_nano" else 3200)
    assert ("token_selection" in parameters) == (board == "orin_nano")
    built = f"--max-context {parameters['max_context']}"
    assert built in flags or parameters["max_context"] == 4096  # what build_engines builds if it is not told


@pytest.mark.ros
@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_node_accepts_what_ships(file: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    pytest.importorskip("litevlm_ros.msg", reason="needs the built package")
    from types import SimpleNamespace

    from litevlm_ros.node.parameter_types import Values
    from litevlm_ros.node.parameters import PARAMETERS
    from litevlm_ros.node.settings import read_node_settings, read_pipeline_config

    given = read_parameters(file)
    assert set(given) <= set(PARAMETERS)
    every = {**{name: parameter.default for name, parameter in PARAMETERS.items()}, **given}
    node: Any = SimpleNamespace(get_parameter=lambda name: SimpleNamespace(value=every[name]))
    values = Values(node, PARAMETERS)
    assert [source.name for source in read_node_settings(values).sources] == given["cameras"]
    assert read_pipeline_config(values).max_context == given.get("max_context", 0)


# --- cameras, topics and transports


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"cameras": ["a", "b"], "camera_topics": [""]},
        {"cameras": ["a", "b"], "camera_topics": ["/a/image_raw", "/b/jpeg"], "transport": ["raw", "compressed"]},
        {"cameras": "a,b", "camera_topics": "/a/image_raw,/b/image_raw/compressed", "transport": "auto"},
        {"cameras": ["a"], "camera_topics": ["/a/image_rect/compressed"], "transport": ["compressed"]},
        {"transport": "compressed"},
    ],
)
def test_cameras_that_fit(parameters: dict[str, Any]) -> None:
    check_cameras(parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cameras": ["a", "b"], "camera_topics": ["/a"]}, r"1 topics \(/a\) for 2 cameras \(a, b\); give one each"),
        ({"cameras": ["a"], "camera_topics": ["/a", "/b"]}, r"2 topics \(/a, /b\) for 1 cameras \(a\)"),
        ({"camera_topics": ["/a"]}, "for 6 cameras"),
        ({"cameras": ["a"], "transport": ["raw", "raw"]}, "transport has 2 values for 1 cameras"),
        ({"cameras": ["a"], "transport": "jpeg"}, "transport is 'jpeg'; allowed: auto, raw, compressed"),
        (
            {"cameras": ["a"], "camera_topics": ["/a/image_raw/compressed"], "transport": "raw"},
            "transport is raw, but /a/image_raw/compressed .*say transport:=compressed, or .* /a/image_raw$",
        ),
        (
            {"cameras": ["a", "b"], "camera_topics": ["/a", "/b/image_raw"], "transport": ["raw", "compressed"]},
            "transport is compressed, but /b/image_raw .*say transport:=raw, or .* /b/image_raw/compressed$",
        ),
    ],
)
def test_cameras_that_do_not(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_cameras(parameters)


# --- devices of cameras


@pytest.fixture
def ports(tmp_path: Path) -> Path:
    """Two cameras with images and metadata; the second has a link for its USB 3 port too."""
    directory = tmp_path / "by-path"
    directory.mkdir()
    links = {
        "pci-usb-0:1:1.0-video-index0": 0, "pci-usb-0:1:1.0-video-index1": 1,
        "pci-usb-0:2:1.0-video-index0": 2, "pci-usbv3-0:2:1.0-video-index0": 2, "pci-usb-0:2:1.0-video-index1": 3,
    }  # fmt: skip
    for name, number in links.items():
        (tmp_path / f"video{number}").touch()
        (directory / name).symlink_to(f"../video{number}")
    return directory


def test_cameras_get_ports_in_order(ports: Path) -> None:
    devices = assign_devices(["front", "back"], [], ports)
    assert list(devices) == ["front", "back"]
    assert devices["front"] == f"{ports}/pci-usb-0:1:1.0-video-index0"
    assert devices["back"] == f"{ports}/pci-usb-0:2:1.0-video-index0"
    assert list(assign_devices(["only"], [], ports)) == ["only"]


def test_too_few_cameras_are_listed(ports: Path) -> None:
    with pytest.raises(MissingCameraError, match=r"cameras names a, b, c, but .* has 2 devices: .*camera_devices:="):
        assign_devices(["a", "b", "c"], [], ports)


def test_no_camera_at_all(tmp_path: Path) -> None:
    with pytest.raises(MissingCameraError, match=r"has 0 devices\. Plug in"):
        assign_devices(["a"], [], tmp_path / "none")


def test_given_devices_are_taken_as_they_are(ports: Path) -> None:
    assert assign_devices(["a", "b"], ["/dev/video4", "/dev/left"], ports) == {"a": "/dev/video4", "b": "/dev/left"}
    with pytest.raises(ConfigError, match=r"camera_devices has 1 devices for 2 cameras \(a, b\)"):
        assign_devices(["a", "b"], ["/dev/video4"], ports)
