from __future__ import annotations

import pytest

from litevlm_ros.errors import ConfigError, LiteVLMError, OutputError, first_line, printable, visible

HOSTILE = "\x1b]0;title\x07\x1b[2Jred\r\u202eder\u200b\x9b\ud800"


def test_text_that_steers_a_terminal_becomes_its_escapes() -> None:
    assert visible(HOSTILE) == r"\x1b]0;title\x07\x1b[2Jred\r\u202eder\u200b\x9b\ud800"
    assert visible("a\n\tb: 你好, Größe 🚗") == "a\n\tb: 你好, Größe 🚗"


def test_quoted_text_is_one_short_line() -> None:
    assert printable("one\ntwo\tthree") == r"one\ntwo\tthree"
    assert printable("x" * 61) == "x" * 60 + "..."


@pytest.mark.parametrize("kind", [LiteVLMError, ConfigError, OutputError])
def test_no_error_of_ours_steers_a_terminal(kind: type[LiteVLMError]) -> None:
    error = kind(f"the licence is {HOSTILE}\nand more")
    assert str(error) == f"{error}" == f"the licence is {visible(HOSTILE)}\nand more"
    assert first_line(error) == f"the licence is {visible(HOSTILE)}"
