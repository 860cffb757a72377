"""Servers that send clients elsewhere, send more than they should, or send it too slowly."""

from __future__ import annotations

import gzip
import hashlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_hub import Answer, FakeHub, Handler, pieces, redirect, serve, sized

from litevlm_ros.errors import DownloadError

transfer = pytest.importorskip("litevlm_ros.download.transfer", reason="downloads need huggingface_hub")
web = transfer.web

DATA = b"what is listed"
SHA256 = transfer.Digest("sha256", hashlib.sha256(DATA).hexdigest())
TOKEN = "Bearer secret"
_PATH = "/a/b/resolve/main/"


@pytest.fixture
def server(hub: FakeHub) -> FakeHub:
    return offered(hub)


def offered(hub: FakeHub) -> FakeHub:
    hub.repositories["a/b"] = {"main": dict.fromkeys(("file", "next"), DATA)}
    return hub


def fetch(server: FakeHub, directory: Path) -> bytes:
    """Fetches `file` with the user's token and returns what has arrived."""
    with transfer.explained("file", server.url):
        transfer.fetch(
            f"{server.url}{_PATH}file",
            directory / "file",
            headers={"Authorization": TOKEN},
            most=len(DATA),
            digest=SHA256,
        )
    return (directory / "file").read_bytes()


def refusal(server: FakeHub, directory: Path) -> str:
    """Returns the error of a fetch, which is one line and leaves nothing."""
    with pytest.raises(DownloadError) as raised:
        fetch(server, directory)
    assert "\n" not in str(raised.value)
    assert [file for file in directory.iterdir() if file.stat().st_size] == []
    return str(raised.value)


# Redirects


def test_https_leads_to_https_and_not_to_http(server: FakeHub, secure: FakeHub, tmp_path: Path) -> None:
    offered(secure).instead["file"] = redirect(f"{secure.url}{_PATH}next")
    assert fetch(secure, tmp_path) == DATA
    (tmp_path / "file").unlink()
    for first in (f"{server.url}{_PATH}file", f"{secure.url}{_PATH}next"):
        secure.instead |= {"file": redirect(first), "next": redirect(f"{server.url}{_PATH}file")}
        server.requests.clear()
        assert "redirects to http://127.0.0.1" in refusal(secure, tmp_path)
        assert server.requests == []


def test_http_leads_to_https(server: FakeHub, secure: FakeHub, tmp_path: Path) -> None:
    server.instead["file"] = redirect(f"{offered(secure).url}{_PATH}file")
    assert fetch(server, tmp_path) == DATA
    assert secure.tokens == [""]


def test_https_is_really_checked(server: FakeHub, certificate: Path, tmp_path: Path) -> None:
    with serve(certificate) as untrusted:
        assert "CERTIFICATE_VERIFY_FAILED" in refusal(offered(untrusted), tmp_path)
    assert untrusted.tokens == []


@pytest.mark.parametrize(
    "location",
    [
        "http://models.example/file",
        "//models.example/file",
        "file:///etc/hostname",
        "ftp://127.0.0.1/file",
        "gopher://127.0.0.1/",
        "unix:/run/docker.sock",
    ],
)
def test_other_schemes_and_hosts(location: str, server: FakeHub, tmp_path: Path) -> None:
    server.instead["file"] = redirect(location)
    assert "only https is followed, and http within one host" in refusal(server, tmp_path)


@pytest.mark.parametrize(
    "location", ["", "http://", "http://[", "http://x:99999999/", "https://\x01/", "https://xn--/", "data:text/plain,x"]
)
def test_addresses_that_are_none(location: str, server: FakeHub, tmp_path: Path) -> None:
    server.instead["file"] = redirect(location)
    assert refusal(server, tmp_path)


def test_a_redirect_that_never_ends(server: FakeHub, tmp_path: Path) -> None:
    server.instead |= {"file": redirect(f"{_PATH}next"), "next": redirect(f"{_PATH}file")}
    assert "leads to more than 8 redirects" in refusal(server, tmp_path)
    assert len(server.requests) == 9


def test_the_body_of_a_redirect_is_not_read(server: FakeHub, tmp_path: Path) -> None:
    server.instead["file"] = pieces(bytes(1 << 16), chunked=True, endless=True, status=302, Location=f"{_PATH}next")
    assert fetch(server, tmp_path) == DATA


def test_the_token_stays_with_its_host(server: FakeHub, tmp_path: Path) -> None:
    with serve() as other:
        server.instead["file"] = redirect(f"{_PATH}next")
        server.instead["next"] = redirect(f"{offered(other).url}{_PATH}file")
        assert fetch(server, tmp_path) == DATA
    assert server.tokens == [TOKEN, TOKEN]
    assert other.tokens == [""]


def test_errors_do_not_tell_what_is_secret_in_an_address(server: FakeHub, tmp_path: Path) -> None:
    server.instead["file"] = redirect("http://user:password@models.example/file?signature=key")
    told = refusal(server, tmp_path)
    assert "http://models.example/file," in told
    assert "password" not in told
    assert "key" not in told


# Sizes

LONGER = DATA + b"x"


@pytest.mark.parametrize(
    "answer",
    [
        sized(LONGER),
        pieces(DATA, b"x", chunked=True),
        pieces(DATA, b"x", chunked=False),
        pieces(LONGER, chunked=True, endless=True),
        pieces(bytes(1 << 16), chunked=False, endless=True),
    ],
)
def test_longer_bodies_are_cut_off(answer: Answer, server: FakeHub, tmp_path: Path) -> None:
    server.instead["file"] = answer
    assert f"has more bytes than the {len(DATA)} that are listed" in refusal(server, tmp_path)
    assert len(server.requests) == 1


def test_a_length_that_is_too_long_is_believed(server: FakeHub, tmp_path: Path) -> None:
    """The server waits, and nobody waits for it."""

    def announce(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "5000000000")
        handler.end_headers()
        handler.wfile.flush()

    server.instead["file"] = announce
    assert "has more bytes than" in refusal(server, tmp_path)


def test_the_rest_of_a_file_is_not_longer_either(server: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "file.partial").write_bytes(DATA[:5])
    server.instead["file"] = sized(LONGER[5:], 206)
    assert "has more bytes than" in refusal(server, tmp_path)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "\x1b[2J"])
def test_compressed_bodies_are_not_unpacked(encoding: str, server: FakeHub, tmp_path: Path) -> None:
    server.instead["file"] = sized(gzip.compress(bytes(1 << 20))[:5], Content_Encoding=encoding)
    assert "is sent compressed" in refusal(server, tmp_path)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_unknown_length_that_ends_early_is_continued(chunked: bool, server: FakeHub, tmp_path: Path) -> None:
    def begin(handler: Handler) -> None:
        del server.instead["file"]
        pieces(DATA[:5], chunked=chunked)(handler)

    server.instead["file"] = begin
    assert fetch(server, tmp_path) == DATA
    assert [asked for _, asked in server.requests] == ["", "bytes=5-"]


# Patience


def test_a_trickle_is_given_up(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 10)
    monkeypatch.setattr(web, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    server.instead["file"] = pieces(b"w", chunked=True, endless=True)
    with (
        pytest.raises(
            DownloadError, match=r"no connection to .*\(fewer than 64 kB in 60 s\); what has arrived is kept"
        ),
        transfer.explained("file", server.url),
    ):
        transfer.fetch(f"{server.url}{_PATH}file", tmp_path / "file", headers={}, most=1 << 40, digest=SHA256)
    assert len(server.requests) == 6
    assert (tmp_path / "file.partial").stat().st_size > 0


def test_a_slow_connection_is_not_given_up(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read takes 10 s, and brings at most 64 kB."""
    clock = itertools.count(0, 10)
    monkeypatch.setattr(web, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    data = bytes(2 << 20)
    server.repositories["a/b"]["main"]["file"] = data
    digest = transfer.Digest("sha256", hashlib.sha256(data).hexdigest())
    transfer.fetch(f"{server.url}{_PATH}file", tmp_path / "file", headers={}, most=len(data), digest=digest)
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=waits.append))
    answers = iter(
        [sized(b"", 429, Retry_After="7"), sized(b"", 503, Retry_After="99999"), sized(b"", 502), sized(DATA)]
    )
    server.instead["file"] = lambda handler: next(answers)(handler)
    assert fetch(server, tmp_path) == DATA
    assert waits == [7, 300, 4]
