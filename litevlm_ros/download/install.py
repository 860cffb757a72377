"""Installation of a model directory from the hub or from a checkpoint on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from litevlm_ros.checksums import listed, rewriting
from litevlm_ros.download.catalog import HubModel, Origin, find_model
from litevlm_ros.download.staging import gigabytes, replace_together, require_free, staging_directory
from litevlm_ros.errors import CheckpointError, DownloadError
from litevlm_ros.model_directory import PARTS, TEXT, VISION, weight_bytes, weight_files
from litevlm_ros.published_models import DEFAULT_MODEL
from litevlm_ros.text.prompt import PromptBuilder
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import Notify


@dataclass(frozen=True)
class InstallRequest:
    """The model to fill the directory `output` with.

    Without `model` and `revision`, any model that is there already is kept, and else DEFAULT_MODEL is taken. Only the
    `parts` (VISION, TEXT) are filled, others are left alone. `endpoint` None is HF_ENDPOINT, or else huggingface.co.
    `force` replaces a model that is there.
    """

    output: Path
    model: str | None = None
    revision: str | None = None
    endpoint: str | None = None
    parts: tuple[str, ...] = PARTS
    force: bool = False

    @property
    def is_explicit(self) -> bool:
        """True if the request names a model, so that another one does not serve."""
        return self.model is not None or self.revision is not None


def install_model(request: InstallRequest, notify: Notify) -> None:
    """Fills the requested parts with the requested model; if that fails, they stay as they were.

    The parts are put together in a directory beside them and then renamed. Raises DownloadError, CheckpointError for a
    checkpoint that this package cannot run, and ImportError without torch or huggingface_hub.
    """
    model = find_model(request.model or DEFAULT_MODEL, request.revision)
    listed(request.output)  # a damaged list of checksums shall not be noticed after a long download
    if isinstance(model, Path):
        _install_directory(request, model, notify)
    else:
        _install_from_hub(request, model, notify)


def _install_directory(request: InstallRequest, checkpoint: Path, notify: Notify) -> None:
    if all((checkpoint / part).is_dir() for part in PARTS):
        raise DownloadError(f"{checkpoint} is a model directory already; give it to the node as model_dir, and to "
                            "build_engines as --model")  # fmt: skip
    origin = Origin(str(checkpoint.resolve()), "")
    parts = _parts_to_install(request, origin)
    if not parts:
        _notify_of_present(request, notify)
        return
    _check_description(checkpoint, parts)
    size = gigabytes(weight_bytes(checkpoint))
    notify(f"{checkpoint}: {size} of weights to split; {size} of disk needed in {request.output}")
    require_free(request.output, weight_bytes(checkpoint), f"as much as the weights in {checkpoint}")
    with staging_directory(request.output) as staging:
        _split(checkpoint, request.output, staging, parts, origin, notify)


def _install_from_hub(request: InstallRequest, model: HubModel, notify: Notify) -> None:
    if model.is_pinned and not _parts_to_install(request, Origin(model.repository, model.revision)):
        _notify_of_present(request, notify)
        return
    # Imported here, so that --help needs neither; torch too, because it shall not be missed after a long download.
    import litevlm_ros.convert.checkpoint_split  # noqa: F401
    from litevlm_ros.download.hub import download, list_files

    listing = list_files(model, request.endpoint)
    origin = Origin(listing.repository, listing.commit, listing.licence)
    parts = _parts_to_install(request, origin)
    if not parts:
        _notify_of_present(request, notify)
        return
    with staging_directory(request.output) as staging:
        checkpoint = staging / f"{listing.repository.replace('/', '--')}@{listing.commit}"
        missing = listing.missing_bytes(checkpoint)
        needed = missing + listing.weight_bytes
        notify(
            f"{origin} ({listing.licence or 'no licence named'}): {gigabytes(missing)} to download from "
            f"{listing.endpoint}; {gigabytes(needed)} of disk needed until it is split, "
            f"{gigabytes(listing.weight_bytes)} afterwards"
        )
        require_free(
            request.output, needed, f"{gigabytes(missing)} to download, and as much as the weights to split them"
        )
        try:
            download(listing, checkpoint, weights=False)
            listing.check_index(checkpoint)
            _check_description(checkpoint, parts)
            download(listing, checkpoint, weights=True)
            _split(checkpoint, request.output, staging, parts, origin, notify)
        except CheckpointError as error:
            # The files are those of the hub, so another attempt would find the same.
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise CheckpointError(str(error).replace(str(checkpoint), checkpoint.name.replace("--", "/"))) from error
        shutil.rmtree(checkpoint)


def _check_description(checkpoint: Path, parts: list[str]) -> None:
    """Raises CheckpointError unless what describes a checkpoint's weights is of a model that can be run and asked."""
    from litevlm_ros.convert.checkpoint_split import check_architecture

    config = check_architecture(checkpoint)
    if TEXT in parts:
        tokenizer = TextTokenizer.from_files(checkpoint)
        PromptBuilder(config.template, tokenizer, config.text.vocab_size, config.vision.tokens_per_tile)


def _parts_to_install(request: InstallRequest, origin: Origin) -> list[str]:
    """Returns the requested parts that must be installed. Raises DownloadError if another model is in the way."""
    install, keep = [], []
    for part in PARTS:
        found = Origin.read(request.output / part)
        exists = (request.output / part).exists()
        is_same = found is not None and found.is_same_model(origin)
        if part in request.parts and (request.force or not exists):
            install.append(part)
        elif part in request.parts and not is_same and request.is_explicit:
            raise DownloadError(
                f"{request.output / part} is there already, {found or 'of unknown origin'}; replace it by {origin} "
                "with --force, or fill another directory with --output"
            )
        elif exists:
            keep.append((part, found, is_same))
    for part, found, is_same in keep if install else ():
        if found is not None and not is_same:
            raise DownloadError(
                f"{request.output / part} is of {found} and does not work with {' and '.join(install)} of {origin}: "
                "the halves of a model are trained together. Fetch both, or fill another directory with --output"
            )
    return install


def _notify_of_present(request: InstallRequest, notify: Notify) -> None:
    for part in request.parts:
        notify(f"{request.output / part} is there: {Origin.read(request.output / part) or 'of unknown origin'}")


def _split(checkpoint: Path, output: Path, staging: Path, parts: list[str], origin: Origin, notify: Notify) -> None:
    from litevlm_ros.convert.checkpoint_split import split_checkpoint

    staged = staging / "model"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        try:
            split_checkpoint(checkpoint, staged, vision=VISION in parts, text=TEXT in parts)
        except (OSError, SafetensorError) as error:
            raise DownloadError(f"{output} cannot be written ({error}); free some room there, or give --output another "
                                "directory") from error  # fmt: skip
        for part in parts:
            origin.write(staged / part)
            for weights in weight_files(staged / part):
                shutil.copymode(staged / part / "config.json", weights)  # safetensors lets only its own user read it
        with rewriting(output, *parts):
            replace_together({part: staged / part for part in parts}, output, staging)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    for part in parts:
        notify(f"{output / part}: {gigabytes(weight_bytes(output / part))} of weights, from {origin}")
