"""Builds the prompt: the chat template of each model family, with the visual tokens in their places.

A prompt is built as token ids, piece by piece: special tokens by name, everything else as plain text. So nothing that a
person writes can become a special token, except for the marks of regions in a question (`text/tokenizer.py`). It has
two parts, the prefix with the images and their cameras and the suffix with the question, so that the keys and values of
the prefix can be kept for further questions about the views.

Sources: OpenGVLab/InternVL, internvl_chat/internvl/conversation.py, for the templates; the model cards and
internvl_chat/eval/mirb/evaluate_mirb.py there for the numbering of several images; transformers,
models/internvl/convert_internvl_weights_to_hf.py and processing_internvl.py, for checkpoints in transformers' own
layout. The line that names cameras is this project's: the original leaves it to the person who asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from litevlm_ros.backend import TokenIds
from litevlm_ros.errors import CheckpointError
from litevlm_ros.prompt_families import DEMO, HERMES, INTERNVL2_5, INTERNVL_HF

START, END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END = "<img>", "</img>"

_NUMBERED = re.compile(r"image_\d+")
"""The names of images that came with a question, but without names. They tell a model nothing, so it is not told."""


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of one prompt family.

    A label is the text before an image. It may contain `{index}`, which counts images from 1, and `{camera}`.
    """

    system_message: str
    """The text of the system turn; '' for none."""
    turn_separator: str
    """The text between the end of a turn and the start of the next."""
    label_of_one: str
    """The label if there is one image."""
    label_of_several: str
    """The label of each image if there are more."""
    names_cameras: bool
    """True if a line behind several images says which camera each is from, because the labels do not."""


TEMPLATES: Mapping[str, ChatTemplate] = {
    HERMES: ChatTemplate(
        system_message="你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
        "是一个有用无害的人工智能助手。",
        turn_separator="",
        label_of_one="",
        label_of_several="Image-{index}: ",
        names_cameras=True,
    ),
    INTERNVL2_5: ChatTemplate(
        system_message="你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
        "多模态大语言模型。",
        turn_separator="\n",
        label_of_one="",
        label_of_several="Image-{index}: ",
        names_cameras=True,
    ),
    INTERNVL_HF: ChatTemplate(
        system_message="", turn_separator="\n", label_of_one="", label_of_several="", names_cameras=True
    ),
    DEMO: ChatTemplate(
        system_message="",
        turn_separator="\n",
        label_of_one="{camera}: ",
        label_of_several="{camera}: ",
        names_cameras=False,
    ),
}


class Tokenizer(Protocol):
    """The part of a tokenizer that the prompt needs."""

    def encode(self, text: str) -> list[int]:
        """Returns the ids of plain text. Special tokens in it are read as text too."""

    def encode_question(self, text: str) -> list[int]:
        """Returns the ids of a question, in which the marks of regions stand for their special tokens."""

    def special(self, token: str) -> int:
        """Returns the id of a special token."""


class PromptBuilder:
    """Turns camera names and questions into token ids. Visual token i of the prompt has the id `vocab_size` + i."""

    def __init__(
        self,
        family: str,
        tokenizer: Tokenizer,
        vocab_size: int,
        tokens_per_tile: int,
        system_prompt: str | None = None,
        view_label: str = "",
    ) -> None:
        """`system_prompt` replaces the family's own; '' leaves it out.

        `view_label` replaces the family's labels, and the line that names cameras is then left out.

        Raises CheckpointError for an unknown family, or if the tokenizer lacks one of the special tokens.
        """
        if family not in TEMPLATES:
            raise CheckpointError(
                f"the prompt family (template in vision_encoder/config.json) is {family!r}; "
                f"supported: {', '.join(TEMPLATES)}"
            )
        self.template = TEMPLATES[family]
        self._text, self._question = tokenizer.encode, tokenizer.encode_question
        self._start, self._end = tokenizer.special(START), tokenizer.special(END)
        self._image_start, self._image_end = tokenizer.special(IMAGE_START), tokenizer.special(IMAGE_END)
        self._vocab_size = vocab_size
        self._tokens_per_tile = tokens_per_tile
        self._system_message = self.template.system_message if system_prompt is None else system_prompt
        self._view_label = view_label

    def prefix(self, images: Sequence[tuple[str, int]]) -> list[int]:
        """Returns the ids up to the newline behind the images, and behind the line that names their cameras.

        `images` are names of cameras and numbers of tiles. Without images, the ids end where the question begins.
        """
        ids = self._system()
        ids.append(self._start)
        text, row = "user\n", self._vocab_size
        family = self.template.label_of_one if len(images) == 1 else self.template.label_of_several
        label = self._view_label or family
        for index, (camera, tiles) in enumerate(images, start=1):
            rows = tiles * self._tokens_per_tile
            text += label.format(index=index, camera=_spoken(camera))
            ids += [*self._text(text), self._image_start, *range(row, row + rows), self._image_end]
            text, row = "\n", row + rows
        return ids + self._text(text + self._line([camera for camera, _ in images]))

    def suffix(self, question: str) -> list[int]:
        """Returns the ids of the question, without white space around it, and of the answer's header."""
        return [
            *self._question(question.strip()),
            self._end,
            *self._text(self.template.turn_separator),
            self._start,
            *self._text("assistant\n"),
        ]

    def _line(self, cameras: Sequence[str]) -> str:
        """Returns the line that says which camera each image is from; '' where the labels say it, or nobody does."""
        told = self.template.names_cameras and not self._view_label and len(cameras) > 1
        if not told or all(map(_NUMBERED.fullmatch, cameras)):
            return ""
        named = (f"Image-{index} is from the camera {_spoken(camera)}" for index, camera in enumerate(cameras, start=1))
        return ", ".join(named) + ".\n"

    def _system(self) -> list[int]:
        if not self._system_message:
            return []
        text = self._text("system\n" + self._system_message)
        return [self._start, *text, self._end, *self._text(self.template.turn_separator)]


def _spoken(camera: str) -> str:
    """Returns the camera's name as people write it, such as 'front left'."""
    return camera.replace("_", " ")


@dataclass(frozen=True, eq=False)
class Prefix:
    """The prefix of a prompt: its tokens in the order in which they are read, and their rotary positions.

    Ids from `vocab_size` on are visual tokens, numbered in order. Visual tokens that were dropped leave gaps in
    `positions`. `end` is the position of the token that follows the prefix.
    """

    ids: TokenIds
    positions: TokenIds
    vocab_size: int
    end: int

    @classmethod
    def whole(cls, ids: Sequence[int], vocab_size: int) -> Prefix:
        """Returns the prefix of these ids, with no token dropped."""
        return cls(np.array(ids, np.int64), np.arange(len(ids)), vocab_size, len(ids))

    @property
    def words(self) -> list[int]:
        """The ids that are text."""
        return self.ids[self.ids < self.vocab_size].tolist()

    def keep(self, places: TokenIds) -> Prefix:
        """Returns the prefix without the visual tokens whose numbers are not in `places`.

        The tokens that stay keep their positions; the visual ones are numbered anew.
        """
        number = self.ids - self.vocab_size
        stays = np.flatnonzero((number < 0) | np.isin(number, places))
        ids = self.ids[stays]
        ids[ids >= self.vocab_size] = self.vocab_size + np.arange(len(places))
        return Prefix(ids, self.positions[stays], self.vocab_size, self.end)

    def shared(self, other: Prefix, same: int) -> int:
        """Returns the number of tokens that both prefixes begin with.

        `same` is the number of visual tokens at the start of both that were made from the same pictures.
        """
        length = min(len(self.ids), len(other.ids))
        differs = self.ids[:length] != other.ids[:length]
        differs |= self.positions[:length] != other.positions[:length]
        differs |= other.ids[:length] >= self.vocab_size + same
        return int(differs.argmax()) if differs.any() else length
