"""The table in docs/models.md, made of the registry: `python test/support/models_page.py` writes it anew."""

from __future__ import annotations

from pathlib import Path

from litevlm_ros.engines.shapes import DEFAULT_CONTEXT
from litevlm_ros.published_models import PUBLISHED_MODELS, PublishedModel

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_START, _END = "<!-- table -->\n", "<!-- end of table -->\n"
_HEAD = (
    "`--model`", "repository", "revision", "language model", "parameters", "tokens", "FP16", "FP8", "INT4",
    "memory FP16", "memory FP8", "licence", "template", "notes",
)  # fmt: skip


def table() -> str:
    """Returns the table of all published models in Markdown."""
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_row, PUBLISHED_MODELS.values())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_table(page: str) -> str:
    """Returns the page with the table in its place."""
    before, _, rest = page.partition(_START)
    return f"{before}{_START}{table()}{_END}{rest.partition(_END)[2]}"


def _row(entry: PublishedModel) -> tuple[str, ...]:
    cache = entry.cache_bytes(min(DEFAULT_CONTEXT, entry.model.text.max_position_embeddings))
    weights = {precision: entry.weight_bytes(precision) for precision in ("fp16", "fp8", "int4")}
    notes = [entry.note] if entry.note else []
    if entry.stitched:
        notes.append("`stitch_views: true`.")
    return (
        f"`{entry.name}`",
        f"[{entry.repository}](https://huggingface.co/{entry.repository})",
        f"`{entry.revision[:7]}`",
        entry.language_model,
        f"{entry.parameters / 1e6:.0f} M",
        str(entry.tokens_per_tile),
        *(f"{size / 1e9:.2f} GB" for size in weights.values()),
        *(f"{(weights[precision] + cache) / 1e9:.2f} GB" for precision in ("fp16", "fp8")),
        entry.licence or "see its card",
        f"`{entry.model.template}`",
        " ".join(notes),
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
