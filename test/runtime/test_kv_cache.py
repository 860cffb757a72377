from __future__ import annotations

import numpy as np
import pytest

from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.kv_cache import BUCKET, HostKVCache, bucket

TEXT = TextConfig(
    hidden_size=16,
    intermediate_size=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    rms_norm_eps=1e-6,
    rope_theta=1e4,
    vocab_size=9,
    tie_word_embeddings=False,
    max_position_embeddings=100,
)


@pytest.mark.parametrize("capacity", [1, 63, 64, 65, 200, 1000])
def test_buckets_are_few_and_large_enough(capacity: int) -> None:
    buckets = [bucket(length, capacity) for length in range(capacity + 1)]
    assert all(length <= rows <= capacity for length, rows in enumerate(buckets))
    assert buckets == sorted(buckets)
    assert len(set(buckets)) <= -(-capacity // BUCKET)


def test_rows_are_appended_taken_back_and_written_again() -> None:
    cache = HostKVCache(TEXT, 10)
    cache.next(4)[:] = 1
    cache.extend(4)
    cache.next(2)[:] = 2
    cache.extend(2)
    assert (cache.length, cache.capacity) == (6, 10)
    cache.truncate(3)
    cache.next(1)[:] = 5
    cache.extend(1)
    assert cache.length == 4
    np.testing.assert_array_equal(cache.past(8)[2, 1, :, 0, 0], [1, 1, 1, 5, 2, 2, 0, 0])


def test_a_layers_first_rows_are_contiguous() -> None:
    cache = HostKVCache(TEXT, 10, np.float16)
    past = cache.past(7)
    assert past.shape == (3, 2, 7, 2, 4)
    assert past.dtype == np.float16
    assert past[1, 0].flags.c_contiguous
    assert cache.next(5)[2, 1].flags.c_contiguous


def test_too_many_rows_are_refused_and_change_nothing() -> None:
    cache = HostKVCache(TEXT, 10)
    cache.extend(8)
    with pytest.raises(
        EngineError, match=r"3 more tokens do not fit behind the 8 in the cache of 10; increase max_context"
    ):
        cache.extend(3)
    for length in (9, -1):
        with pytest.raises(EngineError, match=f"the cache has 8 rows; it cannot be cut to {length}"):
            cache.truncate(length)
    assert cache.length == 8
