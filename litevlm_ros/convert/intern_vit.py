"""InternViT, the pixel shuffle and the mlp1 projector as one torch module, written to be exported.

Source: InternVL (arXiv 2312.14238) and InternVL 1.5 (arXiv 2404.16821), InternViT-300M's arrangement: CLS token and
learned positions, pre-norm blocks with layer scale, no final norm. Activations stay two-dimensional, [rows, channels],
outside attention, so that every linear layer becomes one Gemm whose weight has the checkpoint's own orientation.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from litevlm_ros.model_config import VisionConfig
from litevlm_ros.vision.tiling import IMAGENET_MEAN, IMAGENET_STD


class InternVisionEncoder(nn.Module):
    """Encodes tiles as visual tokens.

    `positions` holds the position embedding with the CLS token (row 0) and the bias of the patch embedding (all other
    rows) added in: three constants of the checkpoint that always meet, so they meet once, when the weights are loaded.
    """

    def __init__(self, config: VisionConfig, text_hidden_size: int) -> None:
        super().__init__()
        self.config = config
        patch_channels = 3 * config.patch_size**2
        self.patch_embedding = nn.Linear(patch_channels, config.hidden_size, bias=False)
        self.positions = nn.Parameter(torch.zeros(1 + config.grid**2, config.hidden_size))
        self.layers = nn.ModuleList(InternVisionLayer(config) for _ in range(config.num_layers))
        self.projector = Projector(config.projector_size, text_hidden_size)
        mean, std = torch.tensor(IMAGENET_MEAN, device="cpu"), torch.tensor(IMAGENET_STD, device="cpu")
        per_channel = config.patch_size**2
        self.pixel_scale: Tensor
        self.pixel_shift: Tensor
        self.register_buffer("pixel_scale", (1 / (255 * std)).repeat_interleave(per_channel), persistent=False)
        self.register_buffer("pixel_shift", (mean / std).repeat_interleave(per_channel), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encodes uint8 `pixels` [N, size, size, 3] in RGB order as visual tokens [N, tokens_per_tile, text width]."""
        hidden = self.embed(pixels)
        for layer in self.layers:
            hidden = layer(hidden)
        visual_tokens: Tensor = self.projector(self.pixel_shuffle(hidden).to(self.positions.dtype))
        return visual_tokens.reshape(-1, self.config.tokens_per_tile, self.projector.width)

    def embed(self, pixels: Tensor) -> Tensor:
        """Embeds uint8 [N, size, size, 3] as the first block's input, fp32 [N * (1 + grid²), hidden]."""
        grid, patch = self.config.grid, self.config.patch_size
        # The cast comes first: TensorRT computes nothing on uint8. Normalisation is fp32 even in an fp16 graph.
        patches = pixels.float().reshape(-1, grid, patch, grid, patch, 3).permute(0, 1, 3, 5, 2, 4)
        normalised = patches.reshape(-1, grid * grid, 3 * patch * patch) * self.pixel_scale - self.pixel_shift
        # An all-zero patch in front embeds to zero and so leaves row 0, the CLS token, to `positions` alone.
        padded = functional.pad(normalised.to(self.positions.dtype), (0, 0, 1, 0))
        embedded: Tensor = self.patch_embedding(padded.reshape(-1, padded.shape[-1]))
        placed = embedded.reshape(-1, *self.positions.shape).float() + self.positions.float()
        return placed.reshape(-1, self.config.hidden_size)

    def pixel_shuffle(self, hidden: Tensor) -> Tensor:
        """Drops CLS and folds squares of patches into channels (`ps_version` v2): [N * T, projector_size]."""
        side, fold, width = self.config.grid // self.config.shuffle, self.config.shuffle, self.config.hidden_size
        patches = hidden.reshape(-1, *self.positions.shape)[:, 1:]
        squares = patches.reshape(-1, side, fold, side, fold, width).permute(0, 1, 3, 2, 4, 5)
        return squares.reshape(-1, self.config.projector_size)


class InternVisionLayer(nn.Module):
    """One pre-norm block; input and output fp32 [N * (1 + grid²), hidden].

    The sum over the blocks is fp32 whatever the weights are: rounded to fp16 at each of 48 additions, it would be
    most of the error of the visual tokens.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.rows = 1 + config.grid**2
        self.heads = config.num_heads
        self.head_dim = width // config.num_heads
        self.norm1 = LayerNorm(width, eps=config.layer_norm_eps)
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width)
        self.ls1 = nn.Parameter(torch.ones(width))
        self.norm2 = LayerNorm(width, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(width, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, width)
        self.ls2 = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + (self.proj(self.attention(self.norm1(hidden))) * self.ls1).float()
        hidden = hidden + (self.fc2(gelu(self.fc1(self.norm2(hidden)))) * self.ls2).float()
        return hidden

    def attention(self, hidden: Tensor) -> Tensor:
        heads = (-1, self.rows, self.heads, self.head_dim)
        query, key, value = (part.reshape(heads) for part in self.qkv(hidden).chunk(3, 1))
        # Scaling the queries, not the scores, keeps the product inside fp16's range and touches less memory.
        scores = (query.transpose(1, 2) * self.head_dim**-0.5) @ key.permute(0, 2, 3, 1)
        mixed = scores.softmax(-1) @ value.transpose(1, 2)
        rows: Tensor = mixed.transpose(1, 2).reshape(-1, self.heads * self.head_dim)
        return rows


class LayerNorm(nn.LayerNorm):
    """Layer norm that is computed in fp32; the result has the type of the weights."""

    def forward(self, hidden: Tensor) -> Tensor:
        normalised = functional.layer_norm(
            hidden.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )
        return normalised.to(self.weight.dtype)


class Projector(nn.Module):
    """InternVL's mlp1: projects vision channels [rows, channels] to the language model's width [rows, width]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.fc2(gelu(self.fc1(self.norm(hidden))))
        return result


def gelu(hidden: Tensor) -> Tensor:
    """Computes the exact GELU, in the order of operations that ONNX Runtime fuses into one kernel."""
    return hidden * (1 + torch.erf(hidden / sqrt(2))) * 0.5
