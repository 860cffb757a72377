"""The scorer of visual tokens as a torch module: a copy of the language model's first layer, and one score per token.

Source: LiteVLM (arXiv 2506.07416), section on token selection. The paper's layer reads the question too; this one reads
the tokens of one tile alone, so that the scores of a frame hold for every question about it.
"""

from __future__ import annotations

import copy
from typing import cast

import onnx_ir as ir
import torch
from torch import Tensor, nn

from litevlm_ros.convert.onnx_graphs import export_graph
from litevlm_ros.convert.qwen import MASKED, QwenDecoder, QwenLayer, RMSNorm
from litevlm_ros.model_config import TextConfig


class TokenScorer(nn.Module):
    """Scores visual tokens by how much an answer would miss them."""

    cos: Tensor
    sin: Tensor
    no_past: Tensor

    def __init__(self, decoder: QwenDecoder, tokens_per_tile: int) -> None:
        """Copies `decoder`'s first layer; until it is trained, the scorer gives all tokens the same score."""
        super().__init__()
        config: TextConfig = decoder.config
        self.tokens_per_tile = tokens_per_tile
        self.group = config.num_heads // config.num_kv_heads
        self.layer = cast(QwenLayer, copy.deepcopy(decoder.layers[0]))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = nn.Linear(config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        cos, sin = decoder.rotary(torch.arange(tokens_per_tile), torch.float32)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        no_past = torch.zeros(0, config.num_kv_heads, config.head_dim)
        self.register_buffer("no_past", no_past, persistent=False)

    def forward(self, visual_tokens: Tensor) -> Tensor:
        """Scores [N, T, H] as fp32 [N, T]; each tile is on its own, and each token sees all others of its tile."""
        tiles, tokens, width = visual_tokens.shape
        tile = torch.arange(tiles).repeat_interleave(tokens)
        others = (tile.unsqueeze(0) != tile.unsqueeze(1)).float() * MASKED
        mask = others.unsqueeze(1).expand(-1, self.group, -1).reshape(-1, tiles * tokens)
        cos, sin = (table.repeat(tiles, 1, 1) for table in (self.cos, self.sin))
        hidden, _, _ = self.layer(visual_tokens.reshape(-1, width), cos, sin, mask, self.no_past, self.no_past)
        return cast(Tensor, self.head(self.norm(hidden))).float().reshape(tiles, tokens)


def scorer_graph(module: TokenScorer) -> ir.Model:
    """Draws `token_scorer.onnx`; N is dynamic. Raises EngineError."""
    visual = torch.zeros(2, module.tokens_per_tile, module.norm.weight.shape[0])
    return export_graph(module, (visual,), ({0: "N"},), ["visual_tokens"], ["scores"])
