from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.errors import ConfigError
from litevlm_ros.node import ros_environment
from litevlm_ros.node.ros_environment import check_environment


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(ros_environment, "_installed_middlewares", lambda: ["rmw_cyclonedds_cpp", "rmw_fastrtps_cpp"])
    return {"HOME": str(tmp_path), "ROS_DISTRO": "jazzy"}


@pytest.mark.parametrize("domain", ["", "0", "14", " 14", "232"])
@pytest.mark.parametrize("middleware", ["", "rmw_cyclonedds_cpp"])
def test_right_values_pass(environment: dict[str, str], domain: str, middleware: str) -> None:
    check_environment([], {**environment, "ROS_DOMAIN_ID": domain, "RMW_IMPLEMENTATION": middleware})


@pytest.mark.parametrize("domain", ["abc", "233", "500", "-1", "14x", "1.5", "99999999999999999999", "¹"])
def test_a_wrong_domain(environment: dict[str, str], domain: str) -> None:
    with pytest.raises(ConfigError, match=f"^ROS_DOMAIN_ID is '{domain}'; allowed: .* 0 to 232.*unset ROS_DOMAIN_ID$"):
        check_environment([], {**environment, "ROS_DOMAIN_ID": domain})


def test_a_middleware_that_is_not_installed(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as error:
        check_environment([], {**environment, "RMW_IMPLEMENTATION": "rmw_connextdds"})
    assert str(error.value) == (
        "RMW_IMPLEMENTATION is 'rmw_connextdds', which is not installed; there is rmw_cyclonedds_cpp, rmw_fastrtps_cpp"
        ". Install it with apt install ros-jazzy-rmw-connextdds, or take the default: unset RMW_IMPLEMENTATION"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HOME": ""}, "HOME is not set, so ROS has no directory"),
        ({"ROS_LOG_DIR": "{file}"}, "ROS_LOG_DIR is '.*', but ROS cannot write its logs to .*/file "),
        ({"ROS_LOG_DIR": "{file}/log"}, "ROS_LOG_DIR is '.*', but ROS cannot write its logs to .*/file/log "),
        ({"ROS_HOME": "{file}"}, "ROS_HOME is '.*', but ROS cannot write its logs to .*/file/log "),
        ({"HOME": "{file}"}, r"HOME is '.*', but ROS cannot write its logs to .*/file/\.ros/log "),
        ({"HOME": "", "ROS_LOG_DIR": "~/log"}, "ROS_LOG_DIR is '~/log', but HOME is not set"),
    ],
)
def test_a_log_directory_that_cannot_be_written(
    environment: dict[str, str], tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    (tmp_path / "file").write_text("")
    wrong = {name: value.format(file=tmp_path / "file") for name, value in changes.items()}
    with pytest.raises(ConfigError, match=f"^{message}.*export ROS_LOG_DIR=/tmp/ros_log"):
        check_environment([], {**environment, **wrong})
    check_environment(["--disable-external-lib-logs"], {**environment, **wrong})


@pytest.mark.parametrize("name", ["ROS_LOG_DIR", "ROS_HOME"])
def test_a_log_directory_needs_no_home(environment: dict[str, str], tmp_path: Path, name: str) -> None:
    check_environment([], {"HOME": "", name: str(tmp_path / "new" / "logs")})


def test_a_keystore_that_cannot_be_read(environment: dict[str, str], tmp_path: Path) -> None:
    secure = {**environment, "ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}
    with pytest.raises(
        ConfigError, match="ROS_SECURITY_KEYSTORE names no directory; set it, or run without security: "
    ):
        check_environment([], secure)
    with pytest.raises(ConfigError, match=r"KEYSTORE is '/nokeys', but /nokeys/enclaves cannot be read \(No such file"):
        check_environment([], {**secure, "ROS_SECURITY_KEYSTORE": "/nokeys"})
    (tmp_path / "enclaves").mkdir()
    check_environment([], {**secure, "ROS_SECURITY_KEYSTORE": str(tmp_path)})
    check_environment([], {**environment, "ROS_SECURITY_ENABLE": "true"})


def test_all_that_is_wrong_is_told_at_once(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as error:
        check_environment([], {"ROS_DOMAIN_ID": "x", "RMW_IMPLEMENTATION": "y"})
    assert [line.split(" ")[0] for line in str(error.value).splitlines()] == [
        "ROS_DOMAIN_ID",
        "RMW_IMPLEMENTATION",
        "HOME",
    ]
