"""The checkpoints that `--model` knows by name or finds elsewhere, and the note of which of them was installed."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from litevlm_ros.errors import DownloadError
from litevlm_ros.files import write_text

ORIGIN_FILE = "origin.json"
"""Name of the file in each part of a model directory that holds its Origin."""

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
            values = json.loads((part / ORIGIN_FILE).read_text(encoding="utf-8"))
            return cls(str(values["model"]), str(values["revision"]), str(values["licence"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


DEFAULT_MODEL = "internvl2-1b"

PUBLISHED = {
    "internvl2-1b": HubModel("OpenGVLab/InternVL2-1B", "0d75ccd166b1d0b79446ae6c5d1a4a667f1e6187"),
    "internvl2_5-1b": HubModel("OpenGVLab/InternVL2_5-1B", "9d423ea1ae9f893897ee3f7493141073f5afcf22"),
    "internvl3-1b": HubModel("OpenGVLab/InternVL3-1B", "4415a3b810e636d11dfa86b0e9ba40bb00535aa8"),
    "internvl3-2b": HubModel("OpenGVLab/InternVL3-2B", "899155015275a9b7338c7f4677e19c784e0e5a21"),
}
"""The InternVL checkpoints with a Qwen2 language model, each pinned to one commit."""


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
