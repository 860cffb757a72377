"""The Qwen decoder with an explicit KV cache as one torch module, written to be exported.

Sources: Qwen2 (arXiv 2407.10671), which has biases on queries, keys and values, and Qwen3 (arXiv 2505.09388), which has
none and norms the queries and keys of each head. The inputs and outputs are those of the `text_decoder.onnx` table in
`docs/architecture.md`. There is no batch axis: activations are [S, channels] and every linear layer is one Gemm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from litevlm_ros.model_config import TextConfig

MASKED = -30000.0
"""Added to the score of a key that must not be seen: finite in fp16, and zero after any softmax."""


class QwenDecoder(nn.Module):
    """Computes the logits, keys and values of new tokens behind those in a KV cache."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(QwenLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
        self.inverse_frequencies: Tensor
        self.register_buffer("inverse_frequencies", 1.0 / config.rope_theta**exponents, persistent=False)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        past_length: Tensor,
        logit_positions: Tensor,
        visual_tokens: Tensor,
        past_keys: list[Tensor],
        past_values: list[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Returns logits fp32 [K, V], the next tokens int64 [K], the hidden states that they come from [K, hidden], and
        per layer the new keys and values [S, G, D].

        int64 `input_ids` and `position_ids` [S], `past_length` [1], `logit_positions` [K]; `visual_tokens` [M, hidden];
        per layer `past_keys` and `past_values` [C, G, D], whose rows from `past_length` on may hold any finite numbers.
        """
        hidden = self.embed(input_ids, visual_tokens)
        cos, sin = self.rotary(position_ids, hidden.dtype)
        mask = self.mask(input_ids.shape[0], past_length, past_keys[0].shape[0])
        new_keys, new_values = [], []
        for layer, past_key, past_value in zip(self.layers, past_keys, past_values, strict=True):
            hidden, new_key, new_value = layer(hidden, cos, sin, mask, past_key, past_value)
            new_keys.append(new_key)
            new_values.append(new_value)
        return *self.choose(hidden, logit_positions), new_keys, new_values

    def choose(self, hidden: Tensor, logit_positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns logits fp32 [K, V], the next tokens [K], and the normalised states [K, hidden] they come from.

        `hidden` [S, hidden] is the sum over the layers, and int64 `logit_positions` [K] says of which tokens.
        """
        hidden = self.norm(hidden.index_select(0, logit_positions))
        logits = self.logits(hidden)
        return logits, logits.argmax(-1), hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns the logits fp32 [K, V] of normalised hidden states [K, hidden]."""
        return self.lm_head(hidden).float()

    def embed(self, input_ids: Tensor, visual_tokens: Tensor) -> Tensor:
        """Looks ids up in the embedding table, those from the vocabulary size on in `visual_tokens`: [S, hidden]."""
        visual = input_ids >= self.config.vocab_size
        words = self.embed_tokens(torch.where(visual, 0, input_ids))
        visuals = visual_tokens.index_select(0, torch.where(visual, input_ids - self.config.vocab_size, 0))
        return torch.where(visual.unsqueeze(1), visuals, words)

    def rotary(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns cosines and signed sines [S, 1, D] for `rotate`, computed in fp32."""
        angles = position_ids.float().unsqueeze(1) * self.inverse_frequencies
        cos, sin = angles.cos(), angles.sin()
        signed = torch.cat((-sin, sin), -1)
        return torch.cat((cos, cos), -1).to(dtype).unsqueeze(1), signed.to(dtype).unsqueeze(1)

    def mask(self, new: int, past_length: Tensor, rows: int) -> Tensor:
        """Returns the mask to add to the scores, fp32 [S * heads per group, C + S]: 0 for a visible key, else MASKED.

        Visibility goes by index, not by position: cache rows below `past_length`, new tokens up to the token itself.
        """
        group = self.config.num_heads // self.config.num_kv_heads
        order = torch.arange(new)
        cached = (torch.arange(rows) < past_length).unsqueeze(0).expand(new, rows)
        causal = order.unsqueeze(0) <= order.unsqueeze(1)
        hidden_keys = torch.cat((cached, causal), 1).logical_not().float() * MASKED
        return hidden_keys.unsqueeze(1).expand(-1, group, -1).reshape(new * group, rows + new)


class QwenLayer(nn.Module):
    """One decoder layer. Q, K and V are one linear layer, and so are gate and up."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.intermediate_size = config.intermediate_size
        self.input_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.qkv = nn.Linear(config.hidden_size, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=config.qkv_bias)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)
        self.post_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gate_up = nn.Linear(config.hidden_size, 2 * self.intermediate_size, bias=False)
        self.down = nn.Linear(self.intermediate_size, config.hidden_size, bias=False)

    def forward(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the hidden states [S, hidden], and the new keys (rotated) and values [S, G, D]."""
        qkv = self.qkv(self.input_norm(hidden)).reshape(-1, self.heads + 2 * self.kv_heads, self.head_dim)
        query_key, new_value = torch.split(qkv, [self.heads + self.kv_heads, self.kv_heads], 1)
        query_key = rotate(self.normed(query_key), cos, sin)
        query, new_key = torch.split(query_key, [self.heads, self.kv_heads], 1)
        hidden = hidden + self.o_proj(self.attention(query, new_key, new_value, mask, past_key, past_value))
        # Not chunk: TensorRT would then lay these weights out anew for single tokens, and keep both layouts.
        gate, up = self.gate_up(self.post_norm(hidden)).reshape(-1, 2, self.intermediate_size).unbind(1)
        return hidden + self.down(functional.silu(gate) * up), new_key, new_value

    def normed(self, query_key: Tensor) -> Tensor:
        """Norms the query and key heads [S, heads, D] by weights that all heads share, where the model has these."""
        if self.q_norm is None or self.k_norm is None:
            return query_key
        query, key = torch.split(query_key, [self.heads, self.kv_heads], 1)
        return torch.cat((self.q_norm(query), self.k_norm(key)), 1)

    def attention(
        self, query: Tensor, new_key: Tensor, new_value: Tensor, mask: Tensor, past_key: Tensor, past_value: Tensor
    ) -> Tensor:
        """Attends to cache and new keys with one softmax over both: [S, heads * D].

        The query heads that share a key head are rows of one matrix, [G, S * heads per group, D], so keys and values
        are never repeated; cache and new rows are multiplied apart, so the cache is never copied.
        """
        groups, shared, dim = self.kv_heads, self.heads // self.kv_heads, self.head_dim
        rows = (query * dim**-0.5).reshape(-1, groups, shared, dim).transpose(0, 1).reshape(groups, -1, dim)
        past_scores = rows @ past_key.permute(1, 2, 0)
        new_scores = rows @ new_key.permute(1, 2, 0)
        scores = torch.cat((past_scores, new_scores), -1)
        weights = (scores.float() + mask).softmax(-1).to(query.dtype)
        # Slices, not a split: TensorRT 10.3 wants the sizes of a split to be constants.
        past_weights, new_weights = weights[..., : past_key.shape[0]], weights[..., past_key.shape[0] :]
        mixed = past_weights @ past_value.transpose(0, 1) + new_weights @ new_value.transpose(0, 1)
        return mixed.reshape(groups, -1, shared, dim).transpose(0, 1).reshape(-1, self.heads * dim)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in fp32 whatever the weights are."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        # Division by the root, not multiplication by its inverse: the form that ONNX Runtime fuses into one kernel.
        wide = hidden.float()
        unit = wide / torch.sqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return unit.to(hidden.dtype) * self.weight


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies the rotary embedding to [S, heads, D]; `sin` carries the sign of the swapped halves."""
    first, second = heads.chunk(2, -1)
    return heads * cos + torch.cat((second, first), -1) * sin
