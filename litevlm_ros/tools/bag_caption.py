"""Caption the images of a recording, without ROS: a rosbag2 directory in, captions.jsonl and a bag of captions out.

ros2 run litevlm_ros bag_caption drive --every 1 --output drive_captions

Each line of captions.jsonl is about one image: topic, stamp of its header, time of its recording, text and timings.
DIR/captions is a bag with /litevlm/caption and /litevlm/caption_text, to be played beside the recording. Ctrl-C keeps
what is done; --resume goes on from there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litevlm_ros.bags.caption_log import CaptionLog, Entry, read
from litevlm_ros.config import BACKENDS, PipelineConfig, SamplingConfig
from litevlm_ros.errors import ConfigError, ImageError, LiteVLMError
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.node.answer_fields import answer_fields

if TYPE_CHECKING:
    from litevlm_ros.bags.image_bag import Frame, ImageBag
    from litevlm_ros.pipeline import Pipeline

STORAGES = ("mcap", "sqlite3")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 after an error that it has explained on stderr, or 130 if it was interrupted."""
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except ImportError as error:
        print(f"Bags need rosbags and tqdm ({error}); install them with `pip install 'litevlm_ros[bags]'`",
              file=sys.stderr)  # fmt: skip
    except (LiteVLMError, OSError) as error:
        print(f"bag_caption: {error}", file=sys.stderr)
    return 1


def _run(options: argparse.Namespace) -> int:
    # Imported here, so that --help is quick.
    from litevlm_ros.bags.caption_bag import write_caption_bag
    from litevlm_ros.bags.image_bag import BagError, ImageBag
    from litevlm_ros.pipeline import Pipeline

    if not 0 <= options.every < float("inf"):
        raise ConfigError(f"--every is {options.every:g}; allowed: seconds from 0, which stands for each image")
    end: BaseException | None = None
    with ImageBag(options.bag) as bag:
        topics = bag.choose(options.topic)
        log = CaptionLog(options.output / "captions.jsonl", options.prompt, resume=options.resume)
        pipeline = Pipeline.from_config(
            PipelineConfig(
                model_dir=options.model or demo_model_directory(),
                backend=options.backend,
                threads=options.threads,
                sampling=SamplingConfig(max_new_tokens=options.max_new_tokens),
            )
        )
        outcome: Counter[str] = Counter()
        try:
            with log:
                for entry in _captions(bag, topics, options, log, pipeline):
                    log.add(entry)
                    outcome["error" if "error" in entry else "text"] += 1
        except (KeyboardInterrupt, BagError) as error:
            end = error
        finally:
            pipeline.close()
    write_caption_bag(options.output / "captions", read(log.file), options.storage)
    malformed, before = outcome["error"], len(log.done)
    print(f"{outcome['text']} captions in {options.output}; {malformed} malformed images, {before} done before")
    if isinstance(end, BagError):
        raise end
    if end is not None:
        print("interrupted; the same command with --resume goes on", file=sys.stderr)
        return 130
    return 0


def _captions(
    bag: ImageBag, topics: Sequence[str], options: argparse.Namespace, log: CaptionLog, pipeline: Pipeline
) -> Iterator[Entry]:
    from tqdm import tqdm

    total = sum(bag.image_topics[topic] for topic in topics)
    with tqdm(total=total, unit="image", disable=True if options.quiet else None) as bar:
        for frame in bag.frames(topics, options.every):
            if frame is not None and (frame.topic, frame.bag_time) not in log.done:
                yield _caption(frame, options.prompt, pipeline)
            bar.update()


def _caption(frame: Frame, prompt: str, pipeline: Pipeline) -> Entry:
    from litevlm_ros.types import View

    camera = camera_name(frame.topic)
    sec, nanosec = frame.stamp
    about: dict[str, Any] = {
        "topic": frame.topic,
        "camera": camera,
        "bag_time": frame.bag_time,
        "stamp": {"sec": sec, "nanosec": nanosec},
        "frame_id": frame.frame_id,
    }
    started = time.perf_counter()
    try:
        image = frame.image()
    except ImageError as error:
        return {**about, "error": str(error)}
    decode_ms = 1e3 * (time.perf_counter() - started)
    answer = pipeline.generate([View(camera, image)], prompt)
    timings = replace(answer.timings, decode_image=decode_ms, total=answer.timings.total + decode_ms)
    return {**about, **answer_fields(replace(answer, timings=timings))}


def camera_name(topic: str) -> str:
    """/front/image_raw/compressed → front."""
    name = topic.strip("/").removesuffix("/compressed")
    return name.rpartition("/")[0] or name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bag_caption", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    images = parser.add_argument_group("images")
    images.add_argument(
        "bag", type=Path, metavar="BAG", help="directory of the recording: sqlite3 or MCAP, zstd or not"
    )
    images.add_argument("--topic", action="append", default=[], metavar="T", help="image topic; may be repeated (all)")
    images.add_argument(
        "--every", type=float, default=1.0, metavar="S", help="least seconds between two images of a topic; 0: each "
        "image (%(default)g)"
    )  # fmt: skip
    model = parser.add_argument_group("model")
    model.add_argument(
        "--prompt", "--question", default="Describe the scene.", metavar="TEXT", help="of each image (%(default)s)"
    )
    model.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="of one caption (%(default)s)")
    model.add_argument("--model", type=Path, metavar="DIR", help="directory (default: the demo model)")
    model.add_argument("--backend", choices=BACKENDS, default="auto", help="what runs it (%(default)s)")
    model.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: one for each core)")
    output = parser.add_argument_group("output")
    output.add_argument("--output", type=Path, required=True, metavar="DIR", help="for captions.jsonl and the bag")
    output.add_argument("--storage", choices=STORAGES, default="mcap", help="of the bag of captions (%(default)s)")
    output.add_argument("--resume", action="store_true", help="continue what an earlier run has begun there")
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
