"""The demo model's draft head, compared with its graph run on whole answers without a cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from outliers import write_nan

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError, NotFiniteError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import CHECKSUMS, HEAD_DIRECTORY, WEIGHTS, demo_model_directory
from litevlm_ros.runtime.onnx.session import Array, session_options
from litevlm_ros.text.draft_head import HEAD, HeadDrafts
from litevlm_ros.text.drafts import Offer

MODEL = demo_model_directory()
GRAPH = MODEL / "draft_head.onnx"
TEXT = ModelConfig.from_directory(MODEL).text
RANDOM = np.random.default_rng(5)
TOKENS = RANDOM.integers(0, TEXT.vocab_size, 120).tolist()
STATES = RANDOM.normal(size=(120, TEXT.hidden_size)).astype(np.float32)


def head(file: Path = GRAPH) -> HeadDrafts:
    return HeadDrafts(file, TEXT, 200, session_options(PipelineConfig(MODEL, threads=1)))


@pytest.fixture(scope="module")
def drafts() -> HeadDrafts:
    return head()


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(GRAPH, options, providers=["CPUExecutionProvider"])


def whole(session: onnxruntime.InferenceSession, first: int, end: int, count: int) -> list[int]:
    """Returns the draft behind the tokens from `first` to before `end`, with all tokens read anew for each step."""
    tokens, states = TOKENS[first:end], STATES[first:end]
    rows = np.zeros((0, TEXT.num_kv_heads, TEXT.head_dim), np.float32)
    guesses: list[int] = []
    for _ in range(count):
        feeds: dict[str, Array] = {"input_ids": np.array(tokens), "hidden": states, "past_length": np.array([0])}
        token, state, _, _ = session.run(None, {**feeds, "past_key": rows, "past_value": rows})
        guesses.append(int(token[0]))
        tokens, states = [*tokens, guesses[-1]], np.concatenate((states, state))
    return guesses


def tell(drafts: HeadDrafts, first: int, end: int) -> None:
    for place in range(first, end):
        state = STATES[place].copy()
        drafts.add(TOKENS[place], state)
        state[:] = np.nan  # it is valid within the call only


def test_drafts_are_what_the_graph_gives_on_the_whole_answer(
    drafts: HeadDrafts, session: onnxruntime.InferenceSession
) -> None:
    drafts.begin([1, 2, 3], "topic")
    said = 0
    # Also across the edge of a bucket of the cache, and more tokens at once than one call reads.
    for more, count in ((1, 3), (2, 1), (4, 7), (16, 15), (40, 4), (3, 15)):
        tell(drafts, said, said + more)
        said += more
        assert drafts.offer() == Offer(15, HEAD)
        assert drafts.draft(count) == whole(session, 0, said, count)


def test_an_answer_knows_nothing_of_the_one_before(drafts: HeadDrafts, session: onnxruntime.InferenceSession) -> None:
    for first in (0, 30):
        drafts.begin([], "topic")
        tell(drafts, first, first + 5)
        assert drafts.draft(4) == whole(session, first, first + 5, 4)
        drafts.remember()


def test_without_a_state_it_begins_anew_behind(drafts: HeadDrafts, session: onnxruntime.InferenceSession) -> None:
    drafts.begin([], "topic")
    assert drafts.offer() == Offer()
    tell(drafts, 0, 5)
    drafts.draft(3)
    drafts.add(TOKENS[5], None)
    assert drafts.offer() == Offer()
    tell(drafts, 6, 8)
    assert drafts.draft(3) == whole(session, 6, 8, 3)


def test_the_last_tokens_of_a_full_context_can_be_drafted() -> None:
    drafts = HeadDrafts(GRAPH, TEXT, 20, session_options(PipelineConfig(MODEL, threads=1)))
    drafts.begin([], "topic")
    tell(drafts, 0, 20)
    assert len(drafts.draft(15)) == 15


def test_a_draft_ends_before_the_answer_does(session: onnxruntime.InferenceSession) -> None:
    guesses = whole(session, 0, 9, 15)
    stop = guesses[5]
    options = session_options(PipelineConfig(MODEL, threads=1))
    drafts = HeadDrafts(GRAPH, TEXT, 200, options, stop_ids={stop})
    drafts.begin([], "topic")
    tell(drafts, 0, 9)
    assert drafts.draft(15) == guesses[: guesses.index(stop)]


def test_where_the_answer_ends_nothing_is_drafted(session: onnxruntime.InferenceSession) -> None:
    (stop,) = whole(session, 0, 9, 1)
    drafts = HeadDrafts(GRAPH, TEXT, 200, session_options(PipelineConfig(MODEL, threads=1)), stop_ids={stop})
    drafts.begin([], "topic")
    tell(drafts, 0, 9)
    assert drafts.draft(15) == []


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "draft_head.onnx"
    file.write_bytes(GRAPH.read_bytes()[:500])
    with pytest.raises(EngineError, match=r"draft_head.onnx cannot be loaded.*train_draft_head"):
        head(file)


def test_a_graph_that_is_no_head_is_refused() -> None:
    with pytest.raises(EngineError, match="has other inputs or outputs"):
        head(MODEL / "text_decoder.onnx")


def test_a_head_whose_numbers_are_not_finite_names_its_training(tmp_path: Path) -> None:
    model = Path(shutil.copytree(MODEL, tmp_path / "model", ignore=shutil.ignore_patterns(CHECKSUMS)))
    write_nan(model / HEAD_DIRECTORY / WEIGHTS, "fuse.weight")
    drafts = head(model / GRAPH.name)
    for _ in range(2):
        drafts.begin([], "topic")
        tell(drafts, 0, 5)
        with pytest.raises(
            NotFiniteError, match=r"draft_head.onnx is damaged; .* train_draft_head --model .* to ngram"
        ):
            drafts.draft(3)


def test_a_state_that_is_not_finite_spoils_no_later_draft(session: onnxruntime.InferenceSession) -> None:
    drafts = head()
    drafts.begin([], "topic")
    drafts.add(TOKENS[0], np.full(TEXT.hidden_size, np.nan, np.float32))
    with pytest.raises(NotFiniteError):
        drafts.draft(3)
    drafts.begin([], "topic")
    tell(drafts, 0, 5)
    assert drafts.draft(4) == whole(session, 0, 5, 4)
