"""Fill a model directory from the hub or from a checkpoint on disk: put together beside it, then renamed into it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from litevlm_ros.download.catalog import DEFAULT_MODEL, HubModel, find_model
from litevlm_ros.download.disk import gigabytes, require_free, staging_directory
from litevlm_ros.download.errors import DownloadError
from litevlm_ros.download.halves import Origin, replace_together
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import ModelConfig, is_native, read_config
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.text.tokenizer import TextTokenizer

HALVES = (VISION, TEXT)

Tell = Callable[[str], None]
"""Says one line to the person who waits."""


@dataclass(frozen=True)
class Request:
    """What to fill `output` with. `model` and `revision` None mean: whatever is there already, or else the default.

    `halves` are those of HALVES that are wanted; others are left alone. `endpoint` None is HF_ENDPOINT, or else
    huggingface.co. `force` replaces what is there.
    """

    output: Path
    model: str | None = None
    revision: str | None = None
    endpoint: str | None = None
    halves: tuple[str, ...] = HALVES
    force: bool = False

    @property
    def is_explicit(self) -> bool:
        """Whether only one model will do."""
        return self.model is not None or self.revision is not None


def install_model(request: Request, tell: Tell) -> None:
    """Make the wanted halves those of the wanted model; changes nothing if it fails.

    Raises DownloadError, or CheckpointError if the checkpoint is not one that this package can run; ImportError without
    torch or huggingface_hub.
    """
    model = find_model(request.model or DEFAULT_MODEL, request.revision)
    if isinstance(model, Path):
        _install_directory(request, model, tell)
    else:
        _install_from_hub(request, model, tell)


def _install_directory(request: Request, checkpoint: Path, tell: Tell) -> None:
    if all((checkpoint / half).is_dir() for half in HALVES):
        raise DownloadError(f"{checkpoint} is a model directory already; give it to the node as model_dir, and to "
                            "build_engines as --model")  # fmt: skip
    origin = Origin(str(checkpoint.resolve()), "")
    halves = _halves_to_install(request, origin)
    if not halves:
        _tell_present(request, tell)
        return
    check_architecture(checkpoint)
    size = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    require_free(request.output, size, f"as much as the weights in {checkpoint}")
    with staging_directory(request.output) as staging:
        _split(checkpoint, request.output, staging, halves, origin, tell)


def _install_from_hub(request: Request, model: HubModel, tell: Tell) -> None:
    if model.is_pinned and not _halves_to_install(request, Origin(model.repository, model.revision)):
        _tell_present(request, tell)
        return
    # Imported here, so that --help needs neither; torch too, because it shall not be missed after a long download.
    import litevlm_ros.convert.checkpoint_split  # noqa: F401
    from litevlm_ros.download.hub import download, list_files

    listing = list_files(model, request.endpoint)
    origin = Origin(listing.repository, listing.commit, listing.licence)
    halves = _halves_to_install(request, origin)
    if not halves:
        _tell_present(request, tell)
        return
    with staging_directory(request.output) as staging:
        checkpoint = staging / f"{listing.repository.replace('/', '--')}@{listing.commit}"
        missing = listing.missing_bytes(checkpoint)
        tell(f"{origin} ({listing.licence or 'no licence named'}): {gigabytes(missing)} to download from "
             f"{listing.endpoint}")  # fmt: skip
        require_free(
            request.output, missing + listing.weight_bytes,
            f"{gigabytes(missing)} to download, and as much as the weights to split them",
        )  # fmt: skip
        download(listing, checkpoint, weights=False)
        check_architecture(checkpoint)
        download(listing, checkpoint, weights=True)
        _split(checkpoint, request.output, staging, halves, origin, tell)
        shutil.rmtree(checkpoint)


def check_architecture(checkpoint: Path) -> ModelConfig:
    """What config.json of a whole checkpoint describes. Raises CheckpointError if this package cannot run that."""
    whole = read_config(checkpoint / "config.json")
    language = whole.get("text_config" if is_native(whole) else "llm_config")
    if not isinstance(language, dict):
        raise CheckpointError(f"{checkpoint / 'config.json'} has no llm_config or text_config; it is not a whole "
                              "InternVL model")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        for half, config in zip(HALVES, (whole, language), strict=True):
            (Path(scratch) / half).mkdir()
            (Path(scratch) / half / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            return ModelConfig.from_directory(scratch)
        except CheckpointError as error:
            message = str(error)
            for half in HALVES:
                message = message.replace(str(Path(scratch, half)), str(checkpoint))
            raise CheckpointError(message) from error


def _halves_to_install(request: Request, origin: Origin) -> list[str]:
    """The wanted halves that are not there yet. Raises DownloadError if another model is in the way."""
    install, keep = [], []
    for half in HALVES:
        found = Origin.read(request.output / half)
        exists = (request.output / half).exists()
        is_same = found is not None and found.is_same_model(origin)
        if half in request.halves and (request.force or not exists):
            install.append(half)
        elif half in request.halves and not is_same and request.is_explicit:
            raise DownloadError(
                f"{request.output / half} is there already, {found or 'of unknown origin'}; replace it by {origin} "
                "with --force, or fill another directory with --output"
            )
        elif exists:
            keep.append((half, found, is_same))
    for half, found, is_same in keep if install else ():
        if found is not None and not is_same:
            raise DownloadError(
                f"{request.output / half} is of {found} and does not work with {' and '.join(install)} of {origin}: "
                "the halves of a model are trained together. Fetch both, or fill another directory with --output"
            )
    return install


def _tell_present(request: Request, tell: Tell) -> None:
    for half in request.halves:
        tell(f"{request.output / half} is there: {Origin.read(request.output / half) or 'of unknown origin'}")


def _split(checkpoint: Path, output: Path, staging: Path, halves: list[str], origin: Origin, tell: Tell) -> None:
    from litevlm_ros.convert.checkpoint_split import split_checkpoint

    staged = staging / "model"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        try:
            split_checkpoint(checkpoint, staged, vision=VISION in halves, text=TEXT in halves)
            if TEXT in halves:
                TextTokenizer.from_directory(staged)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(staged / TEXT), str(checkpoint))) from error
        except (OSError, SafetensorError) as error:
            raise DownloadError(f"{output} cannot be written ({error}); free some room there, or give --output another "
                                "directory") from error  # fmt: skip
        for half in halves:
            origin.write(staged / half)
            for weights in (staged / half).glob("*.safetensors"):
                shutil.copymode(staged / half / "config.json", weights)  # the writer lets only its own user read them
        replace_together({half: staged / half for half in halves}, output, staging)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    for half in halves:
        size = sum(file.stat().st_size for file in (output / half).glob("*.safetensors"))
        tell(f"{output / half}: {gigabytes(size)} of weights, from {origin}")
