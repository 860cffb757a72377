"""The words in which a model is asked DriveLM's questions, and the form in which they and its answers name objects.

DriveLM's files write an object as '<c1,CAM_BACK,1088.3,497.5>': a name, a camera, and a pixel of its 1600x900 picture.
Mini-InternVL2-DA-DriveLM, which sees all cameras in one stitched picture, was taught '<c1,CAM_BACK,[560, 776]>': whole
thousandths of the stitched picture's width and height. Its answers are scored when they are pixels again.

Sources: arXiv 2410.16261, section 4.2.1, for the questions; OpenGVLab/InternVL,
internvl_chat/eval/domain_specific/drivelm/evaluate.py, for the answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from litevlm_ros.lab.evaluation.drivelm_file import camera_name
from litevlm_ros.types import View
from litevlm_ros.vision.stitching import arrange, cell_place, grid

PICTURE_SIZE = (1600, 900)
"""Width and height of the pictures of nuScenes, and so of the pixels in DriveLM's files."""

SOURCE_FORM, STITCHED_FORM = "source", "stitched"
OBJECT_FORMS = (SOURCE_FORM, STITCHED_FORM)
"""Objects as DriveLM's files write them, and in thousandths of the stitched picture."""

TRAINED_HINT = (
    "Objects are encoded using <c,CAM,[cx,cy]>, where c is the identifier, CAM indicates the camera where the object’s "
    "center point is situated, and x, y represent the horizontal and vertical coordinates of the center point of the "
    "2D bounding box."
)
"""The text that stood behind each question when Mini-InternVL2-DA-DriveLM was trained. It is part of its prompt."""

_THOUSAND = 1000
_NUMBER = r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*"
_NAMED = r"<(c[^,<>]*),\s*(\w+)\s*,"
_SOURCE = re.compile(rf"{_NAMED}{_NUMBER},{_NUMBER}>")
_STITCHED = re.compile(rf"{_NAMED}\s*\[{_NUMBER},{_NUMBER}\]\s*>")


@dataclass(frozen=True)
class Wording:
    """The form of the objects that a model was taught, one of OBJECT_FORMS, and a text to put behind each question."""

    object_form: str = SOURCE_FORM
    hint: str = ""

    @classmethod
    def chosen(cls, object_form: str | None, hint: str | None, *, stitched: bool) -> Wording:
        """Returns the wording with what is not None, and else with what fits a model that sees `stitched` pictures."""
        form = object_form or (STITCHED_FORM if stitched else SOURCE_FORM)
        trained = TRAINED_HINT if form == STITCHED_FORM else ""
        return cls(form, trained if hint is None else hint)

    def question(self, text: str, views: Sequence[View]) -> str:
        """Returns a question of the file as the model is asked it about these views."""
        if self.object_form == STITCHED_FORM:
            text = StitchedObjects(views).to_thousandths(text)
        return f"{text} {self.hint}" if self.hint else text

    def answer(self, text: str, views: Sequence[View]) -> str:
        """Returns the model's answer about these views with its objects as the file writes them."""
        return StitchedObjects(views).to_pixels(text) if self.object_form == STITCHED_FORM else text


class StitchedObjects:
    """Objects of the cameras in one stitched picture. Its cells are those that `vision.stitching` gives the cameras.

    Objects of other cameras stay as they are, and so does whatever has not two numbers.
    """

    def __init__(self, views: Sequence[View]) -> None:
        """`views` are those that are stitched, in any order. One view alone is a picture of one cell."""
        self._columns, self._rows = grid(len(views))
        self._cells = {view.camera: cell_place(number, len(views)) for number, view in enumerate(arrange(views))}

    def to_thousandths(self, text: str) -> str:
        """Returns the text with its pixels in thousandths of the stitched picture. Pixels stay in their cell."""
        return _SOURCE.sub(self._thousandths, text)

    def to_pixels(self, text: str) -> str:
        """Returns the text with its thousandths in pixels of each camera's picture, with one decimal.

        A point outside the cell of its camera becomes the nearest pixel of the cell, as in OpenGVLab's evaluation.
        """
        return _STITCHED.sub(self._pixels, text)

    def _thousandths(self, found: re.Match[str]) -> str:
        cell = self._cells.get(camera_name(found[2]))
        if cell is None:
            return found[0]
        (column, row), (width, height) = cell, PICTURE_SIZE
        x = (column + _share(float(found[3]) / width)) / self._columns
        y = (row + _share(float(found[4]) / height)) / self._rows
        return f"<{found[1]},{found[2]},[{x * _THOUSAND:.0f}, {y * _THOUSAND:.0f}]>"

    def _pixels(self, found: re.Match[str]) -> str:
        cell = self._cells.get(camera_name(found[2]))
        if cell is None:
            return found[0]
        (column, row), (width, height) = cell, PICTURE_SIZE
        x = _share(float(found[3]) / _THOUSAND * self._columns - column) * width
        y = _share(float(found[4]) / _THOUSAND * self._rows - row) * height
        return f"<{found[1]},{found[2]},{x:.1f},{y:.1f}>"


def _share(value: float) -> float:
    """Returns the nearest value from 0 to 1: a share of a cell's width or height."""
    return max(0.0, min(1.0, value))
