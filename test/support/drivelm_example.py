"""A small question file in the form of DriveLM's challenge, about rendered scenes, with its pictures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.world.canvas import CAMERA_HEIGHT_METRES, Canvas
from litevlm_ros.lab.world.questions import draw_questions
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import SIZE_METRES, Scene, generate

SIZE = (1600, 900)
"""Width and height of the pictures, and of the coordinates in the questions."""

_SCENES = ((90_000_001, 90_000_002), (90_000_003,))
_SHORT_QUESTIONS = 8


@dataclass(frozen=True)
class DriveLMExample:
    """A question file, what is in it, and the folder that its paths begin in."""

    file: Path
    content: dict[str, Any]
    images: Path


def write_example(folder: Path) -> DriveLMExample:
    """Writes three key frames of two scenes, with questions of all tags, and their 18 pictures."""
    images = folder / "nuscenes"
    content: dict[str, Any] = {}
    for number, seeds in enumerate(_SCENES):
        frames = {f"frame{seed}": _key_frame(generate(seed), images) for seed in seeds}
        content[f"scene{number}"] = {"scene_description": "A drive through a drawn town.", "key_frames": frames}
    file = folder / "test_eval.json"
    file.write_text(json.dumps(content))
    return DriveLMExample(file, content, images)


def qa(question: str, answer: str, *tags: int) -> dict[str, Any]:
    """Returns a question as the files have it."""
    empty = dict.fromkeys(("C", "con_up", "con_down", "cluster", "layer"))
    return {"Q": question, "A": answer, **empty, "tag": list(tags)}


def _key_frame(scene: Scene, images: Path) -> dict[str, Any]:
    objects = _objects(scene)
    listed = ", ".join(objects)
    first = next(iter(objects))
    short = draw_questions(scene, DEMO_CAMERAS, _SHORT_QUESTIONS, np.random.default_rng(scene.seed))
    return {
        "key_object_infos": {name: {"Category": "Vehicle", "2d_bbox": [0.0] * 4} for name in objects},
        "QA": {
            "perception": [
                qa("List the road users that matter for the next seconds.", f"They are {listed}.", 2),
                qa(f"In which way does {first} move? One of these: A. Turning left. B. Standing.", "B", 0),
            ],
            "prediction": [
                qa("In which order would you look at the road users?", f"At {listed}, in this order.", 3),
                *(qa(question.text, question.answer, 0) for question in short),
            ],
            "planning": [qa(f"What would be wise to do about {first}?", "To keep a distance.", 1)],
            "behavior": [qa("How will the car go on? One of these: A. To the left. B. Straight on.", "B", 0)],
        },
        "image_paths": {
            f"CAM_{camera.upper()}": f"../nuscenes/{_write_picture(scene, camera, images)}" for camera in DEMO_CAMERAS
        },
    }


def _objects(scene: Scene) -> dict[str, None]:
    """Returns the names of all road users, in order, with the pixel of their middle."""
    canvas = Canvas(*SIZE)
    names = {}
    for camera, view in scene.views.items():
        for user in view.users:
            height = min(SIZE_METRES[user.kind][2], 2 * CAMERA_HEIGHT_METRES) / 2
            middle = np.array([[-math.tan(math.radians(user.azimuth)) * user.depth, height, user.depth]])
            x, y = canvas.project(middle)[0]
            names[f"<c{len(names) + 1},CAM_{camera.upper()},{x:.1f},{y:.1f}>"] = None
    return names


def _write_picture(scene: Scene, camera: str, images: Path) -> Path:
    """Draws and writes a picture. Returns its path in `images`."""
    channel = f"CAM_{camera.upper()}"
    path = Path("samples") / channel / f"town__{channel}__{scene.seed}.jpg"
    (images / path).parent.mkdir(parents=True, exist_ok=True)
    picture = cv2.cvtColor(render(scene, camera, *SIZE), cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(images / path), picture)
    return path
