"""The accuracy half in a file, so that another machine can measure the other half for the same answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.table import Origin
from litevlm_ros.lab.evaluation.table_accuracy import Given, RowAccuracy
from litevlm_ros.lab.evaluation.table_questions import AskedQuestion, six_view_questions

Half = tuple[dict[str, RowAccuracy], Origin]


def accuracy_json(
    accuracy: Mapping[str, RowAccuracy], origin: Origin, asked: Sequence[AskedQuestion]
) -> dict[str, Any]:
    """All that `read_accuracy` needs."""
    return {
        "origin": asdict(origin),
        "questions": [one.question.text for one in asked],
        "rows": {
            name: {
                "backend": row.backend,
                "obstacle": row.obstacle,
                "given": [list(vars(one).values()) for one in row.given],
            }
            for name, row in accuracy.items()
        },
    }


def read_accuracy(file: Path, names: Sequence[str]) -> tuple[Half, list[AskedQuestion]]:
    """The accuracy half of an earlier table, and its questions. Rows that it lacks say so.

    Raises ConfigError for a file that cannot be read, or whose questions are not what this version asks.
    """
    try:
        half = json.loads(file.read_text(encoding="utf-8"))["accuracy"]
        origin = Origin(**half["origin"])
        asked = six_view_questions(origin.seed, origin.questions)
        rows = {
            name: RowAccuracy(
                [Given(text, tuple(cameras), *rest) for text, cameras, *rest in row["given"]],
                row["backend"],
                row["obstacle"],
            )
            for name, row in half["rows"].items()
        }
        questions = half["questions"]
    except OSError as error:
        raise ConfigError(f"--accuracy-from: cannot read {file} ({error.strerror})") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--accuracy-from: {file} is no table of this version ({type(error).__name__}: {error}). Give the file "
            "that `evaluate --table --json FILE` wrote"
        ) from None
    if questions != [one.question.text for one in asked]:
        raise ConfigError(
            f"--accuracy-from: {file} has other questions than this version asks; run `evaluate --table` again for it"
        )
    missing = RowAccuracy(obstacle=f"the row is not in {file.name}")
    return ({name: rows.get(name, missing) for name in names}, origin), asked
