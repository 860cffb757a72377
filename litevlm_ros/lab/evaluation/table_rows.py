"""The rows of the paper's table (arXiv 2506.07416): each a switch in the configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from litevlm_ros.config import PipelineConfig, SpeculationConfig, TokenSelectionConfig, ViewSelectionConfig


@dataclass(frozen=True)
class TableRow:
    """`name` is its key in JSON. `config` answers questions about frames that are all new."""

    name: str
    title: str
    config: PipelineConfig


@dataclass(frozen=True)
class Parts:
    """What each switch is turned to. `keep` is the share of visual tokens that stay, of the random ones as well.

    `precisions` are of vision encoder and text decoder, in the FP8 row.
    """

    view_selection: str = "learned"
    token_selection: str = "diversity"
    keep: float = 0.6
    speculation: str = "auto"
    precisions: tuple[str, str] = ("fp8", "fp8")


def table_rows(base: PipelineConfig, parts: Parts) -> list[TableRow]:
    """From nothing to everything, and random tokens as a control. Raises ConfigError for parts that do not exist."""
    views = ViewSelectionConfig(parts.view_selection)
    tokens = TokenSelectionConfig(parts.token_selection, parts.keep)
    random = TokenSelectionConfig("random", parts.keep)
    speculation = SpeculationConfig(parts.speculation)
    everything = replace(base, view_selection=views, token_selection=tokens, speculation=speculation)
    vision, text = parts.precisions
    quantized = replace(everything, vision_precision=vision, text_precision=text)
    mixed = "" if vision == text == "fp8" else f" (vision {vision}, text {text})"
    kept = f"{100 * parts.keep:g} %"
    return [
        TableRow("base", "base", base),
        TableRow("view_selection", f"+ view selection ({parts.view_selection})", replace(base, view_selection=views)),
        TableRow(
            "token_selection",
            f"+ token selection ({parts.token_selection}, {kept})",
            replace(base, token_selection=tokens),
        ),
        TableRow("random_tokens", f"+ random tokens ({kept})", replace(base, token_selection=random)),
        TableRow("speculation", f"+ speculation ({parts.speculation})", replace(base, speculation=speculation)),
        TableRow("all", "all", everything),
        TableRow("all_fp8", f"all + FP8{mixed}", quantized),
    ]
