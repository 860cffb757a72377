"""Starts camera drivers as components of one container."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch.actions import RegisterEventHandler, TimerAction
from launch.event_handlers import OnProcessStart
from launch.events.process import ProcessStarted
from launch.launch_context import LaunchContext
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import ComposableNodeContainer, LoadComposableNodes
from launch_ros.descriptions import ComposableNode

from litevlm_ros.errors import ConfigError
from litevlm_ros.launching.names import namespace
from litevlm_ros.launching.node import clock_parameters, inherited_parameters
from litevlm_ros.launching.supervision import Supervision

_DRIVERS = {
    "v4l2_camera": ("v4l2_camera::V4L2Camera", "camera_frame_id"),
    "usb_cam": ("usb_cam::UsbCamNode", "frame_id"),
}
"""Package → name of its component, and of the parameter for the frame_id in the headers of its images."""
_CONTAINER_PACKAGE = "rclcpp_components"
_CONTAINER = "litevlm_cameras"
"""The name of the container, for `ros2 component load`."""
_DISCOVERY_SECONDS = 5.0
"""Seconds until the service of a container that was started again is surely known.

The middleware lists the service of the dead one for a while, and a request that only that one could hear has no answer.
"""


def composed_cameras(
    context: LaunchContext, arguments: Mapping[str, str], devices: Mapping[str, str]
) -> list[LaunchDescriptionEntity]:
    """Returns actions that run a container with a driver for each camera, also when it has died and is started again.

    `arguments` are NODE_ARGUMENTS and CAMERA_ARGUMENTS. `devices` maps the name of each camera to its device. Each
    driver publishes NAME/image_raw in the namespace of the node. Components of the container pass images on within the
    process. The node cannot be one of them, because it is in Python, and gets the images through shared memory. Raises
    ConfigError if a package is not installed.
    """
    driver = arguments["camera_driver"]
    for package in (driver, _CONTAINER_PACKAGE):
        _require(package)
    where = namespace(context, arguments)
    container = ComposableNodeContainer(
        package=_CONTAINER_PACKAGE,
        # One thread for each driver: a camera that waits for its device must not hold up the others.
        executable="component_container_isolated",
        name=_CONTAINER,
        namespace=where,
        output="screen",
        emulate_tty=True,
        **Supervision.of_arguments(arguments).options(),
    )
    plugin, frame_parameter = _DRIVERS[driver]
    # What an including launch file has set is known only now, and not when the container is started again.
    shared = [*inherited_parameters(context), *clock_parameters(arguments)]
    remappings = list(context.launch_configurations.get("ros_remaps") or [])

    def drivers() -> list[ComposableNode]:
        return [
            ComposableNode(
                package=driver,
                plugin=plugin,
                name="driver",
                namespace=f"{where.rstrip('/')}/{camera}",
                parameters=[*shared, {"video_device": device, frame_parameter: camera}],
                remappings=remappings,
                extra_arguments=[{"use_intra_process_comms": True}],
            )
            for camera, device in devices.items()
        ]

    loading = _Loading(container, drivers)
    return [RegisterEventHandler(OnProcessStart(target_action=container, on_start=loading)), container]


class _Loading:
    """Loads the drivers each time the container has started. launch_ros itself would load them the first time only."""

    def __init__(self, container: ComposableNodeContainer, drivers: Callable[[], list[ComposableNode]]) -> None:
        """`drivers` makes their descriptions, each of which can be loaded once."""
        self._container = container
        self._drivers = drivers
        self._starts = 0

    def __call__(self, event: ProcessStarted, context: LaunchContext) -> LaunchDescriptionEntity:
        """Returns the action that loads them."""
        self._starts += 1
        load = LoadComposableNodes(composable_node_descriptions=self._drivers(), target_container=self._container)
        return load if self._starts == 1 else TimerAction(period=_DISCOVERY_SECONDS, actions=[load])


def _require(package: str) -> None:
    try:
        get_package_share_directory(package)
    except PackageNotFoundError:
        name = package.replace("_", "-")
        raise ConfigError(
            f"use_composed_cameras needs the package {package}: sudo apt install ros-$ROS_DISTRO-{name}"
        ) from None
