"""Training samples of the demo model: pictures of a scene with many questions packed behind one image prefix.

All questions about the same views share the prefix (chat header and visual tokens) and never see each other, exactly
as the pipeline reuses a prefix's KV cache at run time. So one forward pass teaches a dozen answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.questions import Question, ask, ask_for_caption
from litevlm_ros.lab.world.render import Canvas, render
from litevlm_ros.lab.world.scene import (
    CAMERAS,
    COLOURS,
    HELD_OUT_USERS,
    SIZE_METRES,
    Distance,
    Kind,
    LightState,
    Scene,
)

IGNORED = -100
"""Target of a position that no loss is taken on."""

SINGLE_VIEW_LENGTH = 288
MULTI_VIEW_LENGTH = 768
_SINGLE_VIEW_QUESTIONS = 8
_MULTI_VIEW_QUESTIONS = 12
_MISREAD_COLOURS = 0.2
_HELD_OUT_NAMES = tuple(f"{colour} {kind.value}" for kind, colour in HELD_OUT_USERS)
_RENDER_SIZES = ((640, 480), (320, 240), (480, 360), (448, 252))

KIND_CLASSES = 1 + len(Kind) + 1
COLOUR_CLASSES = 1 + len(COLOURS) + len(LightState)
DISTANCE_CLASSES = 1 + len(Distance)

EncodePrefix = Callable[[Sequence[str]], "list[int]"]
EncodeQuestion = Callable[[str], "list[int]"]


@dataclass(frozen=True)
class Vocabulary:
    """How text becomes ids: the run-time prompt's own functions, and the token that ends an answer."""

    prefix: EncodePrefix
    """Camera names -> ids up to and including the images; row i of the visual tokens is vocabulary size + i."""
    suffix: EncodeQuestion
    """Question -> ids from the question to the assistant's header."""
    text: EncodeQuestion
    end: int
    colours: tuple[int, ...]
    """The ids of the colours' names."""


@dataclass(frozen=True)
class Pack:
    """One token sequence. All int32 [length]; `segment` is 0 in the prefix, k in the k-th question, -1 in padding."""

    ids: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    segment: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]


def pictures(scene: Scene, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """All six views at model size, uint8 [6, size, size, 3], each drawn at some camera's resolution first."""
    return np.stack([picture(scene, camera, size, rng) for camera in CAMERAS])


def picture(scene: Scene, camera: str, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One of them, uint8 [size, size, 3]."""
    width, height = _RENDER_SIZES[int(rng.integers(len(_RENDER_SIZES)))]
    shot = render(scene, camera, width, height, phase=float(rng.uniform(0, 20)))
    return np.asarray(Image.fromarray(shot).resize((size, size), Image.Resampling.BICUBIC))


def grid_labels(scene: Scene, grid: int) -> npt.NDArray[np.uint8]:
    """What each visual token looks at, uint8 [6, grid, grid, 3]: classes of kind, colour and distance (0 is nothing).

    Only training uses it, as a second objective that teaches the encoder to see long before captions alone would.
    """
    labels = np.zeros((len(CAMERAS), grid, grid, 3), np.uint8)
    camera_model = Canvas(grid, grid)
    for index, camera in enumerate(CAMERAS):
        view = scene.views[camera]
        boxes = [
            (user.depth, user.azimuth, user.half_width_degrees(), (0.0, SIZE_METRES[user.kind][2]),
             (1 + list(Kind).index(user.kind), 1 + COLOURS.index(user.colour), 1 + list(Distance).index(user.distance)))
            for user in view.users
        ]  # fmt: skip
        if view.light:
            state = 1 + len(COLOURS) + list(LightState).index(view.light.state)
            boxes.append((view.light.depth, view.light.azimuth, 1.6, (2.2, 4.3), (KIND_CLASSES - 1, state, 0)))
        for depth, azimuth, reach, heights, classes in sorted(boxes, key=lambda box: -box[0]):
            edges = -np.tan(np.radians([azimuth + reach, azimuth - reach])) * depth
            corners = np.array([[edges[0], heights[1], depth], [edges[1], heights[0], depth]])
            (left, top), (right, bottom) = camera_model.project(corners)
            middle = ((left + right) / 2, (top + bottom) / 2)
            # Cells that the object covers at least half, and the one at its centre.
            columns = slice(max(0, round(min(left, middle[0] - 0.5))), max(1, round(max(right, middle[0] + 0.5))))
            rows = slice(max(0, round(min(top, middle[1] - 0.5))), max(1, round(max(bottom, middle[1] + 0.5))))
            labels[index, rows, columns] = classes
    return labels


def single_view_pack(
    scene: Scene, camera: str, vocabulary: Vocabulary, rng: np.random.Generator, *, unseen: bool = False
) -> Pack:
    """One view with its caption (first) and questions. The view's rows are numbered from 0."""
    turns = [(ask_for_caption(camera, (camera,), rng), caption(scene, camera))]
    turns += _turns(ask(scene, (camera,), _SINGLE_VIEW_QUESTIONS, rng, unseen=unseen), rng, unseen)
    # A user's camera may have any name.
    name = camera if rng.random() < 0.85 else ("camera", "cam0", "image", "usb_cam")[int(rng.integers(4))]
    return _pack(vocabulary.prefix((name,)), turns, vocabulary, SINGLE_VIEW_LENGTH, rng if not unseen else None)


def multi_view_pack(
    scene: Scene, cameras: Sequence[str], vocabulary: Vocabulary, rng: np.random.Generator, *, unseen: bool = False
) -> Pack:
    """Several views with a caption (first) and questions about one or all. Rows are numbered as `cameras` are."""
    described = cameras[int(rng.integers(len(cameras)))]
    turns = [(ask_for_caption(described, cameras, rng), caption(scene, described))]
    turns += _turns(ask(scene, cameras, _MULTI_VIEW_QUESTIONS, rng, unseen=unseen), rng, unseen)
    return _pack(vocabulary.prefix(cameras), turns, vocabulary, MULTI_VIEW_LENGTH, rng if not unseen else None)


def _turns(questions: Sequence[Question], rng: np.random.Generator, unseen: bool) -> list[tuple[str, str]]:
    turns = []
    for question in questions:
        # Training shows no yellow car; asking for one would teach that there never is one.
        if not unseen and any(name in question.text for name in _HELD_OUT_NAMES):
            continue
        text = question.text
        if rng.random() < 0.15:
            text = text.lower().rstrip("?.")
        turns.append((text, question.answer))
    return turns


def _pack(
    prefix: list[int],
    turns: Sequence[tuple[str, str]],
    vocabulary: Vocabulary,
    length: int,
    misread: np.random.Generator | None,
) -> Pack:
    """With `misread`, some colours in the answers are read wrong where the next word is to be predicted."""
    ids = np.zeros(length, np.int32)
    targets = np.full(length, IGNORED, np.int32)
    segment = np.full(length, -1, np.int32)
    positions = np.zeros(length, np.int32)
    filled = len(prefix)
    ids[:filled], segment[:filled], positions[:filled] = prefix, 0, np.arange(filled)
    for number, (question, answer) in enumerate(turns, start=1):
        asked = vocabulary.suffix(question)
        answered = [*vocabulary.text(answer), vocabulary.end]
        end = filled + len(asked) + len(answered)
        if end > length:
            break
        ids[filled:end] = asked + (_misread(answered, vocabulary.colours, misread) if misread else answered)
        segment[filled:end] = number
        positions[filled:end] = len(prefix) + np.arange(end - filled)
        # Position p predicts the token at p + 1.
        targets[end - len(answered) - 1 : end - 1] = answered
        filled = end
    return Pack(ids, targets, segment, positions)


def _misread(answer: list[int], colours: tuple[int, ...], rng: np.random.Generator) -> list[int]:
    """The answer with some colours swapped.

    The targets stay true: so what follows "a yellow" has to be looked up in the picture, not in a memory of which
    kinds have been yellow.
    """
    return [
        colours[int(rng.integers(len(colours)))] if token in colours and rng.random() < _MISREAD_COLOURS else token
        for token in answer
    ]
