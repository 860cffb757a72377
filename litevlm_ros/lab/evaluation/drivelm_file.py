"""Reads question files of DriveLM-nuScenes, in the form that its challenge scores: key frames with questions and tags.

The form is scene -> key_frames -> key frame -> QA and image_paths, as in `challenge/test_eval.json` of
github.com/OpenDriveLab/DriveLM (arXiv 2312.14150). A tag says which score judges a question. An entry that cannot be
used is left out and counted, since a file has tens of thousands of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litevlm_ros.errors import ConfigError, first_line, printable

ACCURACY_TAG, MATCH_TAG = 0, 3
"""Tags of the scores that need neither a service nor reference tools. Tag 1 is for ChatGPT, 2 for language scores."""

PARTS = ("perception", "prediction", "planning", "behavior")
"""The lists of a key frame's QA, in the order in which the challenge numbers their questions."""

_CONVERSION = (
    "DriveLM's challenge/extract_data.py and convert_data.py write one, test_eval.json, from a training file; see "
    "docs/drivelm.md"
)


@dataclass(frozen=True)
class DriveLMQuestion:
    """One question, in the file's own words. `id` is the challenge's: scene, key frame and number, with underscores.

    `first` marks the first question of the key frame. It asks for the important objects, and the challenge counts
    questions about objects only if its answer has found them.
    """

    id: str
    text: str
    answer: str
    tags: frozenset[int]
    first: bool


@dataclass(frozen=True)
class KeyFrame:
    """One moment of a scene. `images` has the file's path of each camera's picture, by names such as 'front_left'."""

    id: str
    images: Mapping[str, str]
    questions: tuple[DriveLMQuestion, ...]


@dataclass
class LeftOut:
    """Entries that cannot be used: their number by reason, and the first of each."""

    counts: dict[str, int] = field(default_factory=dict)
    firsts: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Counts an entry. `reason` names such entries in the plural; `where` finds this one."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.firsts.setdefault(reason, printable(where, 200))

    def lines(self) -> list[str]:
        """Returns one line for each reason."""
        return [f"Left out, {why}: {count} (the first: {self.firsts[why]})" for why, count in self.counts.items()]


def read_key_frames(file: Path, left_out: LeftOut) -> list[KeyFrame]:
    """Returns the key frames that have questions to score, the first of every scene before the second of any.

    So few questions still come from many scenes. Besides questions with the tags of accuracy and match, a key frame
    keeps its first question. Raises ConfigError for a file that has nothing to score.
    """
    scenes = _scenes(file)
    found: list[tuple[int, KeyFrame]] = []
    for scene, content in scenes.items():
        frames = content.get("key_frames") if isinstance(content, dict) else None
        if not isinstance(frames, dict):
            left_out.add("scenes without key_frames", scene)
            continue
        for place, (name, entry) in enumerate(frames.items()):
            frame = _key_frame(f"{scene}_{name}", entry, left_out)
            if frame is not None:
                found.append((place, frame))
    if not any(_scored(question) for _, frame in found for question in frame.questions):
        raise ConfigError(_nothing_to_score(file, left_out))
    return [frame for _, frame in sorted(found, key=lambda item: item[0])]


def _scenes(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"--drivelm: cannot read {file} ({error.strerror}). Name a file that is there") from None
    except (ValueError, RecursionError) as error:  # JSON's and UTF-8's are ValueErrors
        raise ConfigError(
            f"--drivelm: {file} cannot be read as JSON ({first_line(error)}). Download it again"
        ) from None
    if isinstance(content, list):
        raise ConfigError(
            f"--drivelm: {file} is a list, as convert2llama.py writes one for training, and has no tags. Give the file "
            "that it was made from, with scenes and key_frames"
        )
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"--drivelm: {file} has no scenes. Give a file with scenes and key_frames: {_CONVERSION}")
    return content


def _key_frame(name: str, entry: Any, left_out: LeftOut) -> KeyFrame | None:
    parts = entry.get("QA") if isinstance(entry, dict) else None
    if not isinstance(parts, dict):
        left_out.add("key frames without QA", name)
        return None
    questions = tuple(_questions(name, parts, left_out))
    if not any(_scored(question) for question in questions):
        return None
    images = entry.get("image_paths")
    if not isinstance(images, dict) or not images or not all(isinstance(path, str) for path in images.values()):
        left_out.add("key frames without image_paths", name)
        return None
    return KeyFrame(name, {camera_name(camera): path for camera, path in images.items()}, questions)


def _questions(frame: str, parts: Mapping[str, Any], left_out: LeftOut) -> Iterator[DriveLMQuestion]:
    entries: list[Any] = []
    for part in PARTS:
        listed = parts.get(part, [])
        if isinstance(listed, list):
            entries += listed
        else:
            left_out.add("parts of QA that are no lists", f"{part} of {frame}")
    for number, entry in enumerate(entries):
        name = f"{frame}_{number}"
        if not isinstance(entry, dict) or not _is_text(entry.get("Q")) or not entry["Q"].strip():
            left_out.add("questions without a text", name)
            continue
        tags = _tags(entry.get("tag"))
        if not tags:
            left_out.add(_UNTAGGED, name)
        elif not _is_text(entry.get("A")) or not entry["A"].strip():
            left_out.add(_UNANSWERED, name)
        else:
            question = DriveLMQuestion(name, entry["Q"], entry["A"], tags, first=number == 0)
            if question.first or _scored(question):
                yield question


_UNTAGGED, _UNANSWERED = "questions without a tag", "questions without an answer"


def _nothing_to_score(file: Path, left_out: LeftOut) -> str:
    reasons = [reason for reason in (_UNTAGGED, _UNANSWERED) if reason in left_out.counts]
    if not reasons:
        told = f" ({'; '.join(left_out.lines())})" if left_out.counts else ""
        return f"--drivelm: {file} has no question with the tag 0 (accuracy) or 3 (match){told}. {_CONVERSION}"
    reason = max(reasons, key=lambda one: left_out.counts[one])
    if reason == _UNTAGGED:
        return (
            f"--drivelm: the questions of {file} have no tags, which say how each is scored. Training files have none. "
            f"Give a file with tags: {_CONVERSION}"
        )
    return (
        f"--drivelm: the questions of {file} have no answers, as in the challenge's own test file, so nothing can be "
        f"scored. Give a file with answers: {_CONVERSION}"
    )


def _scored(question: DriveLMQuestion) -> bool:
    return ACCURACY_TAG in question.tags or MATCH_TAG in question.tags


def _tags(value: Any) -> frozenset[int]:
    listed = value if isinstance(value, list) else [value]
    return frozenset(tag for tag in listed if isinstance(tag, int) and not isinstance(tag, bool))


def _is_text(value: Any) -> bool:
    """Tells whether a value is a text that can be written as UTF-8: JSON may escape half a character."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def camera_name(name: str) -> str:
    """Returns the name that cameras have elsewhere in this package: 'front_left' for 'CAM_FRONT_LEFT'."""
    return name.removeprefix("CAM_").lower()
