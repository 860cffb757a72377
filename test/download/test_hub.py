from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import FakeHub

from litevlm_ros.download.catalog import HubModel
from litevlm_ros.errors import DownloadError

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


def test_pickled_weights_alone_are_no_checkpoint(offer: Callable[..., FakeHub], repository: str, commit: str) -> None:
    offered = offer(config__json=2, pytorch_model__bin=9)
    with pytest.raises(DownloadError, match=r"no model\.safetensors.*pickled weights are not read"):
        list_files(HubModel(repository, commit), offered.url)


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


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", b"[1, 2]", b'{"sha": 5}', b"\xff\xfe"])
def test_a_page_that_wants_a_login(page: bytes, published: FakeHub, repository: str, commit: str) -> None:
    published.page = page
    with pytest.raises(DownloadError, match="does not answer as a hub does"):
        list_files(HubModel(repository, commit), published.url)


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://mirror", "https://"])
def test_addresses_that_are_none(endpoint: str) -> None:
    with pytest.raises(DownloadError, match="is not the address of a hub"):
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
