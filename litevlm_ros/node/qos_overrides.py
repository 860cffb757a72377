"""The parameters `qos_overrides.TOPIC.subscription.POLICY`, checked before rclpy reads them.

rclpy reads such a parameter when it subscribes, says of a wrong value only that it is unexpected, and never reads one
whose topic or policy does not exist.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, ReliabilityPolicy

PREFIX = "qos_overrides."
"""The beginning of the names of these parameters."""

POLICIES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
"""The policies of an image subscription that can be overridden."""

_CHOICES = {
    QoSPolicyKind.HISTORY: HistoryPolicy,
    QoSPolicyKind.RELIABILITY: ReliabilityPolicy,
    QoSPolicyKind.DURABILITY: DurabilityPolicy,
}
_NAME = re.compile(r"qos_overrides\.(?P<topic>.*)\.(?P<entity>[^.]*)\.(?P<policy>[^.]*)")


@dataclass
class Findings:
    """Sentences about overrides."""

    wrong: list[str] = field(default_factory=list)
    """Those whose values rclpy will refuse."""
    useless: list[str] = field(default_factory=list)
    """Those that have no effect."""


def check_overrides(given: Mapping[str, Any], topics: Sequence[str] | None) -> Findings:
    """Checks all overrides among the `given` parameters.

    `topics` are the full names of the cameras' topics, or None if nobody knows them, since they are wrong themselves.
    """
    findings = Findings()
    for name, value in sorted(given.items()):
        if name.startswith(PREFIX):
            if reason := _why_useless(name, topics):
                findings.useless.append(f"Parameter {name} has no effect: {reason}")
            elif allowed := _allowed_instead(name, value):
                findings.wrong.append(
                    f"parameter {name} is {value!r}; allowed: {allowed}. Correct it and start the node again"
                )
    return findings


def _why_useless(name: str, topics: Sequence[str] | None) -> str:
    parts = _NAME.fullmatch(name)
    if parts is None or parts["entity"] != "subscription":
        return "such a name is written qos_overrides.TOPIC.subscription.POLICY"
    if topics is not None and parts["topic"] not in topics:
        close = difflib.get_close_matches(parts["topic"], topics, n=1, cutoff=0.8)
        hint = f"did you mean {close[0]}?" if close else f"they have {', '.join(topics)}"
        return f"{parts['topic']} is the topic of no camera; {hint}"
    known = [policy.name.lower() for policy in POLICIES]
    return "" if parts["policy"] in known else f"the policies that can be overridden are {', '.join(known)}"


def _allowed_instead(name: str, value: Any) -> str:
    policy = QoSPolicyKind[name.rpartition(".")[2].upper()]
    if policy is QoSPolicyKind.DEPTH:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        return "" if fits else "whole numbers from 1"
    choices = [choice.lower() for choice in _CHOICES[policy].__members__ if choice != "UNKNOWN"]
    return "" if isinstance(value, str) and value.lower() in choices else ", ".join(choices)
