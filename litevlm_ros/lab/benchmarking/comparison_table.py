"""A comparison as tables in Markdown, for people and for docs/benchmarks.md.

`python -m litevlm_ros.lab.benchmarking.comparison_table FILE.json` writes them from what `benchmark
--compare-transformers --json FILE.json` has measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from litevlm_ros.lab.benchmarking.accuracy import NOISE

Row = tuple[str, ...]

_MISSING = "-"


def comparison_tables(report: Mapping[str, Any]) -> str:
    """Returns the figures of `Comparison.json`: stages and captions of all ways, and then what only engines have."""
    machine, ways = report["machine"], report["ways"]
    parts = [
        f"{machine['gpu']}; medians of {report['runs']} in ms. In parentheses: multiples of the floor, at a copy "
        f"bandwidth of {report['bandwidth'] / 1e12:.2f} TB/s and {report['rate'] / 1e12:.0f} TFLOP/s.",
        _markdown(["", *(way["name"] for way in ways)], _time_rows(ways, report["tokens"])),
    ]
    engines = [way for way in ways if way["engines"]]
    if engines:
        parts.append(_markdown(["", *(way["name"] for way in engines)], _engine_rows(engines)))
    parts += [f"skipped: {reason}" for reason in report["skipped"]]
    return "\n\n".join(parts)


def _time_rows(ways: Sequence[Mapping[str, Any]], tokens: int) -> Iterable[Row]:
    for title in dict.fromkeys(title for way in ways for title in way["stages"]):
        yield (title, *(_stage(way["stages"].get(title)) for way in ways))
    for index, caption in enumerate(ways[0]["captions"] if ways else ()):
        views = caption["views"]
        title = f"caption of {tokens} tokens, {views} view{'s' * (views > 1)} ({caption['prompt_tokens']} tokens)"
        yield (title, *(f"{way['captions'][index]['times']['total']:.1f}" for way in ways))
    yield ("memory of the process on the GPU, GB", *(_gigabytes(way["memory"]) for way in ways))


def _engine_rows(ways: Sequence[Mapping[str, Any]]) -> Iterable[Row]:
    facts = [way["engines"] for way in ways]

    def row(title: str, values: Iterable[str]) -> Row:
        return (title, *values)

    yield row("`build_engines`, s", (f"{each['build']['seconds']:.1f}" for each in facts))
    yield row("host memory of `build_engines`, GB", (_gigabytes(each["build"]["peak_bytes"]) for each in facts))
    yield row("engine files, MB", (f"{each['build']['file_bytes'] / 1e6:.0f}" for each in facts))
    yield row("loading, s", (f"{each['load_seconds']:.1f}" for each in facts))
    for place in ("host", "device"):
        times = (each["cutting"].get(place) for each in facts)
        yield row(f"six views of 1280x720 cut into tiles on the {place}, ms", map(_milliseconds, times))
    for purpose in dict.fromkeys(purpose for each in facts for purpose in each["memory"]):
        yield row(f"device memory for {purpose}, MB", (_megabytes(each["memory"].get(purpose)) for each in facts))
    rest = (None if way["memory"] is None else way["memory"] - sum(way["engines"]["memory"].values()) for way in ways)
    yield row("device memory for CUDA's context and modules, MB", map(_megabytes, rest))
    accuracy = [each["accuracy"] for each in facts]
    for count in dict.fromkeys(count for each in accuracy for count in each["visual_errors"]):
        title = f"relative error of the visual tokens of {count} tile{'s' * (str(count) != '1')} against fp32"
        yield row(title, (f"{each['visual_errors'][count]:.1e}" for each in accuracy))
    yield row(
        "greedy tokens that are transformers' in fp16", (f"{each['equal']} of {each['tokens']}" for each in accuracy)
    )
    yield row(
        f"greedy tokens that differ, of those with a margin of {NOISE} times the noise",
        (f"{each['differing']} of {each['clear']}" for each in accuracy),
    )


def _stage(time: Mapping[str, float] | None) -> str:
    return f"{time['ms']:.2f} ({time['ms'] / time['floor_ms']:.1f}x)" if time else _MISSING


def _milliseconds(ms: float | None) -> str:
    return _MISSING if ms is None else f"{ms:.2f}"


def _gigabytes(size: int | None) -> str:
    return _MISSING if size is None else f"{size / 1e9:.2f}"


def _megabytes(size: int | None) -> str:
    return _MISSING if size is None else f"{size / 1e6:.0f}"


def _markdown(header: Sequence[str], rows: Iterable[Row]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    print(comparison_tables(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
