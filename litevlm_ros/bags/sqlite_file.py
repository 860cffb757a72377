"""One sqlite3 file (.db3) of a recording, also one that is cut off or has damaged pages.

SQLite finds a message by its id without reading others, so those on sound pages can be read beside damaged ones.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from litevlm_ros.bags.storage import BagError, Channel, Contents, Message

MAGIC = b"SQLite format 3\0"
"""The first bytes of a file."""

_UNFINISHED = ("-wal", "-journal")
"""Ends of the names of files in which SQLite keeps what it had not yet written, or will take back, after a crash."""
_MOST_IDS_TRIED = 20_000
"""The most ids that are tried one by one where the table cannot be read."""
_LARGEST_ID = 2**62


class SqliteFile:
    """A `StorageFile` in sqlite3."""

    def __init__(self, path: Path, scratch: Path) -> None:
        """Finds the topics and counts their messages.

        A file that its recorder left unfinished is copied to the directory `scratch` and finished there, since SQLite
        would write to it. Raises OSError, and BagError if the file has no topics.
        """
        self.damages: list[str] = []
        self._database = _finished(path, scratch)
        with self._open() as database:
            try:
                rows = database.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
                self._channels = {int(row[0]): Channel(*map(str, row[1:])) for row in rows}
            except sqlite3.Error as error:
                raise BagError(f"{path} cannot be read: its table of topics is damaged or missing ({error})") from error
            self.contents = self._find(database)

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yields the messages on these topics that can be read, in the order of recording. Raises OSError."""
        chosen = {number: channel for number, channel in self._channels.items() if channel.topic in topics}
        with self._open() as database:
            unread = 0
            for identity in self._ids(database, list(chosen)):
                try:
                    row = _row(database, "topic_id, timestamp, data", identity)
                except sqlite3.Error:
                    unread += 1
                    continue
                if row is None or row[0] not in chosen:
                    continue
                if isinstance(row[1], int) and isinstance(row[2], bytes):
                    yield Message(chosen[row[0]], row[1], row[2])
                else:
                    unread += 1
            if unread:
                self._tell(f"{unread} messages lie on damaged pages")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # `immutable` keeps SQLite from writing beside the file; `writable_schema` lets it read one that was cut off.
        database = sqlite3.connect(f"file:{quote(str(self._database))}?mode=ro&immutable=1", uri=True)
        try:
            database.text_factory = lambda text: text.decode(errors="replace")
            database.execute("PRAGMA writable_schema=ON")
            yield database
        finally:
            database.close()

    def _find(self, database: sqlite3.Connection) -> Contents:
        try:
            counts = dict(database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
            start, end = database.execute("SELECT min(timestamp), max(timestamp) FROM messages").fetchone()
        except sqlite3.Error as error:
            self._tell(f"its pages are damaged or missing ({error})")
            counts = Counter[int]()
            times: list[int] = []
            for identity in _ids_by_search(database):
                with contextlib.suppress(sqlite3.Error):
                    topic, time = _row(database, "topic_id, timestamp", identity) or (0, 0)
                    counts[topic] += 1
                    times += [time] * isinstance(time, int)
            start, end = min(times, default=0), max(times, default=0)
        if not isinstance(start, int) or not isinstance(end, int):
            start, end = 0, 0
        return Contents({item: counts.get(number, 0) for number, item in self._channels.items()}, start, end)

    def _ids(self, database: sqlite3.Connection, channels: list[int]) -> list[int]:
        """Returns the ids of the messages of these channels, and others too where the index is damaged."""
        marks = ",".join("?" * len(channels))
        query = f"SELECT id FROM messages WHERE topic_id IN ({marks}) ORDER BY timestamp, id"
        try:
            return [row[0] for row in database.execute(query, channels)]
        except sqlite3.Error as error:
            self._tell(f"its pages are damaged or missing ({error})")
            return list(_ids_by_search(database))

    def _tell(self, damage: str) -> None:
        if damage not in self.damages:
            self.damages.append(damage)


def _row(database: sqlite3.Connection, columns: str, identity: int) -> tuple[Any, ...] | None:
    return database.execute(f"SELECT {columns} FROM messages WHERE id = ?", (identity,)).fetchone()


def _ids_by_search(database: sqlite3.Connection) -> Iterator[int]:
    """Yields the ids of messages that can be found beside damaged pages, in their order."""
    place, gap, stride, tries = 1, 0, 1, _MOST_IDS_TRIED
    while place < _LARGEST_ID:
        found = _next_id(database, place)
        if found == 0:
            gap = gap or place
            place += stride
            stride *= 2
            continue
        if found is None:
            break
        for identity in range(gap, min(found, gap + tries)) if gap else ():
            tries -= 1
            if _next_id(database, identity, exactly=True):
                yield identity
        yield found
        place, gap, stride = found + 1, 0, 1
    for identity in range(gap, min(place, gap + tries)) if gap else ():
        if _next_id(database, identity, exactly=True):
            yield identity


def _next_id(database: sqlite3.Connection, place: int, *, exactly: bool = False) -> int | None:
    """Returns the next id from `place` on, or `place` itself if it must be there `exactly`.

    The id is None if there is none, and 0 if a damaged page is in the way.
    """
    try:
        query = f"SELECT id FROM messages WHERE id {'=' if exactly else '>='} ? ORDER BY id LIMIT 1"
        row = database.execute(query, (place,)).fetchone()
    except sqlite3.Error:
        return 0
    if row is None:
        return None
    # Damaged pages can lead anywhere, also back.
    return row[0] if isinstance(row[0], int) and row[0] >= place else 0


def _finished(path: Path, scratch: Path) -> Path:
    """Returns the file, or a copy of it in which SQLite has finished what its recorder had not."""
    beside = [path.with_name(path.name + end) for end in _UNFINISHED]
    beside = [file for file in beside if file.is_file() and file.stat().st_size]
    if not beside:
        return path
    needed, free = sum(file.stat().st_size for file in (path, *beside)), shutil.disk_usage(scratch).free
    if needed > free:
        raise BagError(
            f"{path} was not finished by its recorder, so a copy of it must be finished in {scratch}, which has only "
            f"{free >> 20} MB free of {needed >> 20}; set TMPDIR to a directory on a larger disk"
        )
    for file in (path, *beside):
        shutil.copyfile(file, scratch / file.name)
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(scratch / path.name)) as database:
        # The first access finishes; the log is then written into the file, because `immutable` does not look beside it.
        database.execute("SELECT count(*) FROM sqlite_master").fetchall()
        database.execute("PRAGMA journal_mode=DELETE").fetchall()
    return scratch / path.name
