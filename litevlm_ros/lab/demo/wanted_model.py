"""The model that a demo is asked to show: where it comes from, and the model directory that it runs from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from litevlm_ros.checkpoint.files import SafetensorsDirectory
from litevlm_ros.download.catalog import HubModel, Origin, find_model
from litevlm_ros.download.install import InstallRequest
from litevlm_ros.download.staging import STAGING
from litevlm_ros.errors import DownloadError
from litevlm_ros.model_directory import PARTS, engine_name, graph_name, weight_files
from litevlm_ros.published_models import PUBLISHED_MODELS


@dataclass(frozen=True)
class WantedModel:
    """A model by the name that a person gave. `source` is None for a model directory, which is used where it is.

    `directory` is the model directory. `parameters` is the number of weights, and `weight_bytes` their size in the
    checkpoint.
    """

    name: str
    source: HubModel | Path | None
    directory: Path
    parameters: int
    weight_bytes: int
    stitched: bool = False
    """True for a model that was trained with all cameras in one picture."""

    @property
    def is_installed(self) -> bool:
        """True if the model directory holds the weights of this model."""
        return self.source is None or (_holds(self.directory, self.source) and not self.has_changed)

    @property
    def has_changed(self) -> bool:
        """True if the checkpoint on this disk is newer than the model directory that was made of it."""
        if not isinstance(self.source, Path) or not _holds(self.directory, self.source):
            return False
        made = min(file.stat().st_mtime for part in PARTS for file in weight_files(self.directory / part))
        return any(file.stat().st_mtime > made for file in (*weight_files(self.source), self.source / "config.json"))

    @property
    def staged_bytes(self) -> int:
        """The bytes of a download that was interrupted."""
        return sum(file.stat().st_size for file in (self.directory / STAGING).rglob("*") if file.is_file())

    @property
    def request(self) -> InstallRequest:
        """The request that fills the model directory."""
        return InstallRequest(self.directory, self.name, force=self.has_changed)

    def made_files(self) -> Iterator[Path]:
        """Yields the graphs and engines that were made of the weights."""
        for part in PARTS:
            for pattern in (graph_name(part, "*"), graph_name(part), engine_name(part, "*")):
                yield from self.directory.glob(f"{pattern}*")


def find_wanted(name: str, models: Path) -> WantedModel:
    """Finds what `name` stands for: a published model, OWNER/NAME on the hub, a checkpoint or a model directory.

    A model that has to be installed gets a directory of its own below `models`, unless `models` itself holds it. Raises
    DownloadError if `name` is none of these, if the hub does not have it, or if another model is in its directory, and
    CheckpointError for a directory without weights.
    """
    path = Path(name).expanduser()
    if all((path / part).is_dir() for part in PARTS):
        parameters, size = _count(*(path / part for part in PARTS))
        return WantedModel(name, None, path, parameters, size)
    source = find_model(name)
    published = PUBLISHED_MODELS.get(name.lower())
    if isinstance(source, Path):
        directory = models / source.resolve().name
    else:
        directory = models / (published.name if published else name.replace("/", "--"))
    _refuse_another(directory, source)
    if not _holds(directory, source) and _holds(models, source):
        directory = models
    if _holds(directory, source):
        parameters, size = _count(*(directory / part for part in PARTS))
    elif isinstance(source, Path):
        parameters, size = _count(source)
    elif published:
        parameters, size = published.parameters, published.download_bytes
    else:
        from litevlm_ros.download.hub import list_files

        size = list_files(source).weight_bytes
        parameters = size // 2  # such checkpoints have 16 bits a weight
    return WantedModel(name, source, directory, parameters, size, bool(published and published.stitched))


def hub_address() -> str:
    """Returns the address that models are downloaded from."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _holds(directory: Path, source: HubModel | Path) -> bool:
    """Tells whether a model directory was made of `source`. A model of a branch is any commit of it."""
    return all(_is_of(Origin.read(directory / part), source) for part in PARTS)


def _is_of(origin: Origin | None, source: HubModel | Path) -> bool:
    if origin is None:
        return False
    if isinstance(source, Path):
        return origin.is_same_model(Origin(str(source.resolve()), ""))
    return origin.model == source.repository and (not source.is_pinned or origin.revision == source.revision)


def _refuse_another(directory: Path, source: HubModel | Path) -> None:
    """Raises DownloadError if `directory` holds a model that is not of `source`."""
    for part in PARTS:
        if (directory / part).exists() and not _is_of(origin := Origin.read(directory / part), source):
            raise DownloadError(
                f"{directory} holds another model ({origin or 'of unknown origin'}). To use that one, say MODEL="
                f"{directory}; to replace it, move it away: `mv {directory} {directory}.old`"
            )


def _count(*directories: Path) -> tuple[int, int]:
    """Returns how many weights the safetensors headers in these directories list, and their bytes."""
    tensors = [tensor for each in directories for tensor in SafetensorsDirectory(each).tensors.values()]
    return sum(prod(tensor.shape) for tensor in tensors), sum(tensor.length for tensor in tensors)
