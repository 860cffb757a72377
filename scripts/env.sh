# Source this from bash for everything that runs or builds the package from this checkout:
#
#     . scripts/env.sh
#
# It activates .venv, ROS 2 (from /opt/ros, or the wheels in .venv) and install/, and keeps discovery on this machine.

_litevlm_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ ! -e "$_litevlm_root/.venv/bin/activate" ]; then
    echo "litevlm_ros is not set up yet: run make setup in $_litevlm_root" >&2
    return 1
fi

if [ -e "$_litevlm_root/.venv/share/rclpy/package.xml" ]; then
    # ROS 2 as wheels. LD_LIBRARY_PATH and the flag are what the wheels would otherwise find out by starting each
    # interpreter twice.
    for _litevlm_path in "$_litevlm_root"/.venv/lib "$_litevlm_root"/.venv/lib/python3.*/site-packages/ros_*.libs; do
        case ":$LD_LIBRARY_PATH:" in
            *":$_litevlm_path:"*) ;;
            *) export LD_LIBRARY_PATH="$_litevlm_path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
        esac
    done
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
    export ROS_VERSION=2 ROS_PYTHON_VERSION=3
    for _litevlm_name in AMENT_PREFIX_PATH CMAKE_PREFIX_PATH; do
        case ":${!_litevlm_name}:" in
            *":$_litevlm_root/.venv:"*) ;;
            *) export "$_litevlm_name=$_litevlm_root/.venv${!_litevlm_name:+:${!_litevlm_name}}" ;;
        esac
    done
elif [ -z "$AMENT_PREFIX_PATH" ]; then
    # ROS 2 from apt, which this shell has not sourced yet: the one named, or the newest there is.
    # shellcheck disable=SC2086  # the pattern is meant to expand
    . "$(ls -1 /opt/ros/${ROS_DISTRO:-*}/setup.bash | tail -n 1)"
fi

. "$_litevlm_root/.venv/bin/activate"

if [ -e "$_litevlm_root/install/local_setup.bash" ]; then
    . "$_litevlm_root/install/local_setup.bash"
fi

if [ "$ROS_DISTRO" = humble ]; then
    export ROS_LOCALHOST_ONLY=1
else
    export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
fi
export RMW_IMPLEMENTATION=rmw_fastrtps_cpp

unset _litevlm_root _litevlm_path _litevlm_name
