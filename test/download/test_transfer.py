from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub

from litevlm_ros.errors import DownloadError

transfer = pytest.importorskip("litevlm_ros.download.transfer", reason="downloads need huggingface_hub")

DATA = bytes(range(256)) * 256
SHA256 = transfer.Digest("sha256", hashlib.sha256(DATA).hexdigest())
_PATH = "a/b/resolve/main/weights"


@pytest.fixture
def server(hub: FakeHub) -> FakeHub:
    hub.repositories["a/b"] = {"main": {"weights": DATA}}
    return hub


def fetch(server: FakeHub, target: Path, most: int = len(DATA), digest: Any = SHA256) -> None:
    url = f"{server.url}/{_PATH}"
    with transfer.explained("weights", server.url):
        transfer.fetch(url, target, headers={}, most=most, digest=digest)


def ranges(server: FakeHub) -> list[str]:
    return [asked for _, asked in server.requests]


@pytest.mark.parametrize(("most", "digest"), [(len(DATA), SHA256), (len(DATA), None), (1 << 40, None)])
def test_a_whole_file(most: int, digest: Any, server: FakeHub, tmp_path: Path) -> None:
    fetch(server, tmp_path / "weights", most, digest)
    assert (tmp_path / "weights").read_bytes() == DATA
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_a_transfer_that_is_cut_off_goes_on_where_it_stopped(server: FakeHub, tmp_path: Path) -> None:
    server.cuts["weights"] = [1000, 20_000]
    fetch(server, tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == DATA
    assert ranges(server) == ["", "bytes=1000-", "bytes=21000-"]


def test_the_next_run_goes_on_where_the_last_one_gave_up(server: FakeHub, tmp_path: Path) -> None:
    server.cuts["weights"] = [1000] + [0] * 20
    with pytest.raises(DownloadError, match=r"weights: no connection to .* run the command again to continue"):
        fetch(server, tmp_path / "weights")
    assert [(file.name, file.stat().st_size) for file in tmp_path.iterdir()] == [("weights.partial", 1000)]
    server.cuts.clear()
    server.requests.clear()
    fetch(server, tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == DATA
    assert ranges(server) == ["bytes=1000-"]


def test_a_partial_file_that_is_whole_needs_no_transfer(server: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "weights.partial").write_bytes(DATA)
    fetch(server, tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == DATA
    assert server.requests == []


def test_a_partial_file_that_cannot_be_continued_is_started_over(server: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "weights.partial").write_bytes(DATA + b"more than there is")
    fetch(server, tmp_path / "weights")
    (tmp_path / "weights.partial").write_bytes(b"of a file of unknown size")
    fetch(server, tmp_path / "weights", digest=None)
    assert (tmp_path / "weights").read_bytes() == DATA
    assert ranges(server) == ["", ""]


@pytest.mark.parametrize("partial", [b"", b"\0" * 999])
def test_wrong_contents_are_deleted(partial: bytes, server: FakeHub, tmp_path: Path) -> None:
    server.corrupt.add("weights")
    (tmp_path / "weights.partial").write_bytes(partial)
    with pytest.raises(DownloadError, match=r"sha256 hash is not .* deleted; run the command again"):
        fetch(server, tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_has_less_than_it_says(server: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"has fewer bytes than the 65541 that are listed\. It was deleted; run the"
    ):
        fetch(server, tmp_path / "weights", len(DATA) + 5)
    assert list(tmp_path.iterdir()) == []


def test_git_names_small_files_by_another_hash(tmp_path: Path) -> None:
    """`echo hello | git hash-object --stdin`"""
    (tmp_path / "file").write_bytes(b"hello\n")
    assert transfer.Digest("blob", "ce013625030ba8dba906f756967f9e9ca394464a").matches(tmp_path / "file")
    assert not transfer.Digest("blob", hashlib.sha1(b"hello\n").hexdigest()).matches(tmp_path / "file")


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(DownloadError, match="Check the network, or name a mirror"), transfer.explained("x", url):
            transfer.web.read(url, {}, 1)


@pytest.mark.parametrize(("status", "advice"), [(404, "it is not there"), (410, "not there"), (503, "run the command")])
def test_http_errors(status: int, advice: str, server: FakeHub, tmp_path: Path) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=f"HTTP status {status}; .*{advice}"):
        fetch(server, tmp_path / "weights")


def test_the_disk_fills_up(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer.web, "body", body)
    with pytest.raises(DownloadError, match="weights: the disk is full; free some room and run the command again"):
        fetch(server, tmp_path / "weights")


def test_a_terminal_shows_progress(server: FakeHub, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    code = (
        "from pathlib import Path\n"
        "from litevlm_ros.download.transfer import Digest, fetch\n"
        f"fetch({f'{server.url}/{_PATH}'!r}, Path({str(tmp_path / 'weights')!r}), headers={{}}, most={len(DATA)}, "
        f"digest=Digest('sha256', {SHA256.value!r}))"
    )
    subprocess.run([sys.executable, "-c", code], stderr=theirs, timeout=60, check=True)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "weights:   0%" in shown
    assert "100%" in shown
