"""Caption the images of a recording, without ROS: a rosbag2 directory in, captions.jsonl and a bag of captions out.

ros2 run litevlm_ros bag_caption drive --every 1 --output drive_captions

Each line of captions.jsonl is about one image: topic, stamp of its header, time of its recording, text and timings.
DIR/captions is a bag with /litevlm/caption and /litevlm/caption_text, to be played beside the recording. Ctrl-C keeps
what is done; --resume goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.config import CAPTION_PROMPT, PipelineConfig, SamplingConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.tools.command import add_backend_options, add_model_option, new_parser, run_command

STORAGES = ("mcap", "sqlite3")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 after an error that it has explained on stderr, or 130 if it was interrupted."""
    options = _parser().parse_args(argv)
    return run_command(
        lambda: _run(options),
        prefix="bag_caption: ",
        missing="Bags need rosbags and tqdm ({error}); install them with `pip install 'litevlm_ros[bags]'`",
    )


def _run(options: argparse.Namespace) -> int:
    # Imported here, so that --help is quick.
    from tqdm import tqdm

    from litevlm_ros.bags.caption_bag import write_caption_bag
    from litevlm_ros.bags.caption_log import CaptionLog, read_entries
    from litevlm_ros.bags.captioning import caption_images
    from litevlm_ros.bags.image_bag import BagError, ImageBag
    from litevlm_ros.pipeline import Pipeline

    if not 0 <= options.every < float("inf"):
        raise ConfigError(f"--every is {options.every:g}; allowed: seconds from 0, which stands for each image")
    outcome: Counter[str] = Counter()
    end: BaseException | None = None
    with ImageBag(options.bag) as bag:
        topics = bag.choose(options.topic)
        log = CaptionLog(options.output / "captions.jsonl", options.prompt, resume=options.resume)
        pipeline = Pipeline.from_config(_config(options))
        total = sum(bag.image_topics[topic] for topic in topics)
        try:
            with log, tqdm(total=total, unit="image", disable=True if options.quiet else None) as bar:
                for entry in caption_images(bag, topics, options.every, options.prompt, log, pipeline):
                    if entry is not None:
                        outcome["error" if "error" in entry else "text"] += 1
                    bar.update()
        except (KeyboardInterrupt, BagError) as error:
            end = error
        finally:
            pipeline.close()
    write_caption_bag(options.output / "captions", read_entries(log.file), options.storage)
    malformed, before = outcome["error"], len(log.done)
    print(f"{outcome['text']} captions in {options.output}; {malformed} malformed images, {before} done before")
    if isinstance(end, BagError):
        raise end
    if end is not None:
        print("interrupted; the same command with --resume goes on", file=sys.stderr)
        return 130
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
        "bag", type=Path, metavar="BAG", help="directory of the recording: sqlite3 or MCAP, zstd or not"
    )
    images.add_argument(
        "--topic", action="append", default=[], metavar="T", help="image topic; may be repeated (all image topics)"
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
