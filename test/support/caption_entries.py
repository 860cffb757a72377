"""Entries of a caption log, as the tool writes them."""

from __future__ import annotations

from typing import Any

from litevlm_ros.bags.origin import Origin, Source

ORIGIN = Origin(Source("drive", "0123"), Source("demo", "4567"), "What?")
STAGES = ("queue", "decode_image", "preprocess", "vision", "select", "prefill", "decode", "total")
NUMBERS = ("prompt_tokens", "visual_tokens", "generated_tokens", "drafted_tokens", "accepted_tokens", "reused_views",
           "reused_tokens")  # fmt: skip


def caption_entry(time: int, **changes: Any) -> dict[str, Any]:
    """A caption of the image that was recorded at `time` nanoseconds."""
    return {
        "topic": "/front", "camera": "front", "bag_time": time,
        "stamp": {"sec": 1, "nanosec": 2}, "frame_id": "optical",
        **ORIGIN.fields(), "prompt": "What?", "text": "길이 비어 있다.", "finish_reason": "stop",
        "draft_acceptance": 0.5,
        **dict.fromkeys(NUMBERS, 3), "timings": dict.fromkeys(STAGES, 1.5), **changes,
    }  # fmt: skip


def error_entry(time: int) -> dict[str, Any]:
    """A line about an image that could not be decoded."""
    entry = caption_entry(time)
    return {**{name: entry[name] for name in ("topic", "camera", "bag_time", "stamp", "frame_id")}, "error": "damaged"}
