"""Unpacking of engines from a .tar.gz of somebody else: only plain files of expected names and bounded size."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

from litevlm_ros.download.staging import gigabytes
from litevlm_ros.errors import DownloadError, first_line
from litevlm_ros.model_directory import PARTS, engine_name, sidecar_file
from litevlm_ros.precision import PRECISIONS

ENGINE_NAMES = tuple(engine_name(part, precision) for part in PARTS for precision in PRECISIONS)
SIDECAR_NAMES = tuple(sidecar_file(Path(name)).name for name in ENGINE_NAMES)

_DAMAGE = (tarfile.TarError, EOFError, zlib.error, ValueError, ArithmeticError, RecursionError)
"""Exceptions of tarfile and gzip for archives that are damaged or made to harm; they do not check all numbers."""

_HEADERS = 1 << 20
_LARGEST_SIDECAR = 1 << 20


def extract_engines(archive: Path, directory: Path, limit: int) -> list[Path]:
    """Unpacks engines and sidecars, at most `limit` bytes, into `directory`. Returns the engines in order of name.

    Raises DownloadError if the archive is damaged, or holds anything else: other names, directories, links, devices,
    paths that lead elsewhere, a name twice, or more bytes. `directory` may hold some files by then.
    """
    try:
        with gzip.open(archive) as unzipped:
            stream = _Bounded(unzipped)
            with tarfile.open(fileobj=stream, mode="r|") as opened:  # type: ignore[call-overload]
                _extract(archive, opened, stream, directory, limit)
    except (*_DAMAGE, gzip.BadGzipFile) as error:
        raise DownloadError(f"{archive} is no .tar.gz, or is damaged ({first_line(error)}); fetch it again") from error
    except OSError as error:
        raise DownloadError(f"{archive} cannot be unpacked ({error.strerror or error})") from error
    engines = sorted(directory.glob("*.engine"))
    if not engines:
        raise DownloadError(f"{archive} holds no engines; allowed are {', '.join(ENGINE_NAMES)}")
    return engines


class _Bounded:
    """A stream that raises ReadError after `left` more bytes: a header's claim about its own size is not trusted."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self.file = file
        self.left = _HEADERS

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.ReadError("its headers are too large")
        return data


def _extract(archive: Path, opened: tarfile.TarFile, stream: _Bounded, directory: Path, limit: int) -> None:
    left = limit
    while (member := opened.next()) is not None:
        if member.isdir() and member.name in (".", "./"):
            continue
        name = member.name.removeprefix("./")
        target = directory / name
        if name not in (*ENGINE_NAMES, *SIDECAR_NAMES) or not member.isreg() or member.issparse():
            raise DownloadError(f"{archive} is refused: it holds {member.name!r}, and only plain files are allowed, "
                                f"called {', '.join(ENGINE_NAMES)}, and their .json")  # fmt: skip
        if target.exists():
            raise DownloadError(f"{archive} is refused: it holds {name} twice")
        allowed = min(left, _LARGEST_SIDECAR) if name in SIDECAR_NAMES else left
        if member.size > allowed:
            raise DownloadError(f"{archive} is refused: {name} has {gigabytes(member.size)}, and at most "
                                f"{gigabytes(allowed)} are allowed or free")  # fmt: skip
        left -= member.size
        stream.left = member.size + _HEADERS
        with target.open("xb") as file:
            shutil.copyfileobj(_contents(opened, member), file, 1 << 20)
        stream.left = _HEADERS


def _contents(opened: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    contents = opened.extractfile(member)
    assert contents is not None  # only other members than plain files have none
    return contents  # type: ignore[return-value]
