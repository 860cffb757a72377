"""Listing and download of a checkpoint on a Hugging Face hub, without code and pickled weights."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import hf_hub_url
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import build_hf_headers, validate_repo_id  # type: ignore[attr-defined]

from litevlm_ros.config_json import read_config
from litevlm_ros.download import web
from litevlm_ros.download.catalog import HubModel
from litevlm_ros.download.staging import gigabytes
from litevlm_ros.download.transfer import Digest, explained, fetch
from litevlm_ros.errors import CheckpointError, DownloadError, printable
from litevlm_ros.model_directory import TEXT_FILES, VISION_FILES, WEIGHTS, WEIGHTS_INDEX

_SHARD = re.compile(r"model-([0-9]{5})-of-([0-9]{5})\.safetensors")
_HASHES = {"sha256": re.compile(r"[0-9a-f]{64}"), "blob": re.compile(r"[0-9a-f]{40}")}

_DESCRIPTIONS = ("config.json", WEIGHTS_INDEX, *VISION_FILES, *TEXT_FILES)
"""The files that describe the weights: all of them are text, and no other names are taken from a hub."""

_LONGEST_LISTING = 8 << 20
"""Bytes of a listing that are read; a file takes some 300 of them, and a checkpoint has some 20 files."""
_LARGEST_DESCRIPTION = 32 << 20
"""Bytes of one configuration or tokenizer file; the tokenizer of Qwen3 has 11 MB."""
_LARGEST_WEIGHTS = 1 << 50


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

    def check_index(self, directory: Path) -> None:
        """Raises CheckpointError unless the index of shards in `directory` names those that are listed."""
        weights = {file.name for file in self.files if file.is_weights}
        index = directory / WEIGHTS_INDEX
        if weights == {WEIGHTS}:
            return
        places = read_config(index).get("weight_map")
        if not isinstance(places, dict) or set(map(str, places.values())) != weights:
            raise CheckpointError(
                f"{index} does not name the {len(weights)} files of weights that are listed beside it; take another "
                "--model or --revision"
            )


def list_files(model: HubModel, endpoint: str | None = None) -> Listing:
    """Lists the files of `model` on the hub at `endpoint` (default: HF_ENDPOINT, else huggingface.co).

    Raises DownloadError if it cannot be reached, has no such model or revision, answers for another commit or with what
    is no listing, or offers no whole checkpoint in safetensors.
    """
    endpoint = (endpoint or ENDPOINT).rstrip("/")
    if not re.match(r"https?://[^/]", endpoint):
        raise DownloadError(f"--endpoint {endpoint} is not the address of a hub, such as https://huggingface.co")
    try:
        validate_repo_id(model.repository)
    except HFValidationError as error:
        raise DownloadError(f"--model {model.repository} cannot be a repository: {error}") from error
    what = f"{model.repository} at {model.revision}"
    revision = quote(model.revision, safe="")
    with explained(what, endpoint):
        url = f"{endpoint}/api/models/{model.repository}/revision/{revision}?blobs=true"
        info = _object(web.read(url, build_hf_headers(), _LONGEST_LISTING))
    siblings = info.get("siblings")
    if not isinstance(siblings, list):
        raise DownloadError(f"{endpoint} does not answer as a hub does; check --endpoint and HF_ENDPOINT, and whether "
                            "this network wants a login in a browser")  # fmt: skip
    commit = str(info.get("sha", ""))
    if not HubModel(model.repository, commit).is_pinned or (model.is_pinned and commit != model.revision):
        raise DownloadError(f"{endpoint} answered for commit {printable(commit) or 'unknown'} of {model.repository} "
                            f"instead of {model.revision}; use another --endpoint")  # fmt: skip
    entries = {
        name: entry for entry in siblings if isinstance(entry, dict) and type(name := entry.get("rfilename")) is str
    }
    card = info.get("cardData")
    licence = card.get("license") if isinstance(card, dict) else None
    return Listing(
        model.repository, commit, printable(licence) if isinstance(licence, str) else "", endpoint,
        tuple(_file(name, entries[name], what) for name in _checkpoint_names(entries, what)),
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
            fetch(url, target, headers=build_hf_headers(), most=file.size, digest=file.digest)


def _present(directory: Path, file: HubFile) -> int:
    for name in (file.name, f"{file.name}.partial"):
        if (directory / name).is_file():
            return min(os.path.getsize(directory / name), file.size)
    return 0


def _object(data: bytes) -> dict[str, Any]:
    """Parses a JSON object; {} for everything else, however it is made."""
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _checkpoint_names(names: Iterable[str], what: str) -> list[str]:
    """Selects the description files and then one file of weights or else all shards; nothing else, whatever its name.

    Raises DownloadError if there are no weights or no config.json.
    """
    present = set(names)
    shards = {name for name in present if _SHARD.fullmatch(name)}
    weights = {WEIGHTS} & present or shards
    if "config.json" not in present or not weights:
        lacks = "config.json" if weights else WEIGHTS
        raise DownloadError(
            f"{what} holds no {lacks}, so it cannot be used{_instead(present)}; take another --model or --revision"
        )
    if weights is shards and (odd := (shards | {WEIGHTS_INDEX}) ^ (_whole(shards) | {WEIGHTS_INDEX} & present)):
        raise DownloadError(f"{what} is not one whole set of weights: {min(odd)} is missing or too many; take another "
                            "--model or --revision")  # fmt: skip
    return [name for name in _DESCRIPTIONS if name in present] + sorted(weights)


def _whole(shards: set[str]) -> set[str]:
    """Returns the names of all shards of a set, by their number, with which each of their names ends."""
    count = int(max(shards)[-17:-12])
    return {f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)}


def _instead(names: set[str]) -> str:
    """Says what a repository holds that is no checkpoint, as far as its names tell; '' for nothing that is known."""
    if "adapter_config.json" in names:
        return " (it is a LoRA adapter: merge it into its base model, and give --model the directory of the result)"
    if any(name.endswith(".gguf") for name in names):
        return " (GGUF files are for llama.cpp and are not read; take the model that they were made from)"
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        return " (pickled weights are not read, nor those that AWQ or GPTQ has quantized)"
    return ""


def _file(name: str, entry: dict[str, Any], what: str) -> HubFile:
    """Returns what the listing says of one file. Raises DownloadError if that is nothing to check a download by."""
    stored = entry.get("lfs")
    lfs = stored if isinstance(stored, dict) else {}
    size = lfs.get("size") if lfs else entry.get("size")
    kind, value = ("sha256", lfs.get("sha256")) if lfs else ("blob", entry.get("blobId"))
    if type(size) is not int or size < 0 or not isinstance(value, str) or not _HASHES[kind].fullmatch(value):
        raise DownloadError(f"the hub gives no size or hash for {name} of {what}, so a download could not be checked; "
                            "use another --endpoint")  # fmt: skip
    file = HubFile(name, size, Digest(kind, value))
    if size > (_LARGEST_WEIGHTS if file.is_weights else _LARGEST_DESCRIPTION):
        told = gigabytes(size) if size <= _LARGEST_WEIGHTS else "more bytes than any model"
        raise DownloadError(f"{name} of {what} is said to have {told}, which cannot be right; take another --model or "
                            "--endpoint")  # fmt: skip
    return file
