"""Caption the images of a recording, without ROS: a rosbag2 recording in, captions.jsonl and a bag of captions out.

ros2 run litevlm_ros bag_caption drive --every 1 --output drive_captions

BAG is a directory that `ros2 bag record` has written, with or without metadata.yaml, or one .mcap or .db3 file. A
damaged recording is read as far as it goes; the status is 1 then.

Of topics that show the same pictures, such as /front/image_raw and /front/image_raw/compressed, the one with the most
images is captioned, and the raw one if they have equally many. --topics chooses otherwise.

Each line of captions.jsonl is about one image: topic, stamp of its header, time of its recording, text and timings.
DIR/captions is a bag with /litevlm/caption and /litevlm/caption_text, to be played beside the recording. Nothing else
in DIR is touched. Ctrl-C keeps what is done; --resume goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from litevlm_ros.config import CAPTION_PROMPT, PipelineConfig, SamplingConfig
from litevlm_ros.errors import ConfigError, ImageError, LiteVLMError
from litevlm_ros.files import explaining_full_disk
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.tools.command import (
    add_backend_options,
    add_model_option,
    end_on_signals,
    new_parser,
    note,
    run_command,
)

if TYPE_CHECKING:
    from litevlm_ros.bags.caption_log import CaptionLog
    from litevlm_ros.bags.caption_messages import CaptionMessages
    from litevlm_ros.bags.image_bag import ImageBag
    from litevlm_ros.bags.origin import Origin
    from litevlm_ros.bags.output_directory import OutputDirectory

STORAGES = ("mcap", "sqlite3")
_PREFIX = "bag_caption: "


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 after an error that it has explained on stderr, or 130 if it was interrupted."""
    options = _parser().parse_args(argv)
    end_on_signals()
    return run_command(
        lambda: _run(options),
        prefix=_PREFIX,
        interrupted="interrupted; the same command with --resume goes on",
        missing="Bags need rosbags, lz4, zstd and tqdm ({error})",
        packages=("rosbags", "lz4", "backports.zstd", "tqdm"),
    )


def _run(options: argparse.Namespace) -> int:
    # Imported here, so that --help is quick.
    from litevlm_ros.bags.caption_log import CaptionLog
    from litevlm_ros.bags.caption_messages import CaptionMessages
    from litevlm_ros.bags.captioning import check_log
    from litevlm_ros.bags.image_bag import ImageBag
    from litevlm_ros.bags.origin import Origin, Source, model_source
    from litevlm_ros.bags.output_directory import OutputDirectory
    from litevlm_ros.model_config import ModelConfig

    if not 0 <= options.every < float("inf"):
        raise ConfigError(f"--every is {options.every:g}; allowed: seconds from 0, which stands for each image")
    config = _config(options)
    with ImageBag(options.bag) as bag:
        for line in bag.notes:
            note(f"{_PREFIX}{line}")
        topics = bag.choose(options.topics)
        others = [topic for topic, count in bag.image_topics.items() if count and topic not in topics]
        if others and not options.topics:
            note(f"{_PREFIX}not captioned, as another topic shows the same: {', '.join(others)}; --topics chooses")
        ModelConfig.from_directory(config.model_dir)
        bag_source = Source(options.bag.resolve().name, bag.identity())
        origin = Origin(bag_source, model_source(config.model_dir), options.prompt)
        messages = CaptionMessages()
        output = OutputDirectory(options.output)
        captions = sum(bag.most_images(topic, options.every) for topic in topics)
        output.check(options.bag, resume=options.resume, captions=captions, most_tokens=options.max_new_tokens)
        log = CaptionLog(output.log, origin, messages.fits, resume=options.resume)
        check_log(bag, log)
        with output:
            return _caption(options, config, bag, topics, origin, output, log, messages)


def _caption(
    options: argparse.Namespace,
    config: PipelineConfig,
    bag: ImageBag,
    topics: list[str],
    origin: Origin,
    output: OutputDirectory,
    log: CaptionLog,
    messages: CaptionMessages,
) -> int:
    from tqdm import tqdm

    from litevlm_ros.bags.caption_bag import write_caption_bag
    from litevlm_ros.bags.captioning import caption_images
    from litevlm_ros.bags.storage import BagError
    from litevlm_ros.pipeline import Pipeline

    outcome: Counter[str] = Counter()
    end: BaseException | None = None
    reason = ""
    began = False
    pipeline = Pipeline.from_config(config)
    try:
        with log, tqdm(total=bag.total(topics), unit="image", disable=True if options.quiet else None) as bar:
            began = True
            if log.rejected_file:
                note(
                    f"{_PREFIX}{len(log.rejected)} lines of {log.file} were no captions; they are now in "
                    f"{log.rejected_file}"
                )
            for entry in caption_images(bag, topics, options.every, origin, log, pipeline):
                if entry is not None:
                    outcome["error" if "error" in entry else "text"] += 1
                    reason = reason or entry.get("error", "")
                bar.update()
        if reason and not outcome["text"] and not log.done:
            end = ImageError(f"no image could be captioned; the first one, because {reason}")
    except (KeyboardInterrupt, LiteVLMError, OSError) as error:
        end = error
    finally:
        pipeline.close()
    if began and log.file.is_file():
        try:
            with explaining_full_disk(output.bag):
                write_caption_bag(output.bag, log.entries(), messages, options.storage)
        except (LiteVLMError, OSError) as error:
            if end is None:
                end = error
            else:
                note(f"{_PREFIX}{error}")
        if end is not None and not isinstance(end, (BagError, ImageError, KeyboardInterrupt)):
            note(f"{_PREFIX}what is done is kept; the same command with --resume goes on")
    print(
        f"{outcome['text']} captions in {output.path}; {outcome['error']} malformed images, {log.done.total()} done "
        "before"
    )
    if end is not None:
        raise end
    return 0


def _config(options: argparse.Namespace) -> PipelineConfig:
    return PipelineConfig(
        model_dir=options.model or demo_model_directory(),
        backend=options.backend,
        threads=options.threads,
        sampling=SamplingConfig(max_new_tokens=options.max_new_tokens),
    )


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("bag_caption", __doc__)
    images = parser.add_argument_group("images")
    images.add_argument(
        "bag", type=Path, metavar="BAG", help="the recording, sqlite3 or MCAP, zstd or not: a directory or one file"
    )
    images.add_argument(
        "--topic",
        action="append",
        dest="topics",
        default=[],
        metavar="T",
        help="image topic; may be repeated (one topic for each camera)",
    )
    images.add_argument(
        "--topics", action="extend", nargs="+", metavar="T", help="the same for several topics, behind BAG"
    )
    images.add_argument(
        "--every",
        type=float,
        default=1.0,
        metavar="S",
        help="least seconds between two captioned images of a topic; 0 captions each image (%(default)g)",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--prompt",
        "--question",
        default=CAPTION_PROMPT,
        metavar="TEXT",
        help="prompt or question about each image (%(default)s)",
    )
    model.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="most tokens of one caption (%(default)s)"
    )
    add_model_option(model)
    add_backend_options(model)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory for captions.jsonl and the bag"
    )
    output.add_argument(
        "--storage", choices=STORAGES, default="mcap", help="storage of the bag of captions (%(default)s)"
    )
    output.add_argument("--resume", action="store_true", help="continue an earlier run in the same directory")
    output.add_argument("--quiet", action="store_true", help="show no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
