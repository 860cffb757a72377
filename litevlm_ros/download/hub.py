"""Listing and download of a checkpoint on a Hugging Face hub, without code and pickled weights."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import HFValidationError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from litevlm_ros.download.catalog import HubModel
from litevlm_ros.download.transfer import Digest, explained, fetch
from litevlm_ros.errors import DownloadError
from litevlm_ros.model_directory import WEIGHTS

_SHARDS = "model-?????-of-?????.safetensors"
_DESCRIPTIONS = ("*.json", "*.jinja", "merges.txt")
"""Patterns of the configuration and tokenizer files, all of which are text."""


@dataclass(frozen=True)
class HubFile:
    """One file of a repository; `size` in bytes."""

    name: str
    size: int
    digest: Digest

    @property
    def is_weights(self) -> bool:
        """True for safetensors files."""
        return self.name.endswith(".safetensors")


@dataclass(frozen=True)
class Listing:
    """The files of one commit that make up a checkpoint. `licence` is the model card's, '' if it names none."""

    repository: str
    commit: str
    licence: str
    endpoint: str
    files: tuple[HubFile, ...]

    def missing_bytes(self, directory: Path) -> int:
        """Returns the number of bytes that `download` would still transfer to `directory`."""
        return sum(file.size - _present(directory, file) for file in self.files)

    @property
    def weight_bytes(self) -> int:
        """Size of the weights in bytes."""
        return sum(file.size for file in self.files if file.is_weights)


def list_files(model: HubModel, endpoint: str | None = None) -> Listing:
    """Lists the files of `model` on the hub at `endpoint` (default: HF_ENDPOINT, else huggingface.co).

    Raises DownloadError if it cannot be reached, has no such model or revision, answers for another commit, or offers
    no safetensors.
    """
    endpoint = (endpoint or ENDPOINT).rstrip("/")
    if not re.match(r"https?://[^/]", endpoint):
        raise DownloadError(f"--endpoint {endpoint} is not the address of a hub, such as https://huggingface.co")
    what = f"{model.repository} at {model.revision}"
    with explained(what, endpoint):
        try:
            info = HfApi(endpoint=endpoint).model_info(
                model.repository, revision=model.revision, files_metadata=True, timeout=30
            )
        except HFValidationError as error:
            raise DownloadError(f"--model {model.repository} cannot be a repository: {error}") from error
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DownloadError(
                f"{endpoint} does not answer as a hub does; check --endpoint and HF_ENDPOINT, and whether this network "
                "wants a login in a browser"
            ) from error
    commit = info.sha or ""
    if not HubModel(model.repository, commit).is_pinned or (model.is_pinned and commit != model.revision):
        raise DownloadError(f"{endpoint} answered for commit {commit or 'unknown'} of {model.repository} instead of "
                            f"{model.revision}; use another --endpoint")  # fmt: skip
    card = info.card_data
    return Listing(
        model.repository, commit, str((card and card.get("license")) or ""), endpoint,
        tuple(_checkpoint_files(info.siblings or [], what)),
    )  # fmt: skip


def download(listing: Listing, directory: Path, *, weights: bool) -> None:
    """Downloads the listed weights, or all other files, into `directory`; files that are there already are kept.

    Raises DownloadError if a transfer breaks off; the bytes that have arrived by then stay for the next call.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for file in listing.files:
        target = directory / file.name
        if file.is_weights is not weights or target.is_file():
            continue
        url = hf_hub_url(listing.repository, file.name, revision=listing.commit, endpoint=listing.endpoint)
        with explained(f"{file.name} of {listing.repository}", listing.endpoint):
            fetch(url, target, headers=build_hf_headers(), size=file.size, digest=file.digest)


def _present(directory: Path, file: HubFile) -> int:
    for name in (file.name, f"{file.name}.partial"):
        if (directory / name).is_file():
            return min(os.path.getsize(directory / name), file.size)
    return 0


def _checkpoint_files(siblings: list[RepoSibling], what: str) -> list[HubFile]:
    """Selects the description files and then one file of weights or else all shards; nothing from subdirectories.

    Raises DownloadError if there are no weights or no config.json.
    """
    names = {sibling.rfilename for sibling in siblings if "/" not in sibling.rfilename}
    weights = {WEIGHTS} & names or {name for name in names if fnmatchcase(name, _SHARDS)}
    if not weights or "config.json" not in names:
        raise DownloadError(f"{what} holds no {'config.json' if weights else WEIGHTS}, so it cannot be used (pickled "
                            "weights are not read); take another --model or --revision")  # fmt: skip
    descriptions = {name for name in names if any(fnmatchcase(name, pattern) for pattern in _DESCRIPTIONS)}
    by_name = {sibling.rfilename: sibling for sibling in siblings}
    return [_hub_file(by_name[name], what) for name in (*sorted(descriptions), *sorted(weights))]


def _hub_file(sibling: RepoSibling, what: str) -> HubFile:
    size = sibling.lfs.size if sibling.lfs else sibling.size
    digest = Digest("sha256", sibling.lfs.sha256) if sibling.lfs else Digest("blob", sibling.blob_id or "")
    if size is None or not digest.value:
        raise DownloadError(f"the hub gives no size or hash for {sibling.rfilename} of {what}, so a download could not "
                            "be checked; use another --endpoint")  # fmt: skip
    return HubFile(sibling.rfilename, size, digest)
