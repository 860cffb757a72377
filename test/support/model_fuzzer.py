"""Loads damaged copies of the demo model: `python model_fuzzer.py SCRATCH [COUNT]`.

One line of JSON for each: the file, what was done to it, how it ended, and after how many seconds of CPU time. Each is
loaded in a process of its own, because native code reads these files and may end the process. Without COUNT, there is
no list of checksums, so that code which reads configurations and graphs meets the damage; with COUNT, so many files of
all kinds are damaged, the list among them.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.checksums import listed
from litevlm_ros.config import (
    PipelineConfig,
    SamplingConfig,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.model_directory import CHECKSUMS, demo_model_directory
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.runtime.onnx import backend as onnxruntime_backend
from litevlm_ros.types import View

MOST_CPU_SECONDS = 20
MOST_BYTES = 4 << 30

CONFIGS = (
    "vision_encoder/config.json",
    "text_decoder/config.json",
    "text_decoder/tokenizer.json",
    "text_decoder/tokenizer_config.json",
    "text_decoder/generation_config.json",
)
GRAPHS = ("vision_encoder.onnx", "text_decoder.onnx")
ODD_VALUES: tuple[Any, ...] = (
    None, [], {}, "x", "", True, -1, 0, 1, 3.5, 1e999, float("nan"), 10**9, 2**70, [1, 2], {"a": 1}, [{}],
)  # fmt: skip

Damage = Callable[[bytes, random.Random], bytes]


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _damage_start(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 8))):
        changed[rng.randrange(min(len(data), 3000))] = rng.randrange(256)
    return bytes(changed)


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _leave_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 4, 100, 10_000)) :]


def _put_in(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.choice((1, 8, 300))) + data[start:]


def _swap_blocks(data: bytes, rng: random.Random) -> bytes:
    """As a disk does that writes sectors to wrong places."""
    size = min(rng.choice((16, 512, 4096)), max(1, len(data) // 2))
    first, second = (rng.randrange(max(1, len(data) // size)) * size for _ in range(2))
    changed = bytearray(data)
    changed[first : first + size], changed[second : second + size] = (
        data[second : second + size],
        data[first : first + size],
    )
    return bytes(changed)


def _zero_the_end(data: bytes, rng: random.Random) -> bytes:
    """As a copy that broke off into a file of the full size."""
    start = rng.randrange(len(data))
    return data[:start] + bytes(len(data) - start)


def _zero_a_block(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data)) // 512 * 512
    return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]


DAMAGES: dict[str, Damage] = {
    "empty": lambda data, rng: b"",
    "zeros": lambda data, rng: bytes(len(data)),
    "another file": lambda data, rng: Path(np.__file__).read_bytes(),
    "brackets": lambda data, rng: 200_000 * b"[",
    "bits flipped": _flip,
    "start damaged": _damage_start,
    "truncated": _truncate,
    "part left out": _leave_out,
    "bytes put in": _put_in,
    "blocks swapped": _swap_blocks,
    "zeros at the end": _zero_the_end,
    "a block of zeros": _zero_a_block,
}
ONCE = 4
"""The first damages are the same each time."""


def damaged_bytes(data: bytes, rounds: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """The damage that a file may take on a bad disk or a broken line."""
    for index in range(rounds):
        for name, damage in list(DAMAGES.items())[ONCE if index else 0 :]:
            yield name, damage(data, rng)


def odd_values(
    data: bytes, count: int, rng: random.Random, values: tuple[Any, ...] = ODD_VALUES
) -> Iterator[tuple[str, bytes]]:
    """A JSON file with a value of another type or size, or without one of its keys."""
    document = json.loads(data)
    paths = list(_paths(document))
    for path in rng.sample(paths, min(count, len(paths))):
        changed = copy.deepcopy(document)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        if rng.random() < 0.1:
            del parent[path[-1]]
            yield f"{path} left out", json.dumps(changed).encode()
        else:
            parent[path[-1]] = rng.choice(values)
            yield f"{path} is {str(parent[path[-1]])[:60]!r}", json.dumps(changed).encode()


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, below in items:
        if isinstance(below, (dict, list)) or len(above) < 2:  # a vocabulary has thousands of plain values
            yield (*above, key)
        yield from _paths(below, (*above, key))


def load(model: Path, **settings: Any) -> str:
    """The end of loading and asking: 'said: ...', 'refused: ...', or what nobody should see."""
    try:
        config = PipelineConfig(model_dir=model, backend="onnxruntime", threads=1, **settings)
        pipeline = Pipeline.from_config(config)
        view = View("front", np.full((60, 80, 3), 90, np.uint8))
        answer = pipeline.generate([view], "What is there?", SamplingConfig(max_new_tokens=8))
    except LiteVLMError as error:
        return f"refused: {error}"
    except BaseException:
        return traceback.format_exc()
    return f"said: {answer.text}"


def load_apart(model: Path, **settings: Any) -> tuple[str, float]:
    """The same in a process of its own, with the seconds of CPU time it took."""
    reading, writing = os.pipe()
    before = time.monotonic()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECONDS, MOST_CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.write(writing, load(model, **settings).encode("utf-8", "replace")[-4000:])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        outcome = pipe.read().decode("utf-8", "replace")
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    return outcome or f"ended with status {status} after {time.monotonic() - before:.1f} s", seconds


def main(scratch: Path) -> None:
    logging.disable(logging.CRITICAL)
    assert onnxruntime_backend  # imported once, here, and not in every child
    source, model = demo_model_directory(), scratch / "model"
    shutil.copytree(source, model, ignore=shutil.ignore_patterns(CHECKSUMS))
    for file in (*CONFIGS, *GRAPHS):
        rng = random.Random(file)
        data = (source / file).read_bytes()
        cases = list(damaged_bytes(data, 5 if file in GRAPHS else 2, rng))
        if file in CONFIGS:
            cases += odd_values(data, 20, rng)
        for damage, changed in cases:
            (model / file).write_bytes(changed)
            outcome, seconds = load_apart(model)
            print(json.dumps({"file": file, "damage": damage, "outcome": outcome, "seconds": seconds}), flush=True)
        (model / file).write_bytes(data)


EVERYTHING: dict[str, Any] = {
    "speculation": SpeculationConfig("head"),
    "token_selection": TokenSelectionConfig("scorer", 0.5),
    "view_selection": ViewSelectionConfig("learned"),
}
"""Settings with which all files of the demo model are read that ONNX Runtime reads."""


def damage_listed(scratch: Path, count: int) -> None:
    """Damages `count` files, one at a time, of a model with its list of checksums. The first line is of a whole one."""
    logging.disable(logging.CRITICAL)
    assert onnxruntime_backend
    source, model = demo_model_directory(), scratch / "model"
    shutil.copytree(source, model)

    def tell(file: str, damage: str) -> None:
        outcome, seconds = load_apart(model, **EVERYTHING)
        print(json.dumps({"file": file, "damage": damage, "outcome": outcome, "seconds": seconds}), flush=True)

    tell("", "nothing")
    rng = random.Random(17)
    files = [*sorted(listed(source)), CHECKSUMS]
    damages = list(DAMAGES.items())
    for index in range(count):
        file = files[index % len(files)]
        name, damage = damages[index // len(files) % len(damages)]
        data = (source / file).read_bytes()
        while (changed := damage(data, rng)) == data:  # such as two blocks of zeros that changed places
            pass
        (model / file).write_bytes(changed)
        tell(file, name)
        (model / file).write_bytes(data)


if __name__ == "__main__":
    if sys.argv[2:]:
        damage_listed(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
