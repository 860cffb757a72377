"""The scripts behind `make setup`."""

from __future__ import annotations

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
    ("version", "machine", "system_ros", "remedy"),
    [
        ((3, 8), "x86_64", False, "PYTHON=python3.11"),
        ((3, 8), "aarch64", True, "PYTHON=python3.11"),
        ((3, 14), "x86_64", False, "PYTHON=python3.12"),
        ((3, 10), "aarch64", False, "from apt"),
    ],
)
def test_an_unfit_machine_is_told_the_remedy(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], machine: str, system_ros: bool, remedy: str
) -> None:
    monkeypatch.setattr(create_venv.sys, "version_info", (*version, 0))
    monkeypatch.setattr(create_venv.platform, "machine", lambda: machine)
    problem = create_venv.obstacle(system_ros)
    assert problem is not None
    assert remedy in problem


@pytest.mark.parametrize(("version", "machine", "system_ros"), [((3, 10), "x86_64", False), ((3, 12), "aarch64", True)])
def test_a_fit_machine_has_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], machine: str, system_ros: bool
) -> None:
    monkeypatch.setattr(create_venv.sys, "version_info", (*version, 0))
    monkeypatch.setattr(create_venv.platform, "machine", lambda: machine)
    assert create_venv.obstacle(system_ros) is None


def test_a_failing_installation_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(venv: Path, requirements: list[str]) -> None:
        raise subprocess.CalledProcessError(1, ["pip"])

    monkeypatch.setattr(create_venv, "create", lambda venv, system_ros: None)
    monkeypatch.setattr(create_venv, "install", fail)
    assert create_venv.main([str(tmp_path), "--system-ros"]) == 1
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
    monkeypatch.setattr(create_venv, "create", lambda venv, system_ros: None)
    monkeypatch.setattr(create_venv, "install", install)
    assert create_venv.main([str(tmp_path), "--system-ros", "--convert"]) == 0
    assert asked == installed
    assert ("will run on the CPU" in capsys.readouterr().err) == driver


@pytest.mark.parametrize(
    "name", ["runtime.txt", "ros.txt", "ros_apt.txt", "dev.txt", "docs.txt", "convert.txt", "gpu.txt"]
)
def test_requirements_are_pinned_for_every_python(name: str) -> None:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert requirements
    for requirement in requirements:
        # numpy alone stays as apt has it.
        assert "==" in requirement or requirement == "numpy<2"
