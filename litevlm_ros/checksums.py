"""The checksums of a model directory: size and SHA-256 of each file that this package wrote or downloaded there.

A network whose numbers have changed on disk answers on, with other words. So `checksums.json` lists the files when they
are made, and whoever reads one compares it. Files that are not listed are read as they are: a directory that somebody
put together by hand has no such list. Every load compares whole files, as a bad disk changes neither size nor time of a
file. What changes in memory, or on disk after the file was read, is not noticed. Nor are changes by somebody who can
write the list too: it tells damage, not intent.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from litevlm_ros.errors import CheckpointError, LiteVLMError
from litevlm_ros.files import write_text
from litevlm_ros.mending import accept_command, mend_advice
from litevlm_ros.model_directory import CHECKSUMS, HEAD_DIRECTORY, PARTS, WEIGHTS_INDEX, weight_files

FORMAT = 1
"""The version of the JSON. Readers refuse other numbers."""

_CHUNK = 1 << 22
_BESIDE = re.compile(r"\.onnx(\.data)?$")
"""The names of files in a model directory itself that are listed."""
_READ_FIRST = 64 << 20
"""Bytes of a file up to which it is compared before others read it; larger ones are compared while they are read."""


@dataclass(frozen=True)
class Checksum:
    """The size of a file in bytes, and its SHA-256 as hex digits."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, file: Path) -> Checksum:
        """Reads `file`. Raises OSError."""
        return cls(file.stat().st_size, hash_file(file))

    def difference(self, file: Path) -> str:
        """Says in what `file` differs, or why it cannot be read, as from a bad disk; '' if it is the same."""
        try:
            difference = self.size_difference(file)
            return difference or ("" if hash_file(file) == self.sha256 else "its SHA-256 is another one")
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"

    def size_difference(self, file: Path) -> str:
        """Says whether `file` is missing or of another size, '' if neither. Reads no contents. Raises OSError."""
        if not file.is_file():
            return "it is missing"
        size = file.stat().st_size
        return "" if size == self.bytes else f"it has {size} bytes instead of {self.bytes}"


def hash_file(file: Path) -> str:
    """Returns the SHA-256 of a file's bytes as hex digits. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# The list


def listed(model: Path) -> dict[str, Checksum]:
    """Reads the list of a model directory: paths relative to it → checksums; {} if it has none.

    Raises CheckpointError if the list is damaged.
    """
    file = model / CHECKSUMS
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        found = {name: Checksum(**entry) for name, entry in values["files"].items()}
        if not all(type(each.bytes) is int and type(each.sha256) is str for each in found.values()):
            raise ValueError("a size is no integer, or a SHA-256 no text")
        return found
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{file} cannot be used ({error}), so it is not known whether the files beside it are whole. Copy it again "
            f"from where the model came from, or list the files anew as they are with `{accept_command(model)}`"
        ) from error


def accept(model: Path) -> list[str]:
    """Lists all files of a model as they are, whatever the list was before, damaged or not. Returns their names.

    They are the files in the directories of parts, and graphs with the weights beside them. Raises OSError.
    """
    found = [path for path in model.iterdir() if path.is_file() and _BESIDE.search(path.name)]
    found += [path for part in (*PARTS, HEAD_DIRECTORY) if (model / part).is_dir() for path in (model / part).iterdir()]
    names = sorted(path.relative_to(model).as_posix() for path in found if path.is_file() and path.name[0] != ".")
    _write(model, {name: Checksum.of(model / name) for name in names})
    return names


@contextlib.contextmanager
def rewriting(model: Path, *paths: str) -> Iterator[None]:
    """Keeps the list right while the block replaces files, or directories of files, of a model directory.

    They are off the list meanwhile, so that a tool that is killed leaves no entry that refuses a whole file. After an
    exception their old entries are back. Raises OSError, and CheckpointError if the list is damaged.
    """

    def is_meant(name: str) -> bool:
        return any(Path(name).is_relative_to(path) for path in paths)

    before = {name: each for name, each in listed(model).items() if is_meant(name)}
    if before:
        _change(model, lambda files: {name: each for name, each in files.items() if not is_meant(name)})
    try:
        yield
    except BaseException:
        if before:
            _change(model, lambda files: {**files, **before})
        raise
    _record(model, [name for path in paths for name in _files_of(model, path)])


def _record(model: Path, names: list[str]) -> None:
    """Lists files as they are now; those that are not there are taken off."""
    found = {name: Checksum.of(model / name) for name in names if (model / name).is_file()}
    _change(model, lambda files: {**{name: each for name, each in files.items() if name not in names}, **found})


def _files_of(model: Path, path: str) -> list[str]:
    found = model / path
    return [f"{path}/{each.name}" for each in sorted(found.iterdir()) if each.is_file()] if found.is_dir() else [path]


def _change(model: Path, change: Callable[[Mapping[str, Checksum]], Mapping[str, Checksum]]) -> None:
    """Changes the list while no other process does."""
    directory = os.open(model, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        _write(model, change(listed(model)))
    finally:
        os.close(directory)


def _write(model: Path, files: Mapping[str, Checksum]) -> None:
    entries = {name: asdict(each) for name, each in sorted(files.items())}
    write_text(model / CHECKSUMS, json.dumps({"format": FORMAT, "files": entries}, indent=2) + "\n")


# Comparison


@contextlib.contextmanager
def unchanged(*files: Path) -> Iterator[None]:
    """Compares files of model directories with their lists, while the block reads them.

    Files up to 64 MB are compared before the block, since native code that reads a damaged one may end the process.
    Raises CheckpointError, with the command that mends the file, if one has changed; also in place of what the block
    raises then.
    """
    entries = {file: entry for file in files if (entry := _entry(file))}
    checksums = {file: entry.checksum for file, entry in entries.items()}
    with comparing(checksums, lambda file, difference: _refusal(file, entries[file], difference)):
        yield


@contextlib.contextmanager
def unchanged_graph(file: Path) -> Iterator[None]:
    """Compares an ONNX graph, and all files that it reads weights from, as `unchanged` does."""
    with unchanged(file), unchanged(*_weights_of(file)):
        yield


def check_part(model: Path, part: str) -> None:
    """Compares the listed files in the directory of a part, VISION or TEXT, but for its weights.

    Raises CheckpointError as `unchanged` does.
    """
    with unchanged(*(model / name for name in listed(model) if _describes(name, part))):
        pass


@contextlib.contextmanager
def unchanged_weights(directory: Path) -> Iterator[None]:
    """Compares the weights in the directory of a part as `unchanged` does."""
    with unchanged(*weight_files(directory), directory / WEIGHTS_INDEX):
        yield


def check_weights(directory: Path) -> None:
    """Compares the weights in the directory of a part. Raises CheckpointError as `unchanged` does."""
    with unchanged_weights(directory):
        pass


@contextlib.contextmanager
def comparing(files: Mapping[Path, Checksum], refusal: Callable[[Path, str], LiteVLMError]) -> Iterator[None]:
    """Compares files with their checksums while the block reads them.

    `refusal` makes the exception for a file, of what `Checksum.difference` says.
    """

    def compare(file: Path, checksum: Checksum) -> LiteVLMError | None:
        difference = checksum.difference(file)
        return refusal(file, difference) if difference else None

    large = {file: checksum for file, checksum in files.items() if checksum.bytes > _READ_FIRST}
    for file, checksum in files.items():
        if file not in large and (error := compare(file, checksum)):
            raise error
    if not large:
        yield
        return
    with ThreadPoolExecutor(len(large), "checksum") as threads:
        comparisons = [threads.submit(compare, *each) for each in large.items()]
        try:
            yield
        except Exception as problem:
            if error := next(filter(None, (each.result() for each in comparisons)), None):
                raise error from problem
            raise
        if error := next(filter(None, (each.result() for each in comparisons)), None):
            raise error


def changed_files(model: Path) -> dict[str, str]:
    """Returns what is wrong with each listed file that has changed, by its name. Raises CheckpointError."""
    differences = {name: checksum.difference(model / name) for name, checksum in listed(model).items()}
    return {name: difference for name, difference in differences.items() if difference}


def _describes(name: str, part: str) -> bool:
    return Path(name).parent == Path(part) and not name.endswith(".safetensors")


@dataclass(frozen=True)
class _Entry:
    """One line of a list: the model directory, the path in it, and the checksum."""

    model: Path
    name: str
    checksum: Checksum


def _entry(file: Path) -> _Entry | None:
    """Returns the line about a file, or None if no list names it."""
    for model in (file.parent, file.parent.parent):
        name = file.relative_to(model).as_posix()
        if checksum := listed(model).get(name):
            return _Entry(model, name, checksum)
    return None


def _weights_of(graph: Path) -> list[Path]:
    """Returns the listed files that a graph reads weights from: it names them in plain text.

    Graphs of more than 64 MB are not searched, as such a graph holds its weights itself.
    """
    try:
        contents = graph.read_bytes() if graph.stat().st_size <= _READ_FIRST else b""
    except OSError:  # which ONNX Runtime will explain
        return []
    return [graph.parent / name for name in listed(graph.parent) if name.encode() in contents]


def _refusal(file: Path, entry: _Entry, difference: str) -> CheckpointError:
    return CheckpointError(
        f"{file} has changed since it was made: {difference}. {mend_advice(entry.model, entry.name)}. If you changed "
        f"it on purpose, accept it as it is with `{accept_command(entry.model)}`"
    )
