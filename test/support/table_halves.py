"""Both halves of a small table, as if they had been measured."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.lab.evaluation.table import Origin, Table
from litevlm_ros.lab.evaluation.table_accuracy import Given, RowAccuracy
from litevlm_ros.lab.evaluation.table_latency import RowLatency

TITLES = {"base": "base", "all": "all", "all_fp8": "all + FP8"}


def given(letters: str, views: int, tokens: int) -> list[Given]:
    """'r' is right, 'w' wrong, 'c' a caption."""
    cameras = ("front", "back", "front_left")[:views]
    return [Given(letter, cameras, tokens, 0.5, {"r": True, "w": False}.get(letter)) for letter in letters]


def accuracy() -> Mapping[str, RowAccuracy]:
    return {
        "base": RowAccuracy(given("crrrr", 3, 300), "the CPU"),
        "all": RowAccuracy(given("crrrw", 1, 50), "the CPU"),
        "all_fp8": RowAccuracy(obstacle="no FP8 here"),
    }


def latency() -> Mapping[str, RowLatency]:
    return {
        "base": RowLatency(2, "the GPU", 256, 1, 10, 0, 20, 2, 9, 40, decoded=9),
        "all": RowLatency(2, "the GPU", 128, 1, 4, 0.5, 5, 1.5, 5.5, 16, decoded=9, accepted=3),
        "all_fp8": RowLatency(obstacle="no FP8 here"),
    }


def table() -> Table:
    return Table(TITLES, accuracy(), Origin("a CPU", "models/demo", 0, 4), latency(), Origin("a GPU", "models", 0, 2))
