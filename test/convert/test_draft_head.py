from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from litevlm_ros.convert.checkpoint import load_draft_head, load_text_decoder
from litevlm_ros.convert.draft_head import DraftHead, stored_name
from litevlm_ros.convert.export import export_draft_head
from litevlm_ros.errors import CheckpointError


@pytest.fixture
def model(models: Any, tmp_path: Path) -> Path:
    """A model directory with a random draft head."""
    directory = tmp_path / "model"
    shutil.copytree(models["native"], directory)
    (directory / "draft_head").mkdir()
    torch.manual_seed(3)
    head = DraftHead(load_text_decoder(directory))
    weights = {stored_name(name): value.half() for name, value in head.own.state_dict().items()}
    save_file(weights, directory / "draft_head" / "model.safetensors")
    return directory


def inputs(head: DraftHead, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    config = head.text.config
    ids = torch.randint(0, config.vocab_size, (count,), generator=random)
    return ids, torch.randn(count, config.hidden_size, generator=random)


def no_rows(head: DraftHead, rows: int = 0) -> torch.Tensor:
    return torch.zeros(rows, head.text.config.num_kv_heads, head.text.config.head_dim)


@torch.no_grad()
def test_tokens_one_by_one_and_all_at_once_agree(model: Path) -> None:
    head = load_draft_head(model)
    ids, hidden = inputs(head, 6)
    keys, values = no_rows(head, 8), no_rows(head, 8)
    for place in range(6):
        token, state, key, value = head(
            ids[place : place + 1], hidden[place : place + 1], torch.tensor([place]), keys, values
        )
        keys[place], values[place] = key[0], value[0]
        expected = head(ids[: place + 1], hidden[: place + 1], torch.tensor([0]), no_rows(head), no_rows(head))
        torch.testing.assert_close(state, expected[1], atol=1e-4, rtol=1e-4)
        assert token == expected[0] == head.text.logits(state).argmax()
        torch.testing.assert_close(keys[: place + 1], expected[2], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_token_and_state_both_count(model: Path) -> None:
    head = load_draft_head(model)
    ids, hidden = inputs(head, 4)
    start = torch.tensor([0]), no_rows(head), no_rows(head)
    state = head(ids, hidden, *start)[1]
    other_ids = ids.clone()
    other_ids[-1] = (ids[-1] + 1) % head.text.config.vocab_size
    assert (head(other_ids, hidden, *start)[1] - state).abs().max() > 0.01
    assert (head(ids, hidden.flip(0), *start)[1] - state).abs().max() > 0.01


def test_the_graph_reads_the_weights_where_they_are(model: Path) -> None:
    shared = export_draft_head(model, model, share=True)
    assert shared.error is not None
    assert shared.error < 1e-4
    assert shared.bytes < shared.shared_bytes
    graph = onnx.load(shared.file, load_external_data=False)
    places = {
        entry.value for value in graph.graph.initializer for entry in value.external_data if entry.key == "location"
    }
    assert places == {"draft_head/model.safetensors", "text_decoder/model.safetensors"}
    head = load_draft_head(model)
    ids, hidden = inputs(head, 3)
    rows = no_rows(head, 4).numpy()
    feeds = {"input_ids": ids.numpy(), "hidden": hidden.numpy(), "past_length": np.array([0])}
    results = onnxruntime.InferenceSession(shared.file).run(None, {**feeds, "past_key": rows, "past_value": rows})
    with torch.no_grad():
        expected = head(ids, hidden, torch.tensor([0]), no_rows(head), no_rows(head))
    assert results[0] == expected[0].numpy()
    np.testing.assert_allclose(results[1], expected[1].numpy(), atol=1e-4)


def test_a_head_of_another_model_is_refused(model: Path) -> None:
    file = model / "draft_head" / "model.safetensors"
    weights = load_file(file)
    fuse = stored_name("fuse.weight")
    weights[fuse] = weights[fuse][:, :-2].contiguous()
    del weights[stored_name("layer.down.weight")]
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"train_draft_head.*\n(.*\n)*.*(fuse|down)\.weight"):
        load_draft_head(model)
