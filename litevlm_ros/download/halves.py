"""`vision_encoder/` and `text_decoder/` of a model directory: where each came from, and replacing them together."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from litevlm_ros.download.errors import DownloadError

ORIGIN_FILE = "origin.json"


@dataclass(frozen=True)
class Origin:
    """Where a half came from: repository and commit, or the directory of a checkpoint and ''.

    `licence` is what the model card names, '' if unknown.
    """

    model: str
    revision: str
    licence: str = ""

    def __str__(self) -> str:
        return f"{self.model} at {self.revision}" if self.revision else self.model

    def is_same_model(self, other: Origin) -> bool:
        """Whether both are halves of one checkpoint."""
        return (self.model, self.revision) == (other.model, other.revision)

    def write(self, half: Path) -> None:
        """Write it into the directory of the half."""
        (half / ORIGIN_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, half: Path) -> Origin | None:
        """The origin of a half; None if that is not known."""
        try:
            values = json.loads((half / ORIGIN_FILE).read_text(encoding="utf-8"))
            return cls(str(values["model"]), str(values["revision"]), str(values["licence"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def replace_together(staged: dict[str, Path], output: Path, staging: Path) -> None:
    """Rename each staged directory to its name below `output`: all of them, or none if one fails.

    What had the name before is deleted afterwards; until then it waits in `staging`, on the same disk. Raises
    DownloadError.
    """
    replaced: list[tuple[Path, Path]] = []
    try:
        for name, source in staged.items():
            target, before = output / name, staging / f"{name}.before"
            _delete(before)
            if target.exists():
                target.rename(before)
            replaced.append((target, before))
            source.rename(target)
    except OSError as error:
        for target, before in reversed(replaced):
            _delete(target)
            if before.exists():
                before.rename(target)
        raise DownloadError(f"{error.filename} cannot be replaced ({error.strerror}); everything is as before. Check "
                            f"that {output} can be written") from error  # fmt: skip
    for _, before in replaced:
        _delete(before)


def _delete(directory: Path) -> None:
    if directory.is_symlink():
        directory.unlink()
    else:
        shutil.rmtree(directory, ignore_errors=True)
