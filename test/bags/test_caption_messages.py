from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from caption_entries import caption_entry, error_entry

from litevlm_ros.bags.caption_messages import CAPTION, CaptionMessages


@pytest.fixture(scope="module")
def messages() -> CaptionMessages:
    return CaptionMessages()


def test_an_entry_becomes_a_caption(messages: CaptionMessages) -> None:
    entry = caption_entry(5, text="free")
    caption = messages.types.deserialize_cdr(bytes(messages.caption(entry)), CAPTION)
    assert (caption.text, caption.camera, caption.header.frame_id) == ("free", "front", "optical")
    assert (caption.header.stamp.sec, caption.header.stamp.nanosec, caption.timings.total) == (1, 2, 1.5)


@pytest.mark.parametrize("entry", [caption_entry(0), caption_entry(2**63), error_entry(1), caption_entry(1, more="x")])
def test_what_is_an_entry(messages: CaptionMessages, entry: Any) -> None:
    assert messages.fits(json.loads(json.dumps(entry)))


@pytest.mark.parametrize("missing", sorted(caption_entry(1).keys() - {"bag", "model"}))
def test_a_field_is_missing(messages: CaptionMessages, missing: str) -> None:
    assert not messages.fits({name: value for name, value in caption_entry(1).items() if name != missing})


@pytest.mark.parametrize(
    "entry",
    [
        None, 5, "text", [], [1, 2], {}, True, float("nan"),
        caption_entry(True), caption_entry(1.5), caption_entry("1"), caption_entry(2**64), caption_entry(1, topic=3),
        caption_entry(1, stamp={"sec": 1}), caption_entry(1, stamp={"sec": 2**40, "nanosec": 0}),
        caption_entry(1, stamp=[]),
        caption_entry(1, text=None), caption_entry(1, text="\ud800"), caption_entry(1, prompt_tokens=-1),
        caption_entry(1, prompt_tokens="3"), caption_entry(1, draft_acceptance=float("inf")),
        caption_entry(1, timings={}),
        caption_entry(1, timings={**caption_entry(1)["timings"], "total": float("nan")}),
        caption_entry(1, timings={**caption_entry(1)["timings"], "total": "1"}),
        {**error_entry(1), "error": 5}, {**error_entry(1), "stamp": {"sec": "1", "nanosec": 0}},
    ],
)  # fmt: skip
def test_what_is_no_entry(messages: CaptionMessages, entry: Any) -> None:
    assert not messages.fits(entry)
