from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litevlm_ros.config_json import ConfigSection, read_config
from litevlm_ros.errors import CheckpointError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def section(**values: Any) -> ConfigSection:
    return ConfigSection(values, Path("config.json"))


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "cannot be read as JSON"),
        (b"[1]", "holds a list, not a JSON object"),
        (b"[" * 200_000, "cannot be read as JSON: .*recursion"),
        (b'{"a": ' * 33 + b"1" + b"}" * 33, "it is nested too deep"),
        (b'{"a": ' + b"9" * 6000 + b"}", "cannot be read as JSON: Exceeds the limit"),
        (b'{"a": "\xff"}', "cannot be read as JSON: 'utf-8'"),
        (rb'{"a": "\ud800"}', "cannot be read as JSON: 'utf-8'"),
        (b'{"a": "' + b"x" * (4 << 20) + b'"}', "it has more than 4 MB"),
    ],
)
def test_files_that_are_no_configuration(contents: bytes, reason: str, file: Path) -> None:
    file.write_bytes(contents)
    with pytest.raises(CheckpointError, match=rf"config\.json .*{reason}") as raised:
        read_config(file)
    assert len(str(raised.value)) < 400


def test_a_file_that_never_ends() -> None:
    with pytest.raises(CheckpointError, match="it has more than 4 MB"):
        read_config(Path("/dev/zero"))


def test_a_missing_file(file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is missing; .*download_models"):
        read_config(file)


def test_nesting_as_in_published_files(file: Path) -> None:
    values = {"a": [{"b": {"c": [1, {"d": None}]}}]}
    file.write_text(json.dumps(values))
    assert read_config(file) == values


@pytest.mark.parametrize("value", ["3", 3.5, True, [], [1, 2], {}, float("inf"), 2**31, -(2**31), 10**4000])
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: hidden is .*; supported: an integer") as raised:
        section(hidden=value).integer("hidden")
    assert len(str(raised.value)) < 200


def test_integers() -> None:
    assert section(a=2**31 - 1).integer("a") == 2**31 - 1
    assert section(size=[448, 448]).integer("size") == 448
    assert section(a=None).integer("a", 5) == 5
    with pytest.raises(CheckpointError, match="layers is 1001; supported: an integer up to 1000"):
        section(layers=1001).integer("layers", most=1000)


@pytest.mark.parametrize("value", ["3", True, [], float("inf"), -float("inf"), float("nan"), 1e40, 10**400])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: eps is .*; supported: a number"):
        section(eps=value).number("eps")


def test_numbers() -> None:
    assert section(theta=1_000_000).number("theta") == 1e6
    assert section().number("eps", 1e-6) == 1e-6


@pytest.mark.parametrize("value", ["x" * 9000, [[[[[[[[[0]]]]]]]]], {"a": "\x1b[2J"}, list(range(99999))])
def test_an_odd_value_is_shown_in_short(value: Any) -> None:
    with pytest.raises(CheckpointError) as raised:
        section(act=value).require("act", "silu", "silu")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 200
