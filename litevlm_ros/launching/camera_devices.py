"""Which camera is which device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.errors import ConfigError

_PORTS = Path("/dev/v4l/by-path")
"""Links that udev names after ports; a camera that also has metadata, as most USB ones, has more than one index."""


def assign_devices(cameras: Sequence[str], given: Sequence[str], ports: Path = _PORTS) -> dict[str, str]:
    """Camera name → device, from those that were `given`, else from what is plugged in.

    Raises ConfigError if there are too few devices, or if as many are given as there are no cameras.
    """
    if given:
        if len(given) != len(cameras):
            raise ConfigError(
                f"camera_devices has {len(given)} devices for {len(cameras)} cameras ({', '.join(cameras)}); give one "
                "each, or none"
            )
        return dict(zip(cameras, given, strict=True))
    # A USB 3 port has a second link that says usbv3; both lead to the same device.
    found = {link.resolve(): str(link) for link in sorted(ports.glob("*-video-index0"), reverse=True)}
    devices = sorted(found.values())
    if len(devices) < len(cameras):
        listed = f": {', '.join(devices)}" if devices else ""
        raise ConfigError(
            f"cameras names {', '.join(cameras)}, but {ports} has {len(devices)} devices{listed}. Plug in as many, "
            "name fewer cameras, or give camera_devices:=/dev/video0,... yourself"
        )
    return dict(zip(cameras, devices, strict=False))
