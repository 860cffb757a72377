from __future__ import annotations

import pytest

from litevlm_ros.runtime.tensorrt.text_buffers import chunks, power_of_two, prompt_tokens


@pytest.mark.parametrize("most", [1, 63, 96, 300, 2048, 4000])
def test_prompts_of_any_length_get_one_of_few_sizes_that_hold_them(most: int) -> None:
    sizes = [prompt_tokens(count, most) for count in range(1, most + 1)]
    assert all(count <= size <= most for count, size in enumerate(sizes, 1))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) <= 35
    assert all(size <= max(2 * count, 64) for count, size in enumerate(sizes, 1)), "padding is bounded"
    assert all(size < count + 64 for count, size in enumerate(sizes, 1) if 64 < count <= 1024)


def test_powers_of_two_end_at_the_capacity() -> None:
    assert [power_of_two(count, 64, 700) for count in (0, 64, 65, 300, 512, 513, 700)] == [
        *(64, 64, 128, 512, 512, 700, 700)
    ]
    assert power_of_two(3, 64, 20) == 20


@pytest.mark.parametrize(
    ("count", "most", "last", "expected"),
    [
        (5, 10, 1, [(0, 5)]),
        (10, 10, 10, [(0, 10)]),
        (11, 10, 1, [(0, 10), (10, 11)]),
        (11, 10, 4, [(0, 7), (7, 11)]),
        (25, 10, 8, [(0, 10), (10, 17), (17, 25)]),
    ],
)
def test_the_last_part_has_all_tokens_that_need_logits(
    count: int, most: int, last: int, expected: list[tuple[int, int]]
) -> None:
    assert chunks(count, most, last) == expected
