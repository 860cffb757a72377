"""Download of one file over HTTP: continued where it broke off, checked against its hash, renamed when it is complete.

huggingface_hub's `snapshot_download` does not replace this: it deletes the part that has arrived when a transfer breaks
off, which for a checkpoint is a file of 2 GB, and does not compare the contents with the hub's hash.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get

from litevlm_ros.errors import DownloadError

_CHUNK = 1 << 22


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


def fetch(
    url: str, target: Path, *, headers: dict[str, str], size: int | None = None, digest: Digest | None = None
) -> None:
    """Downloads `url` to `target`, with a progress bar; `size` is in bytes.

    The bytes go to `target`.partial, which is kept when the transfer breaks off and, if `size` is known, continued by
    the next call. Raises the exceptions of huggingface_hub, httpx and the disk, which `explained` turns into
    DownloadError, and DownloadError if the contents do not have the hash `digest`; they are deleted then.
    """
    partial = target.with_name(f"{target.name}.partial")
    with partial.open("ab") as file:
        if size is None or file.tell() > size:
            file.seek(0)
            file.truncate()
        # A compressed transfer would have another size than the file.
        headers = {**headers, "Accept-Encoding": "identity"}
        while True:
            start = file.tell()
            try:
                http_get(
                    url, file, resume_size=start, headers=headers, expected_size=size, displayed_filename=target.name
                )
                break
            except httpx.TransportError:  # http_get has tried again, but not after every kind of it
                if file.tell() == start:
                    raise
    if digest is not None and not digest.matches(partial):
        partial.unlink()
        raise DownloadError(
            f"{url} is not the file that the hub lists: its {digest.kind} hash is not {digest.value}. "
            "It was deleted; run the command again, or give another --endpoint if this one is a mirror"
        )
    partial.replace(target)


@contextmanager
def explained(what: str, endpoint: str) -> Iterator[None]:
    """Turns what huggingface_hub, httpx or the disk raise while `what` is fetched into a DownloadError with the fix."""
    again = "what has arrived is kept: run the command again to continue"
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise DownloadError(
            f"{what} cannot be fetched: HF_HUB_OFFLINE is set. Unset it, or give --model the directory of a checkpoint "
            "that was downloaded elsewhere"
        ) from error
    except GatedRepoError as error:
        raise DownloadError(
            f"{what} is gated: accept its licence on its page at {endpoint}, then set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(
            f"{what} is not at {endpoint}, or it is private. Check --model; for a private repository set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{what} has no such revision at {endpoint}. Check --revision") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = "it is not there" if status in (404, 410) else again
        raise DownloadError(f"{what}: {endpoint} answered with HTTP status {status}; {advice}") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise DownloadError(
            f"{what}: no connection to {endpoint} ({error or type(error).__name__}); {again}. Check the network, or "
            "name a mirror with --endpoint or HF_ENDPOINT"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(f"{what}: the disk is full; free some room and run the command again") from error
        reason = error.strerror or str(error).splitlines()[0]
        raise DownloadError(f"{what} broke off ({reason}); {again}") from error
