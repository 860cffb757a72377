"""Fill models/ with a vision encoder and a text decoder, and on request with engines that were built elsewhere.

ros2 run litevlm_ros download_models --model internvl2-1b
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.download.catalog import DEFAULT_MODEL, PUBLISHED
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.model_directory import TEXT, VISION


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 after an error that it has explained on stderr, or 130 if it was interrupted."""
    options = _parser().parse_args(argv)
    skipped = {VISION: options.skip_vision, TEXT: options.skip_text}
    halves = tuple(half for half, skip in skipped.items() if not skip)
    if not halves:
        print("--skip-vision and --skip-text leave nothing to download; drop one of them", file=sys.stderr)
        return 1
    # Imported here, so that --help is quick.
    from litevlm_ros.download.install import Request, install_model
    from litevlm_ros.download.prebuilt import install_prebuilt

    # Who replaces engines does not mean the model, unless it is named too.
    replace_model = options.force and (options.prebuilt is None or options.model is not None)
    request = Request(options.output, options.model, options.revision, options.endpoint, halves, replace_model)
    try:
        install_model(request, _tell)
        if options.prebuilt is not None:
            install_prebuilt(options.prebuilt, options.output, halves, _tell, force=options.force)
    except ImportError as error:
        print(f"Downloads need huggingface_hub and torch ({error}); install them with "
              "`pip install 'litevlm_ros[convert,download]'`", file=sys.stderr)  # fmt: skip
        return 1
    except (LiteVLMError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what has arrived is kept: run the command again to continue", file=sys.stderr)
        return 130
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="download_models",
        description="Fill a model directory: vision_encoder/ and text_decoder/ from a Hugging Face hub or from a "
        "checkpoint on disk. Only safetensors, JSON and tokenizer files are fetched; no code is run. A download that "
        "broke off is continued by the same command.",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="NAME|PATH",
        help=f"{', '.join(PUBLISHED)}; or the directory of a checkpoint; or OWNER/NAME of a repository on the hub "
        f"(default: what is in the output directory, else {DEFAULT_MODEL})",
    )
    model.add_argument(
        "--revision",
        metavar="REV",
        help="commit, tag or branch (default: the commit that this version was made for; of OWNER/NAME: main)",
    )
    model.add_argument("--endpoint", metavar="URL", help="hub or mirror (default: HF_ENDPOINT, else huggingface.co)")
    parts = parser.add_argument_group("parts")
    parts.add_argument("--skip-vision", action="store_true", help="leave the vision encoder as it is")
    parts.add_argument("--skip-text", action="store_true", help="leave the text decoder as it is")
    engines = parser.add_argument_group("engines")
    engines.add_argument(
        "--prebuilt",
        metavar="URL|FILE",
        help="also take engines from this .tar.gz, if their checksums are right and they were built for this GPU, "
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
