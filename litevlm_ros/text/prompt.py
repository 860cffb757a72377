"""Chat template per model family, and where the visual tokens go.

The prompt is built as token ids, piece by piece: special tokens by name, everything else as plain text. So nothing that
a person writes can become a special token. It comes in two parts, so that the keys and values of the first can be kept
for further questions about the same views: the prefix, up to the newline behind the last image, and the suffix.

Source of the templates: OpenGVLab/InternVL, internvl_chat/internvl/conversation.py, and the model cards for how several
images are numbered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import HERMES_TEMPLATE, INTERNVL2_5_TEMPLATE

DEMO_TEMPLATE = "litevlm-demo"
"""Prompt family of the model that ships with the package."""

START, END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END = "<img>", "</img>"


@dataclass(frozen=True)
class ChatTemplate:
    """One prompt family. Labels stand before an image and may name its `{index}`, from 1, and its `{camera}`."""

    system_message: str
    """'' for no system turn."""
    turn_separator: str
    """Text between the end of a turn and the start of the next."""
    label_of_one: str
    """Before the image if there is only one."""
    label_of_several: str
    """Before each image if there are more."""


TEMPLATES: Mapping[str, ChatTemplate] = {
    HERMES_TEMPLATE: ChatTemplate(
        system_message="你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
        "是一个有用无害的人工智能助手。",
        turn_separator="",
        label_of_one="",
        label_of_several="Image-{index} ({camera}): ",
    ),
    INTERNVL2_5_TEMPLATE: ChatTemplate(
        system_message="你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
        "多模态大语言模型。",
        turn_separator="\n",
        label_of_one="",
        label_of_several="Image-{index} ({camera}): ",
    ),
    DEMO_TEMPLATE: ChatTemplate(
        system_message="", turn_separator="\n", label_of_one="{camera}: ", label_of_several="{camera}: "
    ),
}


class Tokenizer(Protocol):
    """What the prompt needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; what looks like a special token in it is text too."""

    def special(self, token: str) -> int:
        """Id of a special token."""


class PromptBuilder:
    """Camera names and questions to token ids. Visual token i of the prompt has the id `vocab_size` + i."""

    def __init__(
        self,
        family: str,
        tokenizer: Tokenizer,
        vocab_size: int,
        tokens_per_tile: int,
        system_prompt: str | None = None,
    ) -> None:
        """`system_prompt` replaces the family's own; '' leaves it out.

        Raises CheckpointError for an unknown family, or if the tokenizer lacks one of the special tokens.
        """
        if family not in TEMPLATES:
            raise CheckpointError(
                f"the prompt family (template in vision_encoder/config.json) is {family!r}; "
                f"supported: {', '.join(TEMPLATES)}"
            )
        self.template = TEMPLATES[family]
        self._text = tokenizer.encode
        self._start, self._end = tokenizer.special(START), tokenizer.special(END)
        self._image_start, self._image_end = tokenizer.special(IMAGE_START), tokenizer.special(IMAGE_END)
        self._vocab_size = vocab_size
        self._tokens_per_tile = tokens_per_tile
        self._system_message = self.template.system_message if system_prompt is None else system_prompt

    def prefix(self, views: Sequence[tuple[str, int]]) -> list[int]:
        """Everything up to the newline behind the last image, of views given as camera name and number of tiles."""
        ids = self._system()
        ids.append(self._start)
        text, row = "user\n", self._vocab_size
        label = self.template.label_of_one if len(views) == 1 else self.template.label_of_several
        for index, (camera, tiles) in enumerate(views, start=1):
            rows = tiles * self._tokens_per_tile
            text += label.format(index=index, camera=camera.replace("_", " "))
            ids += [*self._text(text), self._image_start, *range(row, row + rows), self._image_end]
            text, row = "\n", row + rows
        return ids + self._text(text)

    def suffix(self, question: str) -> list[int]:
        """The question, without space around it, and the header of the answer."""
        return [
            *self._text(question.strip()),
            self._end,
            *self._text(self.template.turn_separator),
            self._start,
            *self._text("assistant\n"),
        ]

    def _system(self) -> list[int]:
        if not self._system_message:
            return []
        text = self._text("system\n" + self._system_message)
        return [self._start, *text, self._end, *self._text(self.template.turn_separator)]
