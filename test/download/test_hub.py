from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import LISTING, FakeHub, pieces

from litevlm_ros.download.catalog import HubModel
from litevlm_ros.errors import CheckpointError, DownloadError

hub_module = pytest.importorskip("litevlm_ros.download.hub", reason="downloads need huggingface_hub")
download, list_files = hub_module.download, hub_module.list_files

OTHER_COMMIT = "f" * 40


@pytest.fixture
def offer(hub: FakeHub, repository: str, commit: str, tmp_path: Path) -> Callable[..., FakeHub]:
    """Publishes files of these sizes."""

    def publish(**sizes: int) -> FakeHub:
        directory = tmp_path / "offered"
        directory.mkdir()
        for name, size in sizes.items():
            (directory / name.replace("__", ".").replace("_of_", "-of-")).write_bytes(b"x" * size)
        hub.publish(repository, directory, commit)
        return hub

    return publish


def test_a_branch_is_resolved_to_its_commit(published: FakeHub, repository: str, commit: str) -> None:
    listing = list_files(HubModel(repository, "main"), published.url)
    assert (listing.commit, listing.licence, listing.endpoint) == (commit, "mit", published.url)


def test_neither_code_nor_pickle_nor_subdirectories(
    published: FakeHub, checkpoints: dict[str, Path], repository: str, commit: str, tmp_path: Path
) -> None:
    listing = list_files(HubModel(repository, commit), published.url)
    assert listing.weight_bytes == (checkpoints["original"] / "model.safetensors").stat().st_size
    assert listing.missing_bytes(tmp_path / "new") == sum(file.size for file in listing.files)
    for weights in (False, True):
        download(listing, tmp_path / "new", weights=weights)
    arrived = {file.name for file in (tmp_path / "new").iterdir()}
    wanted = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert arrived == wanted
    assert {path.rpartition("/")[2] for path, _ in published.requests} == wanted
    assert listing.missing_bytes(tmp_path / "new") == 0


def test_what_describes_the_weights_comes_before_them(
    published: FakeHub, repository: str, commit: str, tmp_path: Path
) -> None:
    download(list_files(HubModel(repository, commit), published.url), tmp_path / "new", weights=False)
    assert not list((tmp_path / "new").glob("*.safetensors"))
    assert (tmp_path / "new" / "config.json").is_file()


def test_shards_only_without_a_single_file(offer: Callable[..., FakeHub], repository: str, commit: str) -> None:
    shards = {f"model-0000{index}_of_00002__safetensors": 20 for index in (1, 2)}
    offered = offer(config__json=2, model__safetensors__index__json=2, **shards, other__safetensors=9)
    listing = list_files(HubModel(repository, commit), offered.url)
    assert [file.name for file in listing.files if file.is_weights] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    offered.repositories[repository][commit]["model.safetensors"] = b"all"
    listing = list_files(HubModel(repository, commit), offered.url)
    assert [file.name for file in listing.files if file.is_weights] == ["model.safetensors"]


def test_a_part_that_has_arrived_is_not_counted_again(
    offer: Callable[..., FakeHub], repository: str, commit: str, tmp_path: Path
) -> None:
    listing = list_files(HubModel(repository, commit), offer(config__json=100, model__safetensors=30_000).url)
    (tmp_path / "config.json").write_bytes(b"x" * 100)
    (tmp_path / "model.safetensors.partial").write_bytes(b"x" * 20_000)
    assert listing.missing_bytes(tmp_path) == 10_000


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pytorch_model.bin", r"\(pickled weights are not read, nor those that AWQ or GPTQ has quantized\)"),
        ("internvl-Q4_K_M.gguf", r"\(GGUF files are for llama\.cpp and are not read; take the model that"),
        ("adapter_config.json", r"\(it is a LoRA adapter: merge it into its base model"),
        ("README.md", "; take another --model"),
    ],
)
def test_a_listing_tells_that_there_are_no_weights(
    name: str, told: str, offer: Callable[..., FakeHub], repository: str, commit: str
) -> None:
    offered = offer(config__json=2)
    offered.repositories[repository][commit][name] = b"x"
    with pytest.raises(DownloadError, match=rf"holds no model\.safetensors, so it cannot be used.*{told}"):
        list_files(HubModel(repository, commit), offered.url)


@pytest.mark.parametrize(
    ("shards", "odd"),
    [
        (("1-of-00003", "3-of-00003"), "model-00002-of-00003.safetensors"),
        (("1-of-00002", "2-of-00002", "1-of-00001"), "model-00001-of-00001.safetensors"),
        (("1-of-99999",), "model-00002-of-99999.safetensors"),
        (("0-of-00000",), "model-00000-of-00000.safetensors"),
    ],
)
def test_shards_that_are_no_whole_set(
    shards: tuple[str, ...], odd: str, offer: Callable[..., FakeHub], repository: str, commit: str
) -> None:
    offered = offer(config__json=2)
    files = offered.repositories[repository][commit]
    files["model.safetensors.index.json"] = b"{}"
    files |= {f"model-0000{shard}.safetensors": b"x" for shard in shards}
    with pytest.raises(DownloadError, match=f"is not one whole set of weights: {odd} is missing or too many"):
        list_files(HubModel(repository, commit), offered.url)


def test_shards_without_an_index(offer: Callable[..., FakeHub], repository: str, commit: str) -> None:
    offered = offer(config__json=2)
    offered.repositories[repository][commit]["model-00001-of-00001.safetensors"] = b"x"
    with pytest.raises(DownloadError, match=r"model\.safetensors\.index\.json is missing"):
        list_files(HubModel(repository, commit), offered.url)


@pytest.mark.parametrize("weight_map", [{}, [], None, {"a": 5}, {"a": "../model.safetensors"}])
def test_an_index_of_other_files(
    weight_map: object, offer: Callable[..., FakeHub], repository: str, commit: str, tmp_path: Path
) -> None:
    offered = offer(config__json=2)
    files = offered.repositories[repository][commit]
    index = {"weight_map": weight_map}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    files |= {f"model-0000{number}-of-00002.safetensors": b"x" for number in (1, 2)}
    listing = list_files(HubModel(repository, commit), offered.url)
    download(listing, tmp_path / "new", weights=False)
    with pytest.raises(CheckpointError, match=r"index\.json does not name the 2 files of weights that are listed"):
        listing.check_index(tmp_path / "new")


@pytest.mark.parametrize(
    "name",
    [
        "../config.json", "/etc/hosts.json", "C:\\x.json", "..", ".", "", "\0.json", "\x1b[2J.json",
        "x" * 300 + ".json", "config.json.", "CONFIG.JSON", "\ud800.json", "other.json",
        "model-\x1b0001-of-00001.safetensors",
    ],
)  # fmt: skip
def test_other_names_never_become_files(
    name: str, offer: Callable[..., FakeHub], repository: str, commit: str, tmp_path: Path
) -> None:
    offered = offer(config__json=2, model__safetensors=9)
    offered.repositories[repository][commit][name] = b"x"
    listing = list_files(HubModel(repository, commit), offered.url)
    for weights in (False, True):
        download(listing, tmp_path / "new", weights=weights)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("size", [5_000_000_000, (32 << 20) + 1])
def test_descriptions_are_small(size: int, published: FakeHub, repository: str, commit: str) -> None:
    edit(published, lambda entry: entry.update(size=size), "config.json")
    with pytest.raises(DownloadError, match=r"config\.json of .* is said to have .* GB, which cannot be right"):
        list_files(HubModel(repository, commit), published.url)


@pytest.mark.parametrize("size", [10**4000, 1 << 51])
def test_weights_of_a_size_that_no_disk_has(size: int, published: FakeHub, repository: str, commit: str) -> None:
    edit(published, lambda entry: entry["lfs"].update(size=size), "model.safetensors")
    with pytest.raises(DownloadError, match="is said to have more bytes than any model"):
        list_files(HubModel(repository, commit), published.url)


@pytest.mark.parametrize("wrong", [{"size": -1}, {"size": True}, {"size": "2"}, {"size": 2.5}, {"size": None}])
def test_sizes_that_are_none(wrong: dict[str, Any], published: FakeHub, repository: str, commit: str) -> None:
    edit(published, lambda entry: entry.update(wrong), "config.json")
    with pytest.raises(DownloadError, match=r"gives no size or hash for config\.json"):
        list_files(HubModel(repository, commit), published.url)


@pytest.mark.parametrize("wrong", ["", "0" * 39, "G" * 40, "\x1b[2J", 5, None, ["0" * 40]])
def test_hashes_that_are_none(wrong: Any, published: FakeHub, repository: str, commit: str) -> None:
    edit(published, lambda entry: entry.update(blobId=wrong), "config.json")
    with pytest.raises(DownloadError, match=r"gives no size or hash for config\.json"):
        list_files(HubModel(repository, commit), published.url)


@pytest.mark.parametrize(
    ("licence", "shown"),
    [("\x1b[2Jmit\nfree", r"\x1b[2Jmit\nfree"), ("x" * 5000, "x" * 60 + "..."), ([1], ""), ({}, ""), (None, "")],
)
def test_licences(licence: Any, shown: str, published: FakeHub, repository: str, commit: str) -> None:
    published.licence = licence
    assert list_files(HubModel(repository, commit), published.url).licence == shown


def test_a_listing_that_never_ends(published: FakeHub, repository: str, commit: str) -> None:
    published.instead[LISTING] = pieces(b"[" * 65536, chunked=True, endless=True)
    with pytest.raises(DownloadError, match="has more bytes than the 8388608 that are listed or allowed"):
        list_files(HubModel(repository, commit), published.url)


def edit(hub: FakeHub, change: Callable[[dict[str, Any]], object], name: str) -> None:
    """Changes what the hub says of one file."""
    listing = hub.listing

    def edited(repository: str, revision: str, blobs: bool) -> dict[str, Any] | None:
        found = listing(repository, revision, blobs)
        assert found is not None
        change(next(entry for entry in found["siblings"] if entry["rfilename"] == name))
        return found

    hub.listing = edited  # type: ignore[method-assign]


def test_no_configuration(offer: Callable[..., FakeHub], repository: str, commit: str) -> None:
    with pytest.raises(DownloadError, match=r"holds no config\.json"):
        list_files(HubModel(repository, commit), offer(model__safetensors=9).url)


def test_unknown_repository_and_revision(published: FakeHub, repository: str) -> None:
    with pytest.raises(DownloadError, match=r"nobody/nothing at main is not at http.*Check --model"):
        list_files(HubModel("nobody/nothing", "main"), published.url)
    with pytest.raises(DownloadError, match=r"v9 has no such revision .*Check --revision"):
        list_files(HubModel(repository, "v9"), published.url)


def test_a_name_that_no_repository_can_have(published: FakeHub) -> None:
    with pytest.raises(DownloadError, match="--model a--b/c cannot be a repository"):
        list_files(HubModel("a--b/c", "main"), published.url)


def test_a_mirror_that_serves_another_commit(published: FakeHub, repository: str, commit: str) -> None:
    published.repositories[repository][OTHER_COMMIT] = {}
    published.branches[repository, OTHER_COMMIT] = commit
    with pytest.raises(DownloadError, match=f"answered for commit {commit} .* instead of {OTHER_COMMIT}"):
        list_files(HubModel(repository, OTHER_COMMIT), published.url)


def test_files_without_hashes_are_not_trusted(
    published: FakeHub, repository: str, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = published.listing
    monkeypatch.setattr(published, "listing", lambda name, revision, blobs: listing(name, revision, False))
    with pytest.raises(DownloadError, match="gives no size or hash"):
        list_files(HubModel(repository, commit), published.url)


@pytest.mark.parametrize(
    "page",
    [
        b"<html>Please log in</html>", b"[1, 2]", b'{"sha": 5}', b"\xff\xfe", b"[" * 200_000, b"null",
        b'{"siblings": ' + b"9" * 6000 + b"}", b'{"siblings": "config.json"}', b'{"siblings": {}}',
    ],
)  # fmt: skip
def test_a_page_that_wants_a_login(page: bytes, published: FakeHub, repository: str, commit: str) -> None:
    published.page = page
    with pytest.raises(DownloadError, match="does not answer as a hub does"):
        list_files(HubModel(repository, commit), published.url)


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://mirror", "https://"])
def test_addresses_that_are_none(endpoint: str) -> None:
    with pytest.raises(DownloadError, match="is not the address of a hub"):
        list_files(HubModel("a/b", "main"), endpoint)


@pytest.mark.parametrize("endpoint", ["https://xn--", "https://[", "http://x:99999999", "http://\x01/"])
def test_addresses_of_no_host(endpoint: str) -> None:
    with pytest.raises(DownloadError, match="no connection to"):
        list_files(HubModel("a/b", "main"), endpoint)


def test_other_errors_of_the_server(published: FakeHub, repository: str, commit: str) -> None:
    published.status = 500
    with pytest.raises(DownloadError, match="HTTP status 500"):
        list_files(HubModel(repository, commit), published.url)


def test_environment(published: FakeHub, repository: str) -> None:
    """HF_ENDPOINT and HF_HUB_OFFLINE are read when huggingface_hub is imported."""
    code = (
        "from litevlm_ros.download.catalog import HubModel\n"
        "from litevlm_ros.errors import DownloadError\n"
        "from litevlm_ros.download.hub import list_files\n"
        f"try: print(list_files(HubModel({repository!r}, 'main')).commit)\n"
        "except DownloadError as error: print(error)"
    )

    def run(**environment: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    assert run(HF_ENDPOINT=published.url).strip() == published.branches[repository, "main"]
    assert "HF_HUB_OFFLINE is set. Unset it, or give --model the directory" in run(
        HF_ENDPOINT=published.url, HF_HUB_OFFLINE="1"
    )
