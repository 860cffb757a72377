from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.errors import ConfigError
from litevlm_ros.launching.camera_devices import assign_devices


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
    with pytest.raises(ConfigError, match=r"cameras names a, b, c, but .* has 2 devices: .*camera_devices:="):
        assign_devices(["a", "b", "c"], [], ports)


def test_no_camera_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 0 devices\. Plug in"):
        assign_devices(["a"], [], tmp_path / "none")


def test_given_devices_are_taken_as_they_are(ports: Path) -> None:
    assert assign_devices(["a", "b"], ["/dev/video4", "/dev/left"], ports) == {"a": "/dev/video4", "b": "/dev/left"}
    with pytest.raises(ConfigError, match=r"camera_devices has 1 devices for 2 cameras \(a, b\)"):
        assign_devices(["a", "b"], ["/dev/video4"], ports)
