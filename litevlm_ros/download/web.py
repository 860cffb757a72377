"""Requests to servers that may be broken or hostile: where redirects may lead, how much is read, and how slowly.

huggingface_hub's own client follows every redirect and reads every body to its end, so only its settings are used here:
the user's token, and offline mode.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
from huggingface_hub import constants

from litevlm_ros.errors import DownloadError, printable

THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
"""Hosts to which an unencrypted connection leaves nobody in between."""

_MOST_HOPS = 8
"""Redirects that one request may take. A hub needs one to its storage, and one more for a renamed repository."""

_SECONDS = 30.0
"""Time after which a server that sends nothing is given up."""

_SLOW_SECONDS, _SLOW_BYTES = 60.0, 1 << 16
"""A body of which fewer bytes arrive in so many seconds is given up: 8 kbit/s, slower than every mobile connection."""


_ELSEWHERE = "take it from another server, with --endpoint, or another URL of --prebuilt"


class StatusError(Exception):
    """A server answered with another status than success. `code` is the reason as a hub words it, '' for none."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"HTTP status {response.status_code}")
        self.status = response.status_code
        self.code = response.headers.get("X-Error-Code", "")
        told = response.headers.get("Retry-After", "")
        self.retry_after = float(told) if told.isascii() and told.isdigit() and len(told) < 6 else 0.0
        """Seconds after which the server wants to be asked again; 0 if it does not say so."""

    @property
    def is_passing(self) -> bool:
        """True if the same request may succeed a little later."""
        return self.status in (408, 429, 502, 503, 504)


class WrongContentsError(DownloadError):
    """A server sends other bytes than those that are listed, so what has arrived of them is of no use."""


class OfflineError(Exception):
    """The user has asked huggingface_hub to stay off the network."""


@contextmanager
def answer(url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
    """Yields the answer to GET `url`, whose body is not read yet, with the status 200 or 206.

    A redirect from https to http is not followed, nor one over http to another host. The user's token among
    `headers` is not sent to another host. Raises DownloadError for such a redirect, StatusError, OfflineError, httpx's
    TransportError and InvalidURL.
    """
    if constants.HF_HUB_OFFLINE:
        raise OfflineError
    # A compressed body would have another size than the file, and could unpack to any.
    headers = {**headers, "Accept-Encoding": "identity"}
    timeout = max(_SECONDS, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    with httpx.Client(timeout=timeout) as client:
        with _explaining_addresses():
            request = client.build_request("GET", url, headers=headers)
        for _ in range(_MOST_HOPS + 1):
            with _explaining_addresses():
                response = client.send(request, stream=True, follow_redirects=False)
            try:
                if response.next_request is None:
                    if response.status_code not in (200, 206):
                        raise StatusError(response)
                    yield response
                    return
                # Its headers are those of `request`, without the token if it leads to another host.
                _check_hop(request.url, response.next_request.url)
                request = response.next_request
            finally:
                response.close()
    raise DownloadError(f"{_shown(httpx.URL(url))} leads to more than {_MOST_HOPS} redirects; {_ELSEWHERE}")


def body(response: httpx.Response, most: int) -> Iterator[bytes]:
    """Yields the body of an answer in pieces, as they arrive.

    Raises WrongContentsError as soon as it has more than `most` bytes, DownloadError if it is compressed, and
    httpx.TransportError if it breaks off or arrives too slowly.
    """
    url = _shown(response.url)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise DownloadError(f"{url} is sent compressed ({printable(encoding)}), which was not asked for; {_ELSEWHERE}")
    told = response.headers.get("Content-Length", "0")
    arrived = int(told) if told.isascii() and told.isdigit() and len(told) < 20 else 0
    if arrived > most:
        raise _too_long(url, most)
    arrived, then, since = 0, 0, time.monotonic()
    for piece in response.iter_raw():
        arrived += len(piece)
        if arrived > most:
            raise _too_long(url, most)
        yield piece
        if time.monotonic() - since > _SLOW_SECONDS:
            if arrived - then < _SLOW_BYTES:
                raise httpx.ReadTimeout(f"fewer than {_SLOW_BYTES >> 10} kB in {_SLOW_SECONDS:.0f} s")
            then, since = arrived, time.monotonic()


def read(url: str, headers: Mapping[str, str], most: int) -> bytes:
    """Returns what is at `url`, at most `most` bytes. Raises what `answer` and `body` raise."""
    with answer(url, headers) as response:
        return b"".join(body(response, most))


@contextmanager
def _explaining_addresses() -> Iterator[None]:
    """Turns what the package idna raises for the name of a host into httpx's InvalidURL."""
    try:
        yield
    except ValueError as error:
        raise httpx.InvalidURL(str(error)) from error


def _shown(url: httpx.URL) -> str:
    """Returns an address without the passwords that it may hold."""
    return printable(str(url.copy_with(query=None, fragment=None, userinfo=b"")), 200)


def _check_hop(here: httpx.URL, there: httpx.URL) -> None:
    same_host = here.host == there.host or (here.host in THIS_MACHINE and there.host in THIS_MACHINE)
    if there.scheme == "https" or (there.scheme == here.scheme == "http" and same_host):
        return
    raise DownloadError(
        f"{_shown(here)} redirects to {_shown(there)}, and whoever is in between could change what comes from there; "
        f"only https is followed, and http within one host. So {_ELSEWHERE}"
    )


def _too_long(url: str, most: int) -> WrongContentsError:
    return WrongContentsError(
        f"{url} has more bytes than the {most} that are listed or allowed, so it was stopped; {_ELSEWHERE}"
    )
