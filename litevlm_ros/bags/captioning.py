"""Captions of recorded images: each image of a bag through a pipeline, as an entry of the caption log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from litevlm_ros.bags.caption_log import CaptionLog, Entry
from litevlm_ros.bags.image_bag import ImageBag, RecordedImage
from litevlm_ros.errors import ImageError
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import View, milliseconds_since


def caption_images(
    bag: ImageBag, topics: Sequence[str], period: float, prompt: str, log: CaptionLog, pipeline: Pipeline
) -> Iterator[Entry | None]:
    """Yields one item for each image message on `topics`, in the order of recording: its entry once it is in `log`.

    The item is None for an image that came less than `period` seconds after the topic's last one, or that an earlier
    run has captioned. Raises BagError where the bag ends early, and OSError if the log cannot be written.
    """
    for image in bag.images(topics, period):
        if image is None or (image.topic, image.bag_time) in log.done:
            yield None
        else:
            entry = _caption(image, prompt, pipeline)
            log.add(entry)
            yield entry


def camera_name(topic: str) -> str:
    """Returns the camera's name in an image topic: 'front' for /front/image_raw/compressed."""
    name = topic.strip("/").removesuffix("/compressed")
    return name.rpartition("/")[0] or name


def _caption(recorded: RecordedImage, prompt: str, pipeline: Pipeline) -> Entry:
    camera = camera_name(recorded.topic)
    sec, nanosec = recorded.stamp
    about: dict[str, Any] = {
        "topic": recorded.topic,
        "camera": camera,
        "bag_time": recorded.bag_time,
        "stamp": {"sec": sec, "nanosec": nanosec},
        "frame_id": recorded.frame_id,
    }
    started = time.perf_counter()
    try:
        image = recorded.decode()
    except ImageError as error:
        return {**about, "error": str(error)}
    decode_ms = milliseconds_since(started)
    answer = pipeline.generate([View(camera, image)], prompt)
    timings = replace(answer.timings, decode_image=decode_ms, total=answer.timings.total + decode_ms)
    return {**about, **replace(answer, timings=timings).message_fields()}
