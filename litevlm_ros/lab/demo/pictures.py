"""The choice of what the cameras of a demo show, and the source of images for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litevlm_ros.lab.demo.camera_device import CameraDevice
from litevlm_ros.lab.demo.sources import Photos, RenderedStreets, Source, VideoFile


@dataclass(frozen=True)
class Pictures:
    """A video, a camera of this machine, or photos: at most one of them. Without any, the rendered street.

    `device` is as `CameraDevice` takes it, and `photos` is a photo or a folder of photos.
    """

    video: Path | None = None
    device: str | None = None
    photos: Path | None = None

    @property
    def rendered(self) -> bool:
        """True for the rendered street."""
        return self.video is None and self.device is None and self.photos is None

    @property
    def options(self) -> list[str]:
        """The options by which demo_cameras shows the same."""
        if self.video is not None:
            return ["--video", str(self.video.absolute())]
        if self.device is not None:
            return ["--device", self.device]
        return [] if self.photos is None else ["--photos", str(self.photos.absolute())]

    def open(
        self,
        cameras: Sequence[str],
        *,
        seed: int = 0,
        scene_seconds: float = 10.0,
        size: tuple[int, int] = (640, 480),
    ) -> Source:
        """Opens the source for these cameras. `size` is the width and height of rendered images in pixels.

        Raises ImageError, with the fix, for pictures that cannot be read, and ConfigError for a camera or a `seed` that
        the rendered street does not have.
        """
        if self.video is not None:
            return VideoFile(self.video, cameras)
        if self.device is not None:
            return CameraDevice(self.device, cameras)
        if self.photos is not None:
            return Photos(self.photos, cameras, scene_seconds)
        return RenderedStreets(cameras, seed, scene_seconds, *size)

    def check(self) -> None:
        """Reads a first image and lets go of the source again. Raises ImageError as `open` does."""
        if not self.rendered:
            source = self.open(("front",))
            try:
                source.next(0.0)
            finally:
                source.close()
