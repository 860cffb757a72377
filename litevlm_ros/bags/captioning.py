"""Captions of recorded images: each image of a bag through a pipeline, as an entry of the caption log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from litevlm_ros.bags.caption_log import CaptionLog, Entry
from litevlm_ros.bags.image_bag import ImageBag, RecordedImage
from litevlm_ros.bags.image_topics import camera_name
from litevlm_ros.bags.origin import Origin
from litevlm_ros.errors import ConfigError, ImageError, printable
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import View, milliseconds_since


def check_log(bag: ImageBag, log: CaptionLog) -> None:
    """Raises ConfigError if the log has more images of a topic than the bag, and so is about another recording."""
    logged: Counter[str] = Counter()
    for (topic, _), count in log.done.items():
        logged[topic] += count
    for topic, count in logged.items():
        if count > bag.image_topics.get(topic, 0):
            raise ConfigError(
                f"{log.file} is about another bag: it has {count} images of {printable(topic)}, of which {bag.path} "
                f"has {bag.image_topics.get(topic, 0)}; choose another --output"
            )


def caption_images(
    bag: ImageBag, topics: Sequence[str], period: float, origin: Origin, log: CaptionLog, pipeline: Pipeline
) -> Iterator[Entry | None]:
    """Yields one item for each image message on `topics`, in the order of recording: its entry once it is in `log`.

    The item is None for an image that came less than `period` seconds after the topic's last one, or that an earlier
    run has captioned. Raises BagError at the end if images are missing, and OutputError if the log cannot be written.
    """
    done = log.done.copy()
    for image in bag.images(topics, period):
        if image is None:
            yield None
        elif done[image.topic, image.bag_time]:
            done[image.topic, image.bag_time] -= 1
            yield None
        else:
            entry = _caption(image, origin, pipeline)
            log.add(entry)
            yield entry


def _caption(recorded: RecordedImage, origin: Origin, pipeline: Pipeline) -> Entry:
    camera = camera_name(recorded.topic)
    sec, nanosec = recorded.stamp
    about: dict[str, Any] = {
        "topic": recorded.topic,
        "camera": camera,
        "bag_time": recorded.bag_time,
        "stamp": {"sec": sec, "nanosec": nanosec},
        "frame_id": recorded.frame_id,
        **origin.fields(),
    }
    started = time.perf_counter()
    try:
        image = recorded.decode()
    except ImageError as error:
        return {**about, "error": str(error)}
    decode_ms = milliseconds_since(started)
    answer = pipeline.generate([View(camera, image)], origin.prompt)
    timings = replace(answer.timings, decode_image=decode_ms, total=answer.timings.total + decode_ms)
    return {**about, **replace(answer, timings=timings).message_fields()}
