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
from tokenizers import Tokenizer

from litevlm_ros import prompt_families
from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.world.canvas import Canvas
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.questions import Question, draw_caption_prompt, draw_questions
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import COLOURS, HELD_OUT_USERS, SIZE_METRES, Distance, Kind, LightState, Scene
from litevlm_ros.text.prompt import PromptBuilder
from litevlm_ros.text.tokenizer import TextTokenizer

IGNORED = -100
"""Target of a position that no loss is taken on."""

_SINGLE_VIEW_LENGTH = 288
_MULTI_VIEW_LENGTH = 768
_SINGLE_VIEW_QUESTIONS = 8
_MULTI_VIEW_QUESTIONS = 12
_MISREAD_COLOURS = 0.2
_HELD_OUT_NAMES = tuple(f"{colour} {kind.value}" for kind, colour in HELD_OUT_USERS)
_RENDER_SIZES = ((640, 480), (320, 240), (480, 360), (448, 252))

TOKENS_PER_VIEW = 64
"""Visual tokens of the demo model for one view."""

KIND_CLASSES = 1 + len(Kind) + 1
COLOUR_CLASSES = 1 + len(COLOURS) + len(LightState)
DISTANCE_CLASSES = 1 + len(Distance)

EncodePrefix = Callable[[Sequence[str]], "list[int]"]
EncodeQuestion = Callable[[str], "list[int]"]


@dataclass(frozen=True)
class Vocabulary:
    """The functions that turn text into ids, which are the pipeline's own, and the token that ends an answer."""

    prefix: EncodePrefix
    """Camera names -> ids up to and including the images; row i of the visual tokens is vocabulary size + i."""
    suffix: EncodeQuestion
    """Question -> ids from the question to the assistant's header."""
    text: EncodeQuestion
    end: int
    colours: tuple[int, ...]
    """The ids of the colours' names."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Returns the vocabulary of the demo model with this tokenizer."""
        text = TextTokenizer(tokenizer)
        prompt = PromptBuilder(prompt_families.DEMO, text, tokenizer.get_vocab_size(), TOKENS_PER_VIEW)
        colours = [text.encode(f" {colour}") for colour in COLOURS]
        return cls(
            prefix=lambda cameras: prompt.prefix([(camera, 1) for camera in cameras]),
            suffix=prompt.suffix,
            text=text.encode,
            end=text.special("<|im_end|>"),
            colours=tuple(ids[0] for ids in colours if len(ids) == 1),
        )


@dataclass(frozen=True)
class Pack:
    """One token sequence. All int32 [length]; `segment` is 0 in the prefix, k in the k-th question, -1 in padding."""

    ids: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    segment: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]


def pictures(scene: Scene, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Returns all six views at model size, uint8 [6, size, size, 3]."""
    return np.stack([picture(scene, camera, size, rng) for camera in DEMO_CAMERAS])


def picture(scene: Scene, camera: str, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Returns one view at model size, uint8 [size, size, 3], rendered at a random resolution and then resized."""
    width, height = _RENDER_SIZES[int(rng.integers(len(_RENDER_SIZES)))]
    shot = render(scene, camera, width, height, phase=float(rng.uniform(0, 20)))
    return np.asarray(Image.fromarray(shot).resize((size, size), Image.Resampling.BICUBIC))


def grid_labels(scene: Scene, grid: int) -> npt.NDArray[np.uint8]:
    """Returns uint8 [6, grid, grid, 3]: classes of kind, colour and distance for each visual token (0 is nothing).

    Only training uses it, as a second objective that teaches the encoder to see long before captions alone would.
    """
    labels = np.zeros((len(DEMO_CAMERAS), grid, grid, 3), np.uint8)
    camera_model = Canvas(grid, grid)
    for index, camera in enumerate(DEMO_CAMERAS):
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
    """Packs one view's caption (first) and questions. The view's rows are numbered from 0."""
    turns = [(draw_caption_prompt(camera, (camera,), rng), caption(scene, camera))]
    turns += _turns(draw_questions(scene, (camera,), _SINGLE_VIEW_QUESTIONS, rng, unseen=unseen), rng, unseen)
    # A user's camera may have any name.
    name = camera if rng.random() < 0.85 else ("camera", "cam0", "image", "usb_cam")[int(rng.integers(4))]
    return _pack(vocabulary.prefix((name,)), turns, vocabulary, _SINGLE_VIEW_LENGTH, rng if not unseen else None)


def multi_view_pack(
    scene: Scene, cameras: Sequence[str], vocabulary: Vocabulary, rng: np.random.Generator, *, unseen: bool = False
) -> Pack:
    """Packs one view's caption (first) and questions about one view or all. Rows are numbered as `cameras` are."""
    described = cameras[int(rng.integers(len(cameras)))]
    turns = [(draw_caption_prompt(described, cameras, rng), caption(scene, described))]
    turns += _turns(draw_questions(scene, cameras, _MULTI_VIEW_QUESTIONS, rng, unseen=unseen), rng, unseen)
    return _pack(vocabulary.prefix(cameras), turns, vocabulary, _MULTI_VIEW_LENGTH, rng if not unseen else None)


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
    """Packs as many question-answer pairs behind the prefix as fit. With `misread`, some colours in ids are wrong."""
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
    """Returns the answer with some colours swapped.

    The targets stay true: so what follows "a yellow" has to be looked up in the picture, not in a memory of which
    kinds have been yellow.
    """
    return [
        colours[int(rng.integers(len(colours)))] if token in colours and rng.random() < _MISREAD_COLOURS else token
        for token in answer
    ]
