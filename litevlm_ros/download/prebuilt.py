"""Installation of engines that were built elsewhere, if they are undamaged and fit this machine and model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from litevlm_ros.download.archive import extract_engines
from litevlm_ros.download.staging import RESERVE, free_bytes, gigabytes, staging_directory
from litevlm_ros.engines.fingerprint import Machine, this_machine
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.engines.tensorrt_module import title
from litevlm_ros.errors import DownloadError, EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import sidecar_file, weight_files
from litevlm_ros.types import Notify

LARGEST = 16 << 30
"""Most bytes of an archive's engines; those of InternVL3-2B in FP16 take less than a quarter."""


def install_prebuilt(
    source: str, model: Path, parts: Sequence[str], notify: Notify, *, force: bool = False
) -> list[Path]:
    """Moves the engines of an archive, a file or a URL, into the model directory. Returns the files that are new.

    Only the engines of `parts` (VISION, TEXT) are taken. Each of them must be the one that its sidecar describes, built
    by the installed TensorRT for this GPU and for the model in `model`; if one is not, none is taken. An engine of
    the same name that is another file is replaced only with `force`. Raises DownloadError, EngineError if no TensorRT
    is installed, and ImportError if `source` is a URL and huggingface_hub is missing.
    """
    machine = this_machine()
    if not machine.compute_capability:
        raise DownloadError("there is no NVIDIA GPU here that prebuilt engines could be compared with; "
                            "run this on the machine that shall use them")  # fmt: skip
    for part in parts:
        if not weight_files(model / part):
            raise DownloadError(f"{model / part} holds no weights that prebuilt engines could be compared with; "
                                "download the model first, with --output the same directory")  # fmt: skip
    with staging_directory(model) as staging:
        unpacked = staging / "prebuilt"
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        try:
            archive = _local_archive(source, unpacked, _room(model))
            engines = [file for file in extract_engines(archive, unpacked, _room(model)) if _part(file) in parts]
            if not engines:
                raise DownloadError(f"{source} holds no engine of {' or '.join(parts)}")
            sidecars = [_checked(engine, source, machine, model) for engine in engines]
            return _move(sidecars, unpacked, model, notify, force)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)


def _room(model: Path) -> int:
    """Returns how many bytes an archive may take now."""
    return max(min(LARGEST, free_bytes(model) - RESERVE), 0)


def _local_archive(source: str, directory: Path, limit: int) -> Path:
    """Returns the archive `source`, a file, or a URL of which at most `limit` bytes are downloaded to `directory`."""
    if not re.match(r"https?://", source):
        if not Path(source).is_file():
            raise DownloadError(f"--prebuilt {source} is not a file, nor a URL that begins with https://")
        return Path(source)
    from litevlm_ros.download.transfer import explained, fetch
    from litevlm_ros.download.web import THIS_MACHINE

    url = urlsplit(source)
    if url.scheme == "http" and url.hostname not in THIS_MACHINE:
        raise DownloadError(
            f"--prebuilt {source} would come unencrypted, and whoever is in between could put other engines, which are "
            "code, in its place; use https://, or fetch the file and give its path"
        )
    target = directory / "archive.tar.gz"
    with explained("the archive of engines", source):
        fetch(source, target, headers={}, most=limit)
    return target


def _part(engine: Path) -> str:
    return engine.stem.rpartition("_")[0]


def _checked(engine: Path, source: str, machine: Machine, model: Path) -> EngineSidecar:
    """Returns the sidecar of an unpacked engine. Raises DownloadError with everything that is wrong with the two."""
    try:
        sidecar = EngineSidecar.read(engine)
        # First of all, since weights are looked for in the directory that the sidecar names.
        if sidecar.part == _part(engine):
            config = ModelConfig.from_directory(model)
            reasons = [
                *sidecar.check_file(engine),
                *sidecar.check(machine, model),
                *sidecar.check_graph(config, model),
                *sidecar.check_weights(model),
            ]
        else:
            reasons = [f"{sidecar_file(engine)} says that it is an engine of {sidecar.part!r}"]
    except EngineError as error:
        reasons = [str(error)]
    if reasons:
        told = "; ".join(reasons).replace(str(engine.parent), str(model))  # the directory is deleted
        raise DownloadError(f"{source} is refused, and nothing was changed: {told}")
    return sidecar


def _move(sidecars: list[EngineSidecar], unpacked: Path, model: Path, notify: Notify, force: bool) -> list[Path]:
    new = []
    for sidecar in sidecars:
        target = model / sidecar.file
        if not target.exists() or force:
            new.append(sidecar)
        elif sidecar.check_file(target):
            raise DownloadError(f"{target} is there already and is another engine; replace it with --force")
        else:
            notify(f"{target} is there")
    for sidecar in new:
        target = model / sidecar.file
        # The sidecar first: without an engine it changes nothing.
        sidecar_file(unpacked / sidecar.file).replace(sidecar_file(target))
        (unpacked / sidecar.file).replace(target)
        notify(
            f"{target}: {gigabytes(sidecar.engine_bytes)}, {sidecar.precision_built}, built by "
            f"{title(sidecar.flavour, sidecar.version)}"
        )
    return [model / sidecar.file for sidecar in new]
