"""The checkpoints that `--model` knows by name or finds elsewhere, and the note of which of them was installed."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from litevlm_ros.config_json import read_config
from litevlm_ros.errors import CheckpointError, DownloadError
from litevlm_ros.files import write_text
from litevlm_ros.model_directory import ORIGIN_FILE
from litevlm_ros.published_models import PUBLISHED_MODELS

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class HubModel:
    """A repository on a Hugging Face hub; `revision` is a commit, a branch or a tag."""

    repository: str
    revision: str

    @property
    def is_pinned(self) -> bool:
        """True if the revision is a commit, which always names the same files."""
        return bool(_COMMIT.fullmatch(self.revision))


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a part of a model directory came from.

    `model` and `revision` are a repository and a commit, or a directory and ''. `licence` is the one that the model
    card names, '' if it is unknown.
    """

    model: str
    revision: str
    licence: str = ""

    def __str__(self) -> str:
        return f"{self.model} at {self.revision}" if self.revision else self.model

    def is_same_model(self, other: Origin) -> bool:
        """Tells whether both parts came from one checkpoint, so that they work together."""
        return (self.model, self.revision) == (other.model, other.revision)

    def write(self, part: Path) -> None:
        """Writes ORIGIN_FILE into the directory of a part. Raises OSError."""
        write_text(part / ORIGIN_FILE, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, part: Path) -> Origin | None:
        """Reads the origin of a part; None if it is not known."""
        try:
            values = read_config(part / ORIGIN_FILE)
        except CheckpointError:
            return None
        told = [text for key in ("model", "revision", "licence") if isinstance(text := values.get(key), str)]
        return cls(*told) if len(told) == 3 else None


PUBLISHED = {name: HubModel(entry.repository, entry.revision) for name, entry in PUBLISHED_MODELS.items()}
"""Name for `--model` → repository, of all published models. Some are pinned to a commit, others are a branch."""


def find_model(name: str, revision: str | None = None) -> HubModel | Path:
    """Finds what `name` stands for: a published model, the directory of a checkpoint, or OWNER/NAME on the hub.

    `revision` replaces the pinned one; without one, OWNER/NAME is taken at its branch 'main'. Raises DownloadError if
    `name` is none of these, or is a directory and `revision` is given.
    """
    known = PUBLISHED.get(name.lower())
    if known is not None:
        return HubModel(known.repository, revision or known.revision)
    path = Path(name).expanduser()
    if name and path.is_dir():
        if revision is not None:
            raise DownloadError(f"--revision {revision} does not apply to --model {name}, a directory; drop it")
        return path
    if _REPOSITORY.fullmatch(name):
        return HubModel(name, revision or "main")
    raise DownloadError(f"--model {name} is not a directory, nor OWNER/NAME of a repository on the hub; allowed are "
                        f"these and {', '.join(PUBLISHED)}")  # fmt: skip
