"""A draft head behind the text decoder as a torch module, written to be trained and exported.

Source: EAGLE (arXiv 2401.15077). The hidden state from which a token was chosen and that token's embedding become one
vector, one decoder layer over the answer so far turns it into the next hidden state, and the decoder's own output
projection gives the next token. The inputs and outputs are those of the `draft_head.onnx` table in
`docs/architecture.md`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litevlm_ros.convert.qwen import QwenDecoder, QwenLayer


def stored_name(parameter: str) -> str:
    """Returns the name of one of `DraftHead.own`'s parameters in the safetensors file."""
    return f"draft_head.{parameter}"


class DraftHead(nn.Module):
    """Predicts an answer's next hidden state and token from its hidden states and tokens so far.

    It uses embedding, final norm and output projection of the decoder `text` as they are.
    """

    def __init__(self, text: QwenDecoder) -> None:
        super().__init__()
        width = text.config.hidden_size
        self.text = text
        self.fuse = nn.Linear(2 * width, width)
        self.layer = QwenLayer(text.config)

    @property
    def own(self) -> nn.ModuleDict:
        """The modules that are trained and stored: all but the decoder's."""
        return nn.ModuleDict({"fuse": self.fuse, "layer": self.layer})

    def forward(
        self, input_ids: Tensor, hidden: Tensor, past_length: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the token int64 [1] behind the last one, its hidden state [1, H], and new keys and values [S, G, D].

        int64 `input_ids` [S] are the answer's next tokens, and `hidden` [S, H] the states from which they were chosen.
        `past_key` and `past_value` [C, G, D] hold `past_length` [1] valid rows; the others may be any finite numbers.
        """
        count = input_ids.shape[0]
        cos, sin = self.text.rotary(past_length + torch.arange(count), hidden.dtype)
        mask = self.text.mask(count, past_length, past_key.shape[0])
        ahead, new_key, new_value = self.layer(self.fused(input_ids, hidden), cos, sin, mask, past_key, past_value)
        last = self.text.norm(ahead[-1:])
        return self.text.logits(last).argmax(-1), last, new_key, new_value

    def fused(self, input_ids: Tensor, hidden: Tensor) -> Tensor:
        """Returns the layer's input [S, H], made of the embedding of `input_ids` [S] and of `hidden` [S, H]."""
        return self.fuse(torch.cat((hidden, self.text.embed_tokens(input_ids)), -1))
