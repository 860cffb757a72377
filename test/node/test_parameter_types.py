from __future__ import annotations

import array
from typing import Any

import pytest

from litevlm_ros.config import SETTINGS
from litevlm_ros.errors import ConfigError
from litevlm_ros.node.parameter_types import Parameter, mistakes, told_together
from litevlm_ros.node.parameters import PARAMETERS


@pytest.mark.parametrize(
    ("default", "value", "read"),
    [
        (True, False, False),
        (1, 2.0, 2),
        (1.0, 2, 2.0),
        ("a", "b", "b"),
        (["a"], "x, y", ("x", "y")),
        (["a"], ["x", " "], ("x",)),
        (["a"], None, ()),
        (["a"], [], ()),
        (["a"], [1, 2], ("1", "2")),
        (["a"], array.array("q", [1, 2]), ("1", "2")),
        (["a"], 7, ("7",)),
        ("a", 2024, "2024"),
    ],
)
def test_values_become_the_parameters_type(default: Any, value: Any, read: Any) -> None:
    result = Parameter(default, "").read("x", value)
    assert result == read
    assert type(result) is type(read)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (Parameter(True, ""), 1, "parameter x must be true or false, not 1"),
        (Parameter(1, ""), True, "must be a number, not true"),
        (Parameter(1, ""), 1.5, "must be a whole number, not 1.5"),
        (Parameter(1, "", 1, 5), 6, "is 6; allowed: whole numbers from 1 to 5"),
        (Parameter(1.0, "", 0.5, 5), 0, "is 0; allowed: numbers from 0.5 to 5"),
        (Parameter(1.0, ""), float("inf"), "must be a number, not inf"),
        (Parameter(1.0, ""), None, "must be a number, not None"),
        (Parameter("a", "", choices=("a", "b")), "c", "is 'c'; allowed: a, b"),
        (Parameter("a", ""), ["a"], r"must be a text, not \['a'\]"),
        (Parameter(["a"], ""), [1.5], r"is the number 1\.5; if a text is meant, put it in quotes: \"'1\.5'\""),
        (
            Parameter(["a"], ""),
            [True],
            "is true, as YAML reads words such as on and yes; if a text is meant, put it in",
        ),
        (Parameter(["a"], ""), {"b": 1}, r"must be a list of texts, not \{'b': 1\}"),
        (
            Parameter("a", ""),
            False,
            "is false, as YAML reads words such as off and no; if a text is meant, put it in quotes",
        ),
        (Parameter("a", ""), None, "must be a text, not None"),
        (Parameter("a", ""), 2024.1, r"is the number 2024\.1; if a text is meant"),
        (Parameter("a", "", choices=("a", "b")), False, "is false; allowed: a, b"),
        (Parameter("a", "", choices=("a", "b")), 1, "is '1'; allowed: a, b"),
        (
            Parameter(["a"], "", choices=("a", "b")),
            [True, False],
            "is true, as YAML reads on, yes and true; allowed: a, b",
        ),
        (Parameter(1, "", 1, 2**30), 2**30 + 1, "is 1073741825; allowed: whole numbers from 1 to 1073741824"),
    ],
)
def test_others_are_refused(parameter: Parameter, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parameter.read("x", value)


WITH_OFF = [name for name, parameter in PARAMETERS.items() if "off" in parameter.choices]


def test_every_setting_that_can_be_off_is_such_a_parameter() -> None:
    assert set(WITH_OFF) >= {name for name, setting in SETTINGS.items() if "off" in setting.choices}
    assert set(WITH_OFF) >= {"view_selection", "token_selection", "speculation"}


@pytest.mark.parametrize("name", WITH_OFF)
def test_off_may_come_as_false(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter.read(name, False) == "off"
    assert parameter.canonical(name, False) == "off"
    with pytest.raises(ConfigError, match=f"parameter {name} is true, as YAML reads on, yes and true; allowed: off, "):
        parameter.read(name, True)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_default_is_stored_as_it_is(name: str) -> None:
    default = PARAMETERS[name].default
    assert PARAMETERS[name].canonical(name, default) == default


def test_an_empty_list_is_stored_as_one_with_an_empty_text() -> None:
    assert Parameter(["a"], "").canonical("x", []) == [""]
    assert Parameter(["a"], "").canonical("x", "a, b") == ["a", "b"]


def test_all_mistakes_are_told_together() -> None:
    found = mistakes(
        lambda: Parameter(1, "").read("x", "a"),
        lambda: Parameter(1, "").read("y", 1),
        lambda: Parameter(1, "").read("z", None),
    )
    assert found == ["parameter x must be a number, not 'a'", "parameter z must be a number, not None"]
    assert told_together(found[:1]) == found[0]
    assert told_together(found) == f"2 things about the parameters are wrong:\n- {found[0]}\n- {found[1]}"
