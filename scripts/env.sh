# Source this file in bash before you build or run the package from this checkout:
#
#     . scripts/env.sh
#
# It activates .venv, ROS 2 (the wheels in .venv, or /opt/ros) and install/, and limits DDS discovery to this machine.

_litevlm_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ ! -e "$_litevlm_root/.venv/bin/activate" ]; then
    echo "litevlm_ros is not set up yet: run make setup in $_litevlm_root" >&2
    return 1
fi
. "$_litevlm_root/.venv/bin/activate"

if [ -e "$_litevlm_root/.venv/local_setup.bash" ]; then
    . "$_litevlm_root/.venv/local_setup.bash"
elif [ -z "${AMENT_PREFIX_PATH:-}" ]; then
    # ROS 2 comes from apt and is not sourced yet: take the distribution in ROS_DISTRO, or the newest one.
    # shellcheck disable=SC2086  # the shell must expand the pattern
    . "$(ls -1 /opt/ros/${ROS_DISTRO:-*}/setup.bash | tail -n 1)"
fi

if [ -e "$_litevlm_root/install/local_setup.bash" ]; then
    . "$_litevlm_root/install/local_setup.bash"
fi

if [ "${ROS_DISTRO:-}" = humble ]; then
    export ROS_LOCALHOST_ONLY=1
else
    export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
fi
export RMW_IMPLEMENTATION=rmw_fastrtps_cpp

unset _litevlm_root
