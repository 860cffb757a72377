"""Download of one file over HTTP: continued where it broke off, checked against its hash, renamed when it is complete.

huggingface_hub's `snapshot_download` does not replace this: it deletes the part that has arrived when a transfer breaks
off, which for a checkpoint is a file of 2 GB, and does not compare the contents with the hub's hash.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from litevlm_ros.download import web
from litevlm_ros.errors import DownloadError, first_line, printable

_CHUNK = 1 << 22

_ATTEMPTS = 6
"""Transfers in a row that may bring next to nothing before the server is given up."""
_PROGRESS = 1 << 16
"""Bytes of one transfer that count as something."""
_PAUSE = 1.0
"""Seconds before the first repetition; each further one waits twice as long."""
_LONGEST_PAUSE = 300.0
"""Seconds, however long a server asks to wait; huggingface.co counts requests in windows of this length."""


@dataclass(frozen=True)
class Digest:
    """A hub's hash of a file: of `kind` 'sha256' for a large one, else 'blob', git's hash (SHA-1)."""

    kind: str
    value: str

    def matches(self, file: Path) -> bool:
        """Tells whether `file` has this hash. Raises OSError."""
        digest = hashlib.sha256() if self.kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if self.kind == "blob":
            digest.update(f"blob {file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == self.value


def fetch(url: str, target: Path, *, headers: Mapping[str, str], most: int, digest: Digest | None = None) -> None:
    """Downloads `url` to `target`, with a progress bar.

    At most `most` bytes are taken; a file that has a `digest` has exactly so many. The bytes go to `target`.partial,
    which is kept when the transfer breaks off and, of a file with a digest, continued by the next call. Raises
    DownloadError if there are more bytes or the contents do not have the hash; they are deleted then. Also raises what
    `web.answer` raises, and the exceptions of the disk, all of which `explained` turns into DownloadError.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        with partial.open("ab") as file:
            if digest is None or file.tell() > most:
                _empty(file)
            if digest is None or file.tell() < most:
                _transfer(url, file, headers, most, digest, target.name)
        if digest is not None and not digest.matches(partial):
            raise web.WrongContentsError(f"{url} is not the file that the hub lists: its {digest.kind} hash is not "
                                f"{digest.value}. {_DELETED}")  # fmt: skip
    except web.WrongContentsError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(target)


_DELETED = "It was deleted; run the command again, or give another --endpoint if this one is a mirror"


def _transfer(
    url: str, file: BinaryIO, headers: Mapping[str, str], most: int, digest: Digest | None, name: str
) -> None:
    """Appends to `file` what it lacks, in as many attempts as it takes while they bring something."""
    total = None if digest is None else most
    failures = 0
    with tqdm(total=total, initial=file.tell(), desc=name, unit="B", unit_scale=True, disable=None) as bar:
        while True:
            start, pause = file.tell(), _PAUSE * 2**failures
            try:
                _append(url, file, headers, most, bar)
                if digest is None or file.tell() == most:
                    return
                raise httpx.RemoteProtocolError(f"it ended after {file.tell()} of {most} bytes")
            except httpx.TransportError:
                failures = failures + 1 if file.tell() - start < _PROGRESS else 0
                if failures == _ATTEMPTS:
                    raise
            except web.StatusError as error:
                if error.status == 416 and start:
                    raise web.WrongContentsError(
                        f"{url} has fewer bytes than the {most} that are listed. {_DELETED}"
                    ) from error
                failures += 1
                if failures == _ATTEMPTS or not error.is_passing:
                    raise
                pause = min(max(pause, error.retry_after), _LONGEST_PAUSE)
            time.sleep(pause)


def _append(url: str, file: BinaryIO, headers: Mapping[str, str], most: int, bar: tqdm) -> None:
    """Appends the bytes from the end of `file` on; if the server begins at the first one, so does the file."""
    if start := file.tell():
        headers = {**headers, "Range": f"bytes={start}-"}
    with web.answer(url, headers) as response:
        if start and response.status_code == 200:
            _empty(file)
            bar.update(-start)
        for piece in web.body(response, most - file.tell()):
            file.write(piece)
            bar.update(len(piece))


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


@contextmanager
def explained(what: str, endpoint: str) -> Iterator[None]:
    """Turns what web servers or the disk raise while `what` is fetched into a DownloadError with the fix."""
    again = "what has arrived is kept: run the command again to continue"
    try:
        yield
    except web.OfflineError as error:
        raise DownloadError(
            f"{what} cannot be fetched: HF_HUB_OFFLINE is set. Unset it, or give --model the directory of a checkpoint "
            "that was downloaded elsewhere"
        ) from error
    except web.StatusError as error:
        raise DownloadError(_refusal(error, what, endpoint, again)) from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = printable(first_line(error), 200)
        raise DownloadError(
            f"{what}: no connection to {endpoint} ({reason}); {again}. Check the network, or name a mirror with "
            "--endpoint or HF_ENDPOINT"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(f"{what}: the disk is full; free some room and run the command again") from error
        raise DownloadError(f"{what} broke off ({error.strerror or first_line(error)}); {again}") from error


def _refusal(error: web.StatusError, what: str, endpoint: str, again: str) -> str:
    """Says in words why a hub answered with a status that is none of success."""
    if error.code == "GatedRepo":
        return f"{what} is gated: accept its licence on its page at {endpoint}, then set HF_TOKEN"
    if error.code == "RevisionNotFound":
        return f"{what} has no such revision at {endpoint}. Check --revision"
    if error.code == "RepoNotFound" or error.status == 401:
        return f"{what} is not at {endpoint}, or it is private. Check --model; for a private repository set HF_TOKEN"
    advice = "it is not there" if error.status in (404, 410) else again
    return f"{what}: {endpoint} answered with HTTP status {error.status}; {advice}"
