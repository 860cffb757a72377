"""What messages and files say of an answer, by the names that the fields of litevlm_ros/Caption and Answer have."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from litevlm_ros.types import Answer


def answer_fields(answer: Answer) -> dict[str, Any]:
    """The fields that both messages have; `timings` as a dictionary of milliseconds."""
    return {
        "prompt": answer.prompt,
        "text": answer.text,
        "finish_reason": answer.finish_reason.value,
        "prompt_tokens": answer.tokens.prompt,
        "visual_tokens": answer.tokens.visual,
        "generated_tokens": answer.tokens.generated,
        "drafted_tokens": answer.speculation.drafted,
        "accepted_tokens": answer.speculation.accepted,
        "draft_acceptance": answer.speculation.acceptance,
        "reused_views": answer.reuse.views,
        "reused_tokens": answer.reuse.tokens,
        "timings": asdict(answer.timings),
    }
