"""A Hugging Face hub on this machine, which answers the two requests of a download and can go wrong in many ways.

It can be hostile too: `FakeHub.instead` replaces the answer to a request by one of the functions at the end.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LISTING = "listing"
"""Stands for the listing among the names of files in `FakeHub.instead`."""

LARGE = 10_000
"""Files of this size and above are stored with Git LFS, and served from elsewhere by a redirect."""


@dataclass
class FakeHub:
    """`repositories` maps a name to its commits, a commit to its files; `branches` maps (name, branch) to a commit."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    licence: str = "mit"
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """The path and Range header of every request for a file's bytes."""
    tokens: list[str] = field(default_factory=list)
    """The Authorization header of every request, '' for none."""
    instead: dict[str, Answer] = field(default_factory=dict)
    """For each file name, or LISTING, what answers the requests for it."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """For each file name the numbers of bytes after which its next transfers are cut off."""
    corrupt: set[str] = field(default_factory=set)
    """Names of files whose bytes do not have the listed hash."""
    status: int = 0
    """HTTP status of the answer to every request; 0 for right answers."""
    page: bytes = b""
    """Answer to every listing, as from a portal that wants a login; empty for right answers."""

    def publish(self, repository: str, directory: Path, commit: str, branch: str = "main") -> None:
        """Offers the files of `directory`, with their subdirectories, as a commit at the head of a branch."""
        files = {
            file.relative_to(directory).as_posix(): file.read_bytes() for file in directory.rglob("*") if file.is_file()
        }
        self.repositories.setdefault(repository, {})[commit] = files
        self.branches[repository, branch] = commit

    def listing(self, repository: str, revision: str, blobs: bool) -> dict[str, Any] | None:
        """Returns the JSON of a listing, with sizes and hashes if `blobs`; None for an unknown revision."""
        commit = self.branches.get((repository, revision), revision)
        files = self.repositories[repository].get(commit)
        if files is None:
            return None
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in sorted(files)]
        for sibling in siblings if blobs else ():
            data = files[sibling["rfilename"]]
            sibling |= {"size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
            if len(data) >= LARGE:
                sibling["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return {"id": repository, "sha": commit, "siblings": siblings, "cardData": {"license": self.licence}}


class Handler(BaseHTTPRequestHandler):
    """One request to a FakeHub."""

    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        """Answers it."""
        self.hub.tokens.append(self.headers.get("Authorization", ""))
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path)
        file = re.fullmatch(r"/(?:cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = LISTING if api else file[3] if file else ""
        if self.hub.status:
            self.answer(self.hub.status)
        elif name in self.hub.instead:
            if not api:
                self.hub.requests.append((path, self.headers.get("Range", "")))
            self.hub.instead[name](self)
        elif api and self.hub.page:
            self.answer(200, self.hub.page)
        elif api and api[1] in self.hub.repositories:
            found = self.hub.listing(api[1], api[2], "blobs" in parse_qs(parts.query))
            if found is None:
                self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
            else:
                self.answer(200, json.dumps(found).encode())
        elif file and file[3] in self.hub.repositories.get(file[1], {}).get(file[2], {}):
            self.send_file(self.hub.repositories[file[1]][file[2]][file[3]], file[3], path)
        else:
            self.answer(404, headers={"X-Error-Code": "EntryNotFound" if file else "RepoNotFound"})

    def send_file(self, data: bytes, name: str, path: str) -> None:
        """Sends a file, or a redirect to where it is stored, or what the hub is told to send of it."""
        if len(data) >= LARGE and not path.startswith("/cdn/"):
            self.answer(302, headers={"Location": f"/cdn{path}"})
            return
        asked = self.headers.get("Range", "")
        self.hub.requests.append((path, asked))
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if start >= len(data) > 0:
            self.answer(416)
            return
        if name in self.hub.corrupt:
            data = bytes(len(data))
        body, headers = data[start:], {"ETag": '"x"'}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cuts = self.hub.cuts.get(name, [])
        self.answer(206 if asked else 200, body, headers, cut=cuts.pop(0) if cuts else len(body))

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, cut: int = -1) -> None:
        """Sends an answer, of whose `body` only the first `cut` bytes arrive if that is not negative."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut < 0 else body[:cut])
        self.close_connection = 0 <= cut < len(body)

    def log_message(self, *arguments: Any) -> None:
        """Logs nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that has hung up
            super().handle_error(request, client_address)


Answer = Callable[[Handler], None]


def redirect(location: str, body: bytes = b"") -> Answer:
    """Sends the client elsewhere."""
    return lambda handler: handler.answer(302, body, {"Location": location})


def sized(body: bytes, status: int = 200, **headers: str) -> Answer:
    """Sends `body` and its length; `headers` have underscores for hyphens."""
    return lambda handler: handler.answer(
        status, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def pieces(*parts: bytes, chunked: bool, endless: bool = False, status: int = 200, **headers: str) -> Answer:
    """Sends parts without saying how many bytes they are, the last one again and again if it is `endless`.

    A client that has gone ends it. `headers` are as for `sized`.
    """

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header(*("Transfer-Encoding", "chunked") if chunked else ("Connection", "close"))
        handler.end_headers()
        handler.close_connection = True
        try:
            for part in chain(parts, repeat(parts[-1]) if endless else ()):
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                handler.wfile.flush()
            if chunked:
                handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass

    return answer


@contextmanager
def serve(certificate: Path | None = None) -> Iterator[FakeHub]:
    """Yields a hub without repositories that runs until the block ends.

    It is reached by https if it gets a `certificate`, a file that holds its key too.
    """
    hub = FakeHub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            hub.url = hub.url.replace("http", "https")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
