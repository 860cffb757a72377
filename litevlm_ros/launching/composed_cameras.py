"""Starts camera drivers as components of one container."""

from __future__ import annotations

from collections.abc import Mapping

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode

from litevlm_ros.errors import ConfigError

_DRIVERS = {
    "v4l2_camera": ("v4l2_camera::V4L2Camera", "camera_frame_id"),
    "usb_cam": ("usb_cam::UsbCamNode", "frame_id"),
}
"""Package → name of its component, and of the parameter for the frame_id in the headers of its images."""
_CONTAINER_PACKAGE = "rclcpp_components"
_CONTAINER = "litevlm_cameras"
"""The name of the container, for `ros2 component load`."""


def composed_cameras(devices: Mapping[str, str], driver: str, namespace: str) -> ComposableNodeContainer:
    """Returns a container in `namespace` with a driver for each camera.

    `devices` maps the name of each camera to its device. The driver publishes NAME/image_raw in `namespace`. Components
    of the container pass images on within the process. The node cannot be one of them, because it is in Python, and
    gets the images through shared memory. Raises ConfigError if a package is not installed.
    """
    for package in (driver, _CONTAINER_PACKAGE):
        _require(package)
    plugin, frame_parameter = _DRIVERS[driver]
    drivers = [
        ComposableNode(
            package=driver,
            plugin=plugin,
            name="driver",
            namespace=f"{namespace.rstrip('/')}/{camera}",
            parameters=[{"video_device": device, frame_parameter: camera}],
            extra_arguments=[{"use_intra_process_comms": True}],
        )
        for camera, device in devices.items()
    ]
    return ComposableNodeContainer(
        package=_CONTAINER_PACKAGE,
        # One thread for each driver: a camera that waits for its device must not hold up the others.
        executable="component_container_isolated",
        name=_CONTAINER,
        namespace=namespace,
        composable_node_descriptions=drivers,
        output="screen",
        emulate_tty=True,
    )


def _require(package: str) -> None:
    try:
        get_package_share_directory(package)
    except PackageNotFoundError:
        name = package.replace("_", "-")
        raise ConfigError(
            f"use_composed_cameras needs the package {package}: sudo apt install ros-$ROS_DISTRO-{name}"
        ) from None
