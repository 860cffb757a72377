from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from package_files import ROOT

from litevlm_ros.download import install, prebuilt
from litevlm_ros.download.install import InstallRequest
from litevlm_ros.errors import DownloadError
from litevlm_ros.model_directory import TEXT
from litevlm_ros.tools import download_models


class Calls:
    """Stands in for what fetches, and remembers how it was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[InstallRequest] = []
        self.prebuilt: list[tuple[Any, ...]] = []
        self.error: BaseException | None = None
        monkeypatch.setattr(install, "install_model", self.install_model)
        monkeypatch.setattr(prebuilt, "install_prebuilt", self.install_prebuilt)

    def install_model(self, request: InstallRequest, tell: Any) -> None:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        tell("fetched")

    def install_prebuilt(self, source: str, model: Path, parts: Any, tell: Any, *, force: bool) -> None:
        self.prebuilt.append((source, model, parts, force))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def test_defaults(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert download_models.main([]) == 0
    assert calls.requests == [InstallRequest(Path("models"))]
    assert calls.prebuilt == []
    assert capsys.readouterr().out == "fetched\n"


def test_options(calls: Calls) -> None:
    options = ["--model", "internvl3-1b", "--revision", "main", "--endpoint", "http://mirror", "--output", "there"]
    assert download_models.main([*options, "--skip-vision", "--force", "--prebuilt", "x.tar.gz"]) == 0
    assert calls.requests == [InstallRequest(Path("there"), "internvl3-1b", "main", "http://mirror", (TEXT,), True)]
    assert calls.prebuilt == [("x.tar.gz", Path("there"), (TEXT,), True)]


def test_replacing_engines_does_not_replace_a_model_that_was_not_named(calls: Calls) -> None:
    assert download_models.main(["--prebuilt", "x.tar.gz", "--force"]) == 0
    assert [request.force for request in calls.requests] == [False]
    assert [force for *_, force in calls.prebuilt] == [True]


def test_nothing_to_do(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert download_models.main(["--skip-vision", "--skip-text"]) == 1
    assert calls.requests == []
    assert "drop one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (DownloadError("no connection"), 1, "no connection\n"),
        (PermissionError(13, "Permission denied", "models"), 1, "[Errno 13] Permission denied: 'models'\n"),
        (ImportError("No module named 'torch'"), 1, "-m pip install torch"),
        (KeyboardInterrupt(), 130, "run the command again to continue"),
    ],
)
def test_errors_are_told_without_a_traceback(
    error: BaseException, status: int, told: str, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.error = error
    assert download_models.main(["--prebuilt", "x.tar.gz"]) == status
    assert told in capsys.readouterr().err
    assert calls.prebuilt == []


def test_help_needs_neither_torch_nor_the_hub() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'huggingface_hub', 'httpx', 'tensorrt', 'rclpy'): sys.modules[name] = None\n"
        "from litevlm_ros.tools.download_models import main; main(['--help'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "--prebuilt" in result.stdout


def test_missing_packages_are_named(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from litevlm_ros.tools.download_models import main\n"
        f"sys.exit(main(['--output', {str(tmp_path)!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, list(tmp_path.iterdir())) == (1, [])
    assert "-m pip install torch" in result.stderr


def test_from_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "download_models.py"), "--model", "nonsense"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("--model nonsense is not a directory")


def test_the_readme_of_the_models_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "models" / "README.md").read_text()
    with pytest.raises(SystemExit):
        download_models.main(["--help"])
    offered = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", capsys.readouterr().out)) - {"--help"}
    download = readme[readme.index("## Download") : readme.index("## Convert")]
    assert offered == set(re.findall(r"--[a-z]+(?:-[a-z]+)*", download))
