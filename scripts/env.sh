# Source this file in bash or zsh before you build or run the package from this checkout:
#
#     . scripts/env.sh
#
# It activates .venv, ROS 2 (the wheels in .venv, or /opt/ros) and install/. Where you have not chosen who is to be
# discovered, it limits DDS discovery to this machine; all other variables of ROS and its middleware stay as they are.

if [ -n "${ZSH_VERSION:-}" ]; then
    _litevlm_shell=zsh
    eval '_litevlm_root=${(%):-%x}'
else
    _litevlm_shell=bash
    _litevlm_root=${BASH_SOURCE[0]}
fi
_litevlm_root=$(cd "$(dirname "$_litevlm_root")/.." && pwd)

if [ ! -e "$_litevlm_root/.venv/bin/activate" ]; then
    echo "litevlm_ros is not set up yet: run make setup in $_litevlm_root" >&2
    unset _litevlm_root _litevlm_shell
    return 1
fi
. "$_litevlm_root/.venv/bin/activate"

if [ -e "$_litevlm_root/.venv/local_setup.$_litevlm_shell" ]; then
    . "$_litevlm_root/.venv/local_setup.$_litevlm_shell"
elif [ -z "${AMENT_PREFIX_PATH:-}" ]; then
    # ROS 2 comes from apt and is not sourced yet: take the distribution in ROS_DISTRO, or the newest one.
    . "$(find /opt/ros -maxdepth 2 -path "/opt/ros/${ROS_DISTRO:-*}/setup.$_litevlm_shell" | sort | tail -n 1)"
fi

if [ -e "$_litevlm_root/install/local_setup.$_litevlm_shell" ]; then
    . "$_litevlm_root/install/local_setup.$_litevlm_shell"
fi

# Strangers in the same network must not see a first try, nor a try see their robots.
if [ -z "${ROS_AUTOMATIC_DISCOVERY_RANGE:-}${ROS_LOCALHOST_ONLY:-}${ROS_STATIC_PEERS:-}${ROS_DISCOVERY_SERVER:-}" ]; then
    if [ "${ROS_DISTRO:-}" = humble ]; then
        export ROS_LOCALHOST_ONLY=1
    else
        export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
    fi
fi

unset _litevlm_root _litevlm_shell
