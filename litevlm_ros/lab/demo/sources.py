"""Sources of images for demo_cameras: the rendered street world, a video file, or photos."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.errors import ConfigError, ImageError, MalformedImageError
from litevlm_ros.images.compressed import decode_compressed
from litevlm_ros.lab.demo.ground_truth import scene_facts
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import Scene, generate
from litevlm_ros.lab.world.splits import demo_seed
from litevlm_ros.types import RgbImage

_OTHER_SUFFIXES = frozenset({".bmp", ".webp"})
"""Photos of these formats are read too, although the node takes none from a camera."""
_PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", *_OTHER_SUFFIXES})

_PHASES = 3
"""Pictures rendered of each view: enough for falling rain and snow, few enough for a small machine."""
_PHASE_SECONDS = 0.35

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Shot:
    """The images of all cameras at one moment. `facts`, the ground truth, is set where a new rendered scene begins."""

    images: Mapping[str, RgbImage]
    facts: Mapping[str, Any] | None = None


class Source(Protocol):
    """A stream of shots."""

    cameras: tuple[str, ...]

    def next(self, seconds: float) -> Shot:
        """Returns the shot `seconds` after the start. The times of successive calls must not decrease."""

    def close(self) -> None:
        """Ends background work and closes files."""


class RenderedStreets:
    """A new scene of the street world every `scene_seconds`, from the held-out seeds of `splits.demo_seed`."""

    def __init__(self, cameras: Sequence[str], seed: int, scene_seconds: float, width: int, height: int) -> None:
        """Starts to render scene `seed`, `width` x `height` pixels for each camera.

        Raises ConfigError for a camera that the street world does not have, and for a seed out of range.
        """
        unknown = [camera for camera in cameras if camera not in DEMO_CAMERAS]
        if unknown or not cameras:
            raise ConfigError(
                f"--cameras: the street world has no camera {', '.join(unknown) or 'without a name'}; "
                f"choose from {', '.join(DEMO_CAMERAS)}"
            )
        self.cameras = tuple(cameras)
        self._seed, self._scene_seconds, self._size = seed, scene_seconds, (width, height)
        # The next scene is drawn while this one shows.
        self._drawer = ThreadPoolExecutor(1, "drawer")
        self._number = -1
        self._views: dict[str, list[RgbImage]] = {}
        self._coming = self._draw(0)

    def next(self, seconds: float) -> Shot:
        number = int(seconds / self._scene_seconds)
        facts = None
        # On a machine too slow to draw in time, the old scene stays: better than frames that come late.
        if number != self._number and (self._coming.done() or not self._views):
            scene, self._views = self._coming.result()
            facts = scene_facts(scene, self.cameras)
            self._number = number
            self._coming = self._draw(number + 1)
        phase = int(seconds / _PHASE_SECONDS) % _PHASES
        return Shot({camera: views[phase] for camera, views in self._views.items()}, facts)

    def close(self) -> None:
        self._drawer.shutdown(wait=False, cancel_futures=True)

    def _draw(self, number: int) -> Future[tuple[Scene, dict[str, list[RgbImage]]]]:
        return self._drawer.submit(self._draw_views, demo_seed(self._seed, number))

    def _draw_views(self, seed: int) -> tuple[Scene, dict[str, list[RgbImage]]]:
        scene = generate(seed)
        width, height = self._size
        phases = [step * _PHASE_SECONDS for step in range(_PHASES)]
        return scene, {
            camera: [render(scene, camera, width, height, phase=phase) for phase in phases] for camera in self.cameras
        }


class VideoFile:
    """The frames of a video at its own speed, in a loop; every camera shows the same."""

    def __init__(self, path: Path, cameras: Sequence[str]) -> None:
        """Raises ImageError if the file is missing or is no video that OpenCV reads."""
        require_readable("video", path)
        quiet_opencv()
        self.cameras = tuple(cameras)
        self._path = path
        self._open()
        # OpenCV reports 0 or less where the container has no frame rate.
        rate = self._video.get(cv2.CAP_PROP_FPS)
        self._rate = rate if rate > 0 else 25.0
        self._shown = -1
        self._image = self._read()

    def next(self, seconds: float) -> Shot:
        wanted = int(seconds * self._rate)
        if self._shown < 0:
            self._shown = wanted
        # Frames between two shots are skipped, so that the video plays at its own speed.
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
            raise ImageError(f"Video {self._path} {self._fault()}")
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)

    def _fault(self) -> str:
        convert = f"convert it with `ffmpeg -i {self._path} -c:v libx264 {self._path.stem}_h264.mp4`"
        if self._video.isOpened():
            return f"opens, but OpenCV {cv2.__version__} here cannot decode its pictures; {convert}"
        return f"cannot be read; try an MP4 (H.264) or AVI (MJPEG) file, or {convert}"


class Photos:
    """One photo, or those of a folder in the order of their names, in a loop; camera i is i photos ahead."""

    def __init__(self, path: Path, cameras: Sequence[str], photo_seconds: float) -> None:
        """`path` is a photo or a folder. Raises ImageError if it is missing or has no readable photo."""
        if not path.is_dir():
            require_readable("photo", path)
        self.cameras = tuple(cameras)
        self._photo_seconds = photo_seconds
        self._photos = _photo_files(path) if path.is_dir() else [path]
        self._images: dict[str, RgbImage] = {}
        self._number = -1
        if not self._photos:
            raise ImageError(f"Folder {path} has no photos; looked for {', '.join(sorted(_PHOTO_SUFFIXES))}")
        self._path = path

    def next(self, seconds: float) -> Shot:
        number = int(seconds / self._photo_seconds)
        if number != self._number:
            self._number = number
            self._images = {camera: self._load(number + index) for index, camera in enumerate(self.cameras)}
        return Shot(self._images)

    def close(self) -> None:
        """Does nothing: there is no background work."""

    def _load(self, number: int) -> RgbImage:
        while self._photos:
            photo = self._photos[number % len(self._photos)]
            try:
                return _read_photo(photo)
            except ImageError as error:
                if photo == self._path:
                    raise ImageError(f"{photo} is not a readable photo: {error}; take a JPEG or PNG file") from None
                _log.warning("%s is not a readable photo, and is left out: %s", photo, error)
            self._photos.remove(photo)
        raise ImageError(f"None of the files in {self._path} is a readable photo")


def require_readable(kind: str, file: Path) -> None:
    """Raises ImageError, with the fix, if `file` is missing or may not be read. `kind` says what it is."""
    if not file.is_file():
        raise ImageError(f"There is no {kind} {file}")
    if not os.access(file, os.R_OK):
        raise ImageError(f"Permission denied for {kind} {file}: allow it with `sudo chmod a+r {file}`")


def quiet_opencv() -> None:
    """Silences OpenCV and its FFmpeg, whose lines about a file that does not open say less than our message."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # cv2's types do not list this module's names.
    logging_of_cv2: Any = cv2.utils.logging
    logging_of_cv2.setLogLevel(logging_of_cv2.LOG_LEVEL_SILENT)


def _read_photo(photo: Path) -> RgbImage:
    """Reads a photo as the node would, or with OpenCV if its format is none that the node takes. Raises ImageError."""
    try:
        return decode_compressed(photo.suffix[1:], photo.read_bytes())
    except MalformedImageError as error:
        image = cv2.imread(str(photo), cv2.IMREAD_COLOR) if photo.suffix.lower() in _OTHER_SUFFIXES else None
        if image is None:
            raise error
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    except OSError as error:
        raise ImageError(str(error)) from None


def _photo_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _PHOTO_SUFFIXES)
