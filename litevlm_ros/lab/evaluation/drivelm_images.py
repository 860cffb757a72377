"""Finds and reads the pictures that a question file of DriveLM names, in a folder that its user has.

The files name them from where DriveLM keeps its data ('../nuscenes/samples/CAM_FRONT/x.jpg'), with backslashes if they
were written on Windows. A folder may begin anywhere on that path, or hold the pictures in an order of its own.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from litevlm_ros.errors import ConfigError, ImageError, printable
from litevlm_ros.images.compressed import decode_compressed
from litevlm_ros.lab.evaluation.drivelm_file import KeyFrame, LeftOut
from litevlm_ros.types import View


class ImageFolder:
    """A folder with pictures. Nothing outside it is read, whatever a path says."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError if `folder` is none."""
        if not folder.is_dir():
            raise ConfigError(f"--images: {folder} is no folder. Name the one that has the pictures, such as nuscenes/")
        self._folder = folder

    def find(self, path: str) -> Path | None:
        """Returns the picture that a question file calls `path`; None if it is not there.

        It is looked for by the path, then without the first folder of the path, and so on; at last by its name alone in
        all folders below.
        """
        parts = [part for part in re.split(r"[\\/]+", path) if part not in ("", ".", "..") and not part.endswith(":")]
        if not parts:
            return None
        for start in range(len(parts)):
            file = self._folder.joinpath(*parts[start:])
            if os.path.isfile(file):  # unlike Path.is_file, false for a name that no file can have
                return file
        return self._by_name.get(parts[-1])

    @functools.cached_property
    def _by_name(self) -> dict[str, Path]:
        return {name: Path(directory, name) for directory, _, names in os.walk(self._folder) for name in sorted(names)}


def with_images(frames: Iterable[KeyFrame], folder: ImageFolder, named: Path, left_out: LeftOut) -> list[KeyFrame]:
    """Returns the key frames whose pictures are all there, with the paths that they have on this machine.

    `named` is the question file. Raises ConfigError if no key frame has all of its pictures.
    """
    complete, missing = [], ""
    for frame in frames:
        files = {camera: folder.find(path) for camera, path in frame.images.items()}
        lacking = [path for camera, path in frame.images.items() if files[camera] is None]
        if lacking:
            missing = missing or lacking[0]
            left_out.add("key frames without all of their pictures", lacking[0])
        else:
            complete.append(KeyFrame(frame.id, {name: str(file) for name, file in files.items()}, frame.questions))
    if not complete:
        raise ConfigError(
            f"--images: no key frame of {named} has all of its pictures there; '{printable(missing, 200)}' is the "
            "first that is missing. Name the folder that has samples/, or the pictures themselves"
        )
    return complete


def read_views(frame: KeyFrame) -> list[View]:
    """Decodes the pictures of a key frame of `with_images`. They have no frame names, so nothing of them is reused.

    Raises ImageError, which names the file.
    """
    views = []
    for camera, path in frame.images.items():
        try:
            views.append(View(camera, decode_compressed("jpeg", Path(path).read_bytes())))
        except (ImageError, OSError) as error:
            raise ImageError(f"{path}: {error}") from None
    return views
