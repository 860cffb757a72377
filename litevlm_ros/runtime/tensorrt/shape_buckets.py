"""The few shapes in which engines run: each costs an execution context, so many sizes share one.

Padding is harmless: cache rows behind the valid ones are masked, new tokens behind the last one are seen by none
before them and never reach the cache, and logits that nobody asked for are not looked at.
"""

from __future__ import annotations

FINE = 64
"""New tokens of a prompt are padded to a multiple of this up to COARSE, and of a quarter of COARSE beyond."""
COARSE = 1024


def power_of_two(count: int, least: int, most: int) -> int:
    """The smallest power of two from `least` on that holds `count`, but at most `most`."""
    size = least
    while size < count:
        size *= 2
    return min(size, most)


def prompt_tokens(count: int, most: int) -> int:
    """New tokens in one call for `count` that are there: a power of two up to FINE, then in steps; at most `most`."""
    if count <= FINE:
        return power_of_two(count, 1, most)
    step = FINE if count <= COARSE else COARSE // 4
    return min(-(-count // step) * step, most)


def chunks(count: int, most: int, last: int) -> list[tuple[int, int]]:
    """`count` tokens in parts of at most `most`: (first, end) of each. The last part has at least `last` tokens."""
    ends = list(range(most, count, most))
    if ends and count - ends[-1] < last:
        ends[-1] = count - last
    return list(zip([0, *ends], [*ends, count], strict=True))
