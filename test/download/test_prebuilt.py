from __future__ import annotations

import dataclasses
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, pieces, redirect
from package_files import DEMO_MODEL

from litevlm_ros.checksums import hash_file
from litevlm_ros.download import prebuilt
from litevlm_ros.download.prebuilt import install_prebuilt
from litevlm_ros.download.staging import STAGING
from litevlm_ros.engines.fingerprint import Machine, hash_weights
from litevlm_ros.engines.graphs import graph_hash
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import DownloadError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import PARTS, TEXT, VISION

ORIN = Machine("tensorrt", "10.3.0", "8.7")

Engine = Callable[..., EngineSidecar]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model directory on an Orin; its weights are not looked into."""
    monkeypatch.setattr(prebuilt, "this_machine", lambda: ORIN)
    for part in PARTS:
        (tmp_path / "models" / part).mkdir(parents=True)
        shutil.copyfile(DEMO_MODEL / part / "config.json", tmp_path / "models" / part / "config.json")
        (tmp_path / "models" / part / "model.safetensors").write_bytes(part.encode())
    return tmp_path / "models"


@pytest.fixture
def engine(tmp_path: Path, model: Path) -> Engine:
    """Writes an engine of `model` and its sidecar, with changes, to be packed."""
    (tmp_path / "built").mkdir()

    def build(of: str = VISION, precision: str = "fp16", data: bytes = b"engine", **changes: Any) -> EngineSidecar:
        file = tmp_path / "built" / f"{of}_{precision}.engine"
        file.write_bytes(data)
        sidecar = EngineSidecar(
            file=file.name,
            part=of,
            flavour=ORIN.flavour,
            version=ORIN.version,
            compute_capabilities=(ORIN.compute_capability,),
            target=ORIN.compute_capability,
            engine_sha256=hash_file(file),
            engine_bytes=len(data),
            weights_sha256=hash_weights(model / of),
            graph_sha256=graph_hash(of, precision, ModelConfig.from_directory(model)),
            precision_asked=precision,
            precision_built=precision,
            precision_reason="",
            calibration="",
            plans=("layer-1025",),
            compiled=True,
            max_prompt=0,
            max_context=0,
            max_tiles=7,
            build_seconds=1.0,
            built_at="2025-01-01T00:00:00+00:00",
        )
        dataclasses.replace(sidecar, **changes).write(file.parent)
        return sidecar

    return build


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[], Path]:
    """Packs all that was built."""

    def write() -> Path:
        with tarfile.open(tmp_path / "engines.tar.gz", "w:gz") as archive:
            for file in sorted((tmp_path / "built").iterdir()):
                archive.add(file, file.name)
        return tmp_path / "engines.tar.gz"

    return write


def names(model: Path) -> list[str]:
    return sorted(path.name for path in model.iterdir() if path.name not in PARTS)


def install(archive: Path | str, model: Path, parts: tuple[str, ...] = PARTS, *, force: bool = False) -> list[str]:
    lines: list[str] = []
    install_prebuilt(str(archive), model, parts, lines.append, force=force)
    return lines


def test_engines_that_fit(engine: Engine, pack: Callable[[], Path], model: Path) -> None:
    sidecars = [engine(VISION), engine(TEXT, "int8", b"another")]
    lines = install(pack(), model)
    assert [EngineSidecar.read(model / sidecar.file) for sidecar in sidecars] == sidecars
    assert names(model) == sorted(f"{sidecar.file}{end}" for sidecar in sidecars for end in ("", ".json"))
    assert lines[0] == f"{model / 'text_decoder_int8.engine'}: 0.00 MB, int8, built by TensorRT 10.3.0"
    assert all("is there" in line for line in install(pack(), model))


def test_from_a_url(engine: Engine, pack: Callable[[], Path], model: Path, hub: FakeHub) -> None:
    engine(data=bytes(40_000))
    hub.repositories["a/b"] = {"main": {"engines.tar.gz": pack().read_bytes()}}
    install(f"{hub.url}/a/b/resolve/main/engines.tar.gz", model)
    assert names(model) == ["vision_encoder_fp16.engine", "vision_encoder_fp16.engine.json"]
    with pytest.raises(
        DownloadError,
        match=r"missing\.tar\.gz answered with HTTP status 404; it is not there",
    ):
        install(f"{hub.url}/a/b/resolve/main/missing.tar.gz", model)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine_sha256": "0" * 64}, "is not the engine that was built: its SHA-256 is another one"),
        ({"engine_bytes": 5}, "it has 6 bytes instead of 5"),
        ({"version": "10.7.0"}, "it was built by TensorRT 10.7.0 and TensorRT 10.3.0 is installed"),
        ({"flavour": "tensorrt_rtx"}, "it was built by TensorRT-RTX 10.3.0"),
        ({"compute_capabilities": ("8.6",)}, "built for compute capability 8.6 and this GPU is 8.7"),
        ({"weights_sha256": "0" * 64}, "was built from other weights than those in"),
        ({"graph_sha256": "0" * 64}, "was built for another model than the config.json files in"),
        ({"part": TEXT}, "says that it is an engine of 'text_decoder'"),
        ({"part": "../../elsewhere"}, "part is '../../elsewhere', not vision_encoder or text_decoder"),
        ({"format": 99}, "cannot be used"),
    ],
)
def test_one_engine_that_does_not_fit_refuses_all(
    changes: dict[str, Any], reason: str, engine: Engine, pack: Callable[[], Path], model: Path
) -> None:
    engine(TEXT)
    engine(VISION, **changes)
    with pytest.raises(DownloadError, match="is refused, and nothing was changed") as raised:
        install(pack(), model)
    assert reason in str(raised.value)
    assert STAGING not in str(raised.value)
    assert names(model) == []


def test_an_engine_without_a_sidecar(engine: Engine, pack: Callable[[], Path], model: Path, tmp_path: Path) -> None:
    engine()
    (tmp_path / "built" / "vision_encoder_fp16.engine.json").unlink()
    with pytest.raises(DownloadError, match=r"engine\.json is missing"):
        install(pack(), model)
    assert names(model) == []


def test_parts_that_are_skipped_are_neither_checked_nor_taken(
    engine: Engine, pack: Callable[[], Path], model: Path
) -> None:
    engine(VISION)
    engine(TEXT, version="9")
    install(pack(), model, (VISION,))
    assert names(model) == ["vision_encoder_fp16.engine", "vision_encoder_fp16.engine.json"]


def test_nothing_of_the_wanted_parts(engine: Engine, pack: Callable[[], Path], model: Path) -> None:
    engine(VISION)
    with pytest.raises(DownloadError, match="holds no engine of text_decoder"):
        install(pack(), model, (TEXT,))


def test_another_engine_is_replaced_only_by_force(engine: Engine, pack: Callable[[], Path], model: Path) -> None:
    engine()
    install(pack(), model)
    engine(TEXT)
    new = engine(data=b"another engine")
    with pytest.raises(DownloadError, match="is there already and is another engine; replace it with --force"):
        install(pack(), model)
    assert (model / new.file).read_bytes() == b"engine"
    assert len(names(model)) == 2
    install(pack(), model, force=True)
    assert (model / new.file).read_bytes() == b"another engine"
    assert EngineSidecar.read(model / new.file) == new


def test_a_machine_without_a_gpu_cannot_tell(
    engine: Engine, pack: Callable[[], Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine()
    monkeypatch.setattr(prebuilt, "this_machine", lambda: dataclasses.replace(ORIN, compute_capability=""))
    with pytest.raises(DownloadError, match="no NVIDIA GPU here"):
        install(pack(), model)


def test_without_weights_there_is_nothing_to_compare_with(
    engine: Engine, pack: Callable[[], Path], model: Path
) -> None:
    engine()
    (model / TEXT / "model.safetensors").unlink()
    with pytest.raises(DownloadError, match=r"text_decoder holds no weights .* download the model first"):
        install(pack(), model)
    install(pack(), model, (VISION,))


def test_neither_a_file_nor_a_url(model: Path) -> None:
    for source in ("missing.tar.gz", "file:///etc/hostname", "ftp://x/y.tar.gz"):
        with pytest.raises(DownloadError, match="is not a file, nor a URL"):
            install(source, model)
    assert names(model) == []


def test_a_redirect_does_not_bring_engines_unencrypted_from_elsewhere(model: Path, hub: FakeHub) -> None:
    hub.instead["engines.tar.gz"] = redirect("http://models.example/engines.tar.gz")
    with pytest.raises(DownloadError, match=r"redirects to http://models\.example/engines\.tar\.gz, and whoever is in"):
        install(f"{hub.url}/a/b/resolve/main/engines.tar.gz", model)
    assert names(model) == []


def test_an_archive_that_never_ends(model: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prebuilt, "LARGEST", 1_000_000)
    hub.instead["engines.tar.gz"] = pieces(bytes(1 << 16), chunked=True, endless=True)
    with pytest.raises(DownloadError, match="has more bytes than the 1000000 that are listed or allowed"):
        install(f"{hub.url}/a/b/resolve/main/engines.tar.gz", model)
    assert names(model) == []


def test_what_a_sidecar_says_does_not_steer_the_terminal(engine: Engine, pack: Callable[[], Path], model: Path) -> None:
    engine(VISION, version="\x1b[2J9", part="\x1b]0;x\x07")
    with pytest.raises(DownloadError) as raised:
        install(pack(), model)
    assert str(raised.value).isprintable()
    engine(VISION, precision_built="fp16", compute_capabilities=("\x1b[2J",))
    with pytest.raises(DownloadError, match=r"built for compute capability \\x1b\[2J and"):
        install(pack(), model)


def test_engines_do_not_come_unencrypted_from_elsewhere(model: Path) -> None:
    with pytest.raises(DownloadError, match="would come unencrypted, and whoever is in between"):
        install("http://models.example/engines.tar.gz", model)
    assert names(model) == []
