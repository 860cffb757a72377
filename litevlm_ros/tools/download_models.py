"""Fill a model directory with a vision encoder and a text decoder, from a Hugging Face hub or a checkpoint on disk.

ros2 run litevlm_ros download_models --model internvl2-1b

Only safetensors, JSON and tokenizer files are fetched; no code is run. The same command continues a download that broke
off. On request, engines that were built elsewhere are installed too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.download.catalog import PUBLISHED
from litevlm_ros.packages import DOWNLOAD
from litevlm_ros.published_models import DEFAULT_MODEL
from litevlm_ros.tools.command import add_part_options, chosen_parts, new_parser, run_command, say


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 after an error that it has explained on stderr, or 130 if it was interrupted."""
    options = _parser().parse_args(argv)
    return run_command(
        lambda: _run(options),
        missing="Downloads need huggingface_hub, torch, onnx and onnxscript ({error})",
        packages=DOWNLOAD,
        interrupted="interrupted; what has arrived is kept: run the command again to continue",
    )


def _run(options: argparse.Namespace) -> None:
    parts = chosen_parts(options, "download")
    # Imported here, so that --help is quick.
    from litevlm_ros.download.install import InstallRequest, install_model
    from litevlm_ros.download.prebuilt import install_prebuilt

    # With --prebuilt, --force is about the engines; it replaces the model too only if that is named.
    replace_model = options.force and (options.prebuilt is None or options.model is not None)
    install_model(
        InstallRequest(options.output, options.model, options.revision, options.endpoint, parts, replace_model), say
    )
    if options.prebuilt is not None:
        install_prebuilt(options.prebuilt, options.output, parts, say, force=options.force)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("download_models", __doc__)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="NAME|PATH",
        help=f"{', '.join(PUBLISHED)}; or the directory of a checkpoint; or OWNER/NAME of a repository on the hub "
        f"(default: the model that is in the output directory, else {DEFAULT_MODEL})",
    )
    model.add_argument(
        "--revision",
        metavar="REV",
        help="commit, tag or branch (default: the commit that this version was made for; for OWNER/NAME: main)",
    )
    model.add_argument("--endpoint", metavar="URL", help="hub or mirror (default: HF_ENDPOINT, else huggingface.co)")
    add_part_options(parser.add_argument_group("parts"), "download")
    engines = parser.add_argument_group("engines")
    engines.add_argument(
        "--prebuilt",
        metavar="URL|FILE",
        help="also install engines from this .tar.gz, if their checksums are right and they were built for this GPU, "
        "this TensorRT and these weights. Checksums tell damage, not intent: take engines from people you trust",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--output", type=Path, default=Path("models"), metavar="DIR", help="model directory to fill (%(default)s)"
    )
    files.add_argument(
        "--force",
        action="store_true",
        help="replace a model that is there already; with --prebuilt engines, and the model only if --model names it",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
