"""The scripts behind `make setup`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from package_files import ROOT

from scripts import adopt_ros_wheels, create_venv


def test_exports_are_pointed_at_this_interpreter_once(tmp_path: Path) -> None:
    export = tmp_path / "std_msgs" / "cmake" / "export.cmake"
    export.parent.mkdir(parents=True)
    export.write_text(
        'INTERFACE "${_IMPORT_PREFIX}/include;/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include"'
    )
    assert adopt_ros_wheels.fix_exports(tmp_path, "/py/include", r"/v\1/site-packages") == 1
    expected = r'INTERFACE "${_IMPORT_PREFIX}/include;/py/include;/v\1/site-packages/numpy/_core/include"'
    assert export.read_text() == expected
    assert adopt_ros_wheels.fix_exports(tmp_path, "/py/include", r"/v\1/site-packages") == 0


def test_local_setup_extends_the_environment_once(tmp_path: Path) -> None:
    site_packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (site_packages / "ros_rcl.libs").mkdir(parents=True)
    adopt_ros_wheels.write_local_setup(tmp_path, site_packages)
    for shell in ("sh", "bash"):
        source = f". {tmp_path}/local_setup.{shell}"
        script = f'{source}; {source}; echo "$AMENT_PREFIX_PATH $LD_LIBRARY_PATH"'
        environment = {"PATH": "/usr/bin:/bin", "AMENT_PREFIX_PATH": "/other", "LD_LIBRARY_PATH": ""}
        result = subprocess.run(
            [shell, "-eu", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        ament, libraries = result.stdout.split()
        assert ament == f"{tmp_path}:/other"
        assert libraries == f"{tmp_path}/lib:{site_packages}/ros_rcl.libs"


@pytest.mark.parametrize(
    ("version", "machine", "ros", "remedy"),
    [
        ((3, 8), "x86_64", "jazzy", "PYTHON=python3.11"),
        ((3, 8), "aarch64", "apt", "PYTHON=python3.11"),
        ((3, 14), "x86_64", "kilted", "PYTHON=python3.12"),
        ((3, 10), "aarch64", "jazzy", "from apt"),
        ((3, 10), "x86_64", "foxy", "Choose from: jazzy, kilted"),
    ],
)
def test_an_unfit_machine_is_told_the_remedy(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], machine: str, ros: str, remedy: str
) -> None:
    monkeypatch.setattr(create_venv.sys, "version_info", (*version, 0))
    monkeypatch.setattr(create_venv.platform, "machine", lambda: machine)
    problem = create_venv.obstacle(ros)
    assert problem is not None
    assert remedy in problem


@pytest.mark.parametrize(("version", "machine", "ros"), [((3, 10), "x86_64", "kilted"), ((3, 12), "aarch64", "apt")])
def test_a_fit_machine_has_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], machine: str, ros: str
) -> None:
    monkeypatch.setattr(create_venv.sys, "version_info", (*version, 0))
    monkeypatch.setattr(create_venv.platform, "machine", lambda: machine)
    assert create_venv.obstacle(ros) is None


def test_a_failing_installation_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(venv: Path, requirements: list[str]) -> None:
        raise subprocess.CalledProcessError(1, ["pip"])

    monkeypatch.setattr(create_venv, "create", lambda venv, ros: None)
    monkeypatch.setattr(create_venv, "install", fail)
    assert create_venv.main([str(tmp_path), "--ros", "apt"]) == 1
    assert "run make setup again" in capsys.readouterr().err


@pytest.mark.parametrize(("driver", "installed"), [(True, ["convert.txt", "gpu.txt"]), (False, ["convert.txt"])])
def test_what_runs_on_a_gpu_is_installed_where_there_is_one_and_may_fail(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    driver: bool,
    installed: list[str],
) -> None:
    asked = []

    def install(venv: Path, requirements: list[str]) -> None:
        asked.append(requirements[-1])
        if requirements == ["gpu.txt"]:
            raise subprocess.CalledProcessError(1, ["pip"])

    (tmp_path / "version").touch()
    monkeypatch.setattr(create_venv, "NVIDIA_DRIVER", tmp_path / ("version" if driver else "none"))
    monkeypatch.setattr(create_venv.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(create_venv, "create", lambda venv, ros: None)
    monkeypatch.setattr(create_venv, "install", install)
    assert create_venv.main([str(tmp_path), "--ros", "apt", "--convert"]) == 0
    assert asked == installed
    assert ("will run on the CPU" in capsys.readouterr().err) == driver


def test_an_environment_is_kept_for_its_distribution_and_made_anew_for_another(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    create_venv.create(venv, "jazzy")
    installed = venv / "installed"
    installed.touch()
    create_venv.create(venv, "jazzy")
    assert installed.exists()
    create_venv.create(venv, "kilted")
    assert not installed.exists()
    assert (venv / "bin" / "python").exists()


def test_an_environment_of_an_unknown_distribution_is_made_anew(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    create_venv.create(venv, "jazzy")
    (venv / create_venv.MARKER).unlink()
    installed = venv / "installed"
    installed.touch()
    create_venv.create(venv, "jazzy")
    assert not installed.exists()


def _planned_setup(checkout: Path, *arguments: str) -> str:
    """Returns the commands that `make setup` would run in a checkout that has no more than the Makefile's inputs."""
    for name in ("Makefile", "scripts", "requirements"):
        if not (checkout / name).exists():
            (checkout / name).symlink_to(ROOT / name)
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "ROS_DISTRO")}
    (checkout / "CMakeLists.txt").touch()
    for name in ("package.xml", "setup.cfg"):
        (checkout / name).touch()
    command = ["make", "--dry-run", "setup", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_distribution_is_chosen_once_and_remembered(tmp_path: Path) -> None:
    assert "--ros kilted" in _planned_setup(tmp_path, "ROS_WHEELS=kilted")
    venv = tmp_path / ".venv"
    venv.mkdir()
    (venv / create_venv.MARKER).write_text("kilted\n")
    again = _planned_setup(tmp_path)
    assert "--ros kilted" in again
    assert "rm -rf" not in again
    other = _planned_setup(tmp_path, "ROS_WHEELS=jazzy")
    assert "--ros jazzy" in other
    assert "rm -rf build install log" in other


@pytest.mark.parametrize("distribution", create_venv.distributions())
def test_wheels_of_every_distribution_hold_what_the_package_builds_on(distribution: str) -> None:
    lines = (ROOT / "requirements" / f"ros_{distribution}.txt").read_text().splitlines()
    prefix = f"ros-{distribution}-"
    names = {line.partition("==")[0] for line in lines if line and not line.startswith("#")}
    assert all(name.startswith(prefix) for name in names)
    wanted = {
        "rclpy",
        "rmw-fastrtps-cpp",
        "sensor-msgs",
        "std-msgs",
        "diagnostic-msgs",
        "lifecycle-msgs",
        "action-msgs",
    }
    assert {prefix + name for name in wanted} <= names


@pytest.mark.parametrize("name", sorted(file.name for file in (ROOT / "requirements").glob("*.txt")))
def test_requirements_are_pinned_for_every_python(name: str) -> None:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert requirements
    for requirement in requirements:
        # numpy alone stays as apt has it.
        assert "==" in requirement or requirement == "numpy<2"
