"""Where demo_cameras takes its pictures from: the rendered street world, a video file, or a folder of photos."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from litevlm_ros.errors import ConfigError, ImageError
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.questions import ask
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import CAMERAS, FIRST_HELD_OUT_SEED, Scene, generate

RgbImage = npt.NDArray[np.uint8]
"""uint8 [height, width, 3]."""

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

_PHASES = 3
"""Pictures drawn of each view: enough that rain and snow are seen to fall, few enough for a small machine."""
_PHASE_SECONDS = 0.35
_QUESTIONS = 6
_SCENES = 500_000_000
"""Scenes before those that training validates on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Shot:
    """What all cameras show at one moment. `truth` is set where a new scene begins."""

    images: Mapping[str, RgbImage]
    truth: Mapping[str, Any] | None = None


class Source(Protocol):
    """A stream of shots."""

    cameras: tuple[str, ...]

    def next(self, seconds: float) -> Shot:
        """The shot `seconds` after the start. Called with growing times."""

    def close(self) -> None:
        """Ends what runs in the background."""


class RenderedStreets:
    """A new scene of the street world every `scene_seconds`, from seeds that training never used."""

    def __init__(self, cameras: Sequence[str], seed: int, scene_seconds: float, width: int, height: int) -> None:
        """Raises ConfigError for a camera that the street world does not have, and for a seed out of range."""
        unknown = [camera for camera in cameras if camera not in CAMERAS]
        if unknown or not cameras:
            raise ConfigError(
                f"--cameras: the street world has no camera {', '.join(unknown) or 'without a name'}; "
                f"choose from {', '.join(CAMERAS)}"
            )
        if not 0 <= seed < _SCENES:
            raise ConfigError(f"--seed must be from 0 to {_SCENES - 1}, not {seed}")
        self.cameras = tuple(cameras)
        self._seed, self._scene_seconds, self._size = seed, scene_seconds, (width, height)
        # The next scene is drawn while this one shows.
        self._drawer = ThreadPoolExecutor(1, "drawer")
        self._number = -1
        self._views: dict[str, list[RgbImage]] = {}
        self._coming = self._draw(0)

    def next(self, seconds: float) -> Shot:
        number = int(seconds / self._scene_seconds)
        truth = None
        # On a machine too slow to draw in time, the old scene stays: better than frames that come late.
        if number != self._number and (self._coming.done() or not self._views):
            scene, self._views = self._coming.result()
            truth = ground_truth(scene, self.cameras)
            self._number = number
            self._coming = self._draw(number + 1)
        phase = int(seconds / _PHASE_SECONDS) % _PHASES
        return Shot({camera: views[phase] for camera, views in self._views.items()}, truth)

    def close(self) -> None:
        self._drawer.shutdown(wait=False, cancel_futures=True)

    def _draw(self, number: int) -> Future[tuple[Scene, dict[str, list[RgbImage]]]]:
        return self._drawer.submit(self._draw_views, FIRST_HELD_OUT_SEED + (self._seed + number) % _SCENES)

    def _draw_views(self, seed: int) -> tuple[Scene, dict[str, list[RgbImage]]]:
        scene = generate(seed)
        width, height = self._size
        phases = [step * _PHASE_SECONDS for step in range(_PHASES)]
        return scene, {
            camera: [render(scene, camera, width, height, phase=phase) for phase in phases] for camera in self.cameras
        }


def ground_truth(scene: Scene, cameras: Sequence[str]) -> dict[str, Any]:
    """Captions of the cameras, and questions about them with their answers, as JSON values."""
    questions = ask(scene, cameras, _QUESTIONS, np.random.default_rng(scene.seed))
    return {
        "scene_seed": scene.seed,
        "captions": {camera: caption(scene, camera) for camera in cameras},
        "questions": [
            {
                "question": question.text,
                "answer": question.answer,
                "cameras": list(question.cameras),
                "kind": question.kind,
            }
            for question in questions
        ],
    }


def truth_message(truth: Mapping[str, Any], sec: int, nanosec: int) -> str:
    """JSON of a scene's ground truth with the stamp of its first frames."""
    return json.dumps({"stamp": {"sec": sec, "nanosec": nanosec}, **truth})


class VideoFile:
    """The frames of a video, in a loop; every camera shows the same."""

    def __init__(self, path: Path, cameras: Sequence[str]) -> None:
        """Raises ImageError if the file is missing or is no video that OpenCV reads."""
        if not path.is_file():
            raise ImageError(f"--video: there is no file {path}")
        self.cameras = tuple(cameras)
        self._path = path
        self._open()
        # 0 and less is what OpenCV reports where a container does not say.
        rate = self._video.get(cv2.CAP_PROP_FPS)
        self._rate = rate if rate > 0 else 25.0
        self._shown = -1
        self._image = self._read()

    def next(self, seconds: float) -> Shot:
        wanted = int(seconds * self._rate)
        if self._shown < 0:
            self._shown = wanted
        # Frames between two shots are passed over, so that the video plays at its own speed.
        while self._shown < wanted - 1:
            self._shown += 1
            if not self._video.grab():
                self._open()
        if self._shown < wanted:
            self._shown = wanted
            self._image = self._read()
        return Shot(dict.fromkeys(self.cameras, self._image))

    def close(self) -> None:
        self._video.release()

    def _open(self) -> None:
        self._video = cv2.VideoCapture(str(self._path))

    def _read(self) -> RgbImage:
        read, frame = self._video.read()
        if not read:
            self._open()
            read, frame = self._video.read()
        if not read:
            raise ImageError(f"--video: {self._path} cannot be read as a video; try an MP4 (H.264) or AVI (MJPEG) file")
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


class PhotoFolder:
    """The photos of a folder in the order of their names, in a loop; camera i is i photos ahead."""

    def __init__(self, path: Path, cameras: Sequence[str], photo_seconds: float) -> None:
        """Raises ImageError if the folder is missing or has no readable photo."""
        if not path.is_dir():
            raise ImageError(f"--photos: there is no folder {path}")
        self.cameras = tuple(cameras)
        self._photo_seconds = photo_seconds
        self._photos = sorted(file for file in path.iterdir() if file.suffix.lower() in PHOTO_SUFFIXES)
        self._images: dict[str, RgbImage] = {}
        self._number = -1
        if not self._photos:
            raise ImageError(f"--photos: {path} has no photos; looked for {', '.join(sorted(PHOTO_SUFFIXES))}")
        self._path = path

    def next(self, seconds: float) -> Shot:
        number = int(seconds / self._photo_seconds)
        if number != self._number:
            self._number = number
            self._images = {camera: self._load(number + index) for index, camera in enumerate(self.cameras)}
        return Shot(self._images)

    def close(self) -> None:
        """Nothing runs in the background."""

    def _load(self, number: int) -> RgbImage:
        while self._photos:
            photo = self._photos[number % len(self._photos)]
            image = cv2.imread(str(photo), cv2.IMREAD_COLOR)
            if image is not None:
                return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
            _log.warning("%s is not a readable photo; it is left out", photo)
            self._photos.remove(photo)
        raise ImageError(f"--photos: none of the files in {self._path} is a readable photo")
