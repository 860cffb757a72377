"""The JSON file of a table, which is written whole after each row, and from which an interrupted run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litevlm_ros.errors import ConfigError
from litevlm_ros.files import write_text
from litevlm_ros.lab.evaluation.table_origin import Origin, differences

ACCURACY, LATENCY = "accuracy", "latency"
"""The two halves, each with the rows by their names as JSON."""

ORIGIN = "measured_with"
"""The key of a row's origin."""

_MOST_DIFFERENCES = 4


class TableFile:
    """The rows that earlier runs have left in a file, and the place of those of this run.

    Without a file nothing is kept.
    """

    def __init__(self, file: Path | None, *, fresh: bool = False) -> None:
        """Reads `file` if it is there and not empty; `fresh` ignores what is in it.

        Raises ConfigError for something else than a table, and for what is no file.
        """
        self._file = file.resolve() if file else None
        self._rows: dict[str, Mapping[str, Any]] = {}
        if self._file is None or not self._file.exists():
            return
        if not self._file.is_file():
            raise ConfigError(f"--json: {file} is no regular file, in which an interrupted run could go on; name one")
        if not fresh and self._file.stat().st_size:
            self._rows = self._read(self._file)

    def fitting(self, half: str, origins: Mapping[str, Origin]) -> dict[str, Mapping[str, Any]]:
        """Returns the rows of `half` that have figures and are among `origins`.

        Raises ConfigError, which says what differs, if one of them has another origin.
        """
        fitting = {}
        for name, origin in origins.items():
            row = self.rows(half).get(name)
            # What could not run is tried again: somebody may have built what was missing.
            if row is None or row["obstacle"]:
                continue
            differing = differences(row[ORIGIN], origin)
            if differing:
                shown, more = differing[:_MOST_DIFFERENCES], len(differing) - _MOST_DIFFERENCES
                raise ConfigError(
                    f"--json: {self._file} has rows that were measured otherwise ({half} of {name}: {'; '.join(shown)}"
                    f"{f'; and {more} more' if more > 0 else ''}). Add --fresh to measure all rows anew, or name "
                    "another file"
                )
            fitting[name] = row
        return fitting

    def rows(self, half: str) -> Mapping[str, Any]:
        """Returns all rows of `half` that earlier runs have left."""
        return self._rows.get(half, {})

    def write(self, report: Mapping[str, Any]) -> None:
        """Puts `report` in place of the file. Raises OSError."""
        if self._file is not None:
            write_text(self._file, json.dumps(report) + "\n")

    @staticmethod
    def _read(file: Path) -> dict[str, Mapping[str, Any]]:
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
            rows = {half: report[half]["rows"] for half in (ACCURACY, LATENCY)}
            for row in (row for half in rows.values() for row in half.values()):
                row["obstacle"], row[ORIGIN].items()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"--json: {file} is no table of this version ({type(error).__name__}: {error}). Add --fresh to "
                "overwrite it, or name another file"
            ) from None
        return rows
