"""The environment variables that ROS reads when a process joins: what is wrong with them, and the fix.

ROS itself ends the process in some of these cases, waits forever in others, and takes another value in the rest. So
they are looked at before rclpy is imported.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from litevlm_ros.errors import ConfigError

HIGHEST_DOMAIN = 232
"""The highest ROS domain: DDS computes its ports from it, and they end at 65535 (DDSI-RTPS 2.5, 9.6.2)."""

_NO_LOG_FILE = "--disable-external-lib-logs"


def check_environment(for_ros: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError, which names every variable that is wrong. `for_ros` are the arguments behind --ros-args."""
    checks: list[Callable[[Mapping[str, str]], str]] = [_domain, _middleware, _security]
    if _NO_LOG_FILE not in for_ros and environment.get("RCL_LOGGING_IMPLEMENTATION") != "rcl_logging_noop":
        checks.append(_log_directory)
    found = [reason for check in checks if (reason := check(environment))]
    if found:
        raise ConfigError("\n".join(found))


def _domain(environment: Mapping[str, str]) -> str:
    text = environment.get("ROS_DOMAIN_ID", "").strip()
    if not text or (text.isascii() and text.isdigit() and int(text) <= HIGHEST_DOMAIN):
        return ""
    return (
        f"ROS_DOMAIN_ID is {text!r}; allowed: whole numbers from 0 to {HIGHEST_DOMAIN}, the same for all programs that "
        "are to see each other. Correct it, or take domain 0: unset ROS_DOMAIN_ID"
    )


def _middleware(environment: Mapping[str, str]) -> str:
    chosen = environment.get("RMW_IMPLEMENTATION", "")
    installed = _installed_middlewares()
    if not chosen or not installed or chosen in installed:
        return ""
    package = f"ros-{environment.get('ROS_DISTRO', '$ROS_DISTRO')}-{chosen.replace('_', '-')}"
    return (
        f"RMW_IMPLEMENTATION is {chosen!r}, which is not installed; there is {', '.join(installed)}. Install it with "
        f"apt install {package}, or take the default: unset RMW_IMPLEMENTATION"
    )


def _installed_middlewares() -> list[str]:
    """Returns the names of ROS's middlewares, or none where ROS is not sourced."""
    try:
        from ament_index_python import get_resources

        return sorted(name for name in get_resources("rmw_typesupport") if name != "rmw_implementation")
    except (ImportError, OSError, LookupError):
        return []


def _security(environment: Mapping[str, str]) -> str:
    if environment.get("ROS_SECURITY_ENABLE") != "true" or environment.get("ROS_SECURITY_STRATEGY") != "Enforce":
        return ""
    off = "or run without security: unset ROS_SECURITY_ENABLE"
    keystore = environment.get("ROS_SECURITY_KEYSTORE", "")
    if not keystore:
        return f"ROS_SECURITY_STRATEGY is Enforce, but ROS_SECURITY_KEYSTORE names no directory; set it, {off}"
    enclaves = Path(keystore) / "enclaves"
    try:
        os.listdir(enclaves)
    except OSError as error:
        return (
            f"ROS_SECURITY_KEYSTORE is {keystore!r}, but {enclaves} cannot be read ({error.strerror}). Make a keystore "
            f"with ros2 security create_keystore, or give this user the right to read it, {off}"
        )
    return ""


def _log_directory(environment: Mapping[str, str]) -> str:
    fix = "Name a directory that this user can write: export ROS_LOG_DIR=/tmp/ros_log"
    home = environment.get("HOME", "")
    if named := environment.get("ROS_LOG_DIR", ""):
        source = f"ROS_LOG_DIR is {named!r}"
    elif ros_home := environment.get("ROS_HOME", ""):
        source, named = f"ROS_HOME is {ros_home!r}", f"{ros_home}/log"
    elif home:
        source, named = f"HOME is {home!r}", "~/.ros/log"
    else:
        return f"HOME is not set, so ROS has no directory for its logs. {fix}"
    if named == "~" or named.startswith("~/"):
        if not home:
            return f"{source}, but HOME is not set. {fix}"
        named = f"{home}{named[1:]}"
    try:
        directory = Path(named)
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except OSError as error:
        return f"{source}, but ROS cannot write its logs to {named} ({error.strerror}). {fix}"
