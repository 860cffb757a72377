from __future__ import annotations

import numpy as np

from litevlm_ros.text.prefix import Prefix

V = 100
IDS = [7, 8, V, V + 1, V + 2, 9, V + 3, V + 4, V + 5, 10]


def whole() -> Prefix:
    return Prefix.whole(IDS, V)


def test_a_whole_prefix_has_no_gaps() -> None:
    prefix = whole()
    assert prefix.ids.tolist() == IDS
    assert prefix.positions.tolist() == list(range(10))
    assert (prefix.end, prefix.words) == (10, [7, 8, 9, 10])


def test_what_is_kept_stays_where_it_was_under_a_new_number() -> None:
    prefix = whole().keep(np.array([1, 3, 5]))
    assert prefix.ids.tolist() == [7, 8, V, 9, V + 1, V + 2, 10]
    assert prefix.positions.tolist() == [0, 1, 3, 5, 6, 8, 9]
    assert (prefix.end, prefix.words) == (10, [7, 8, 9, 10])


def test_keeping_all_changes_nothing() -> None:
    prefix = whole().keep(np.arange(6))
    assert prefix.ids.tolist() == IDS
    assert prefix.positions.tolist() == list(range(10))


def test_shared_tokens_end_at_another_word_place_or_picture() -> None:
    prefix = whole().keep(np.array([1, 3]))
    assert prefix.shared(whole().keep(np.array([1, 3])), 2) == 6
    assert prefix.shared(prefix, 1) == 4, "the second picture is another"
    assert prefix.shared(prefix, 0) == 2
    assert prefix.shared(whole().keep(np.array([1, 4])), 2) == 4, "another token of the second picture"
    assert prefix.shared(whole().keep(np.array([0, 3])), 2) == 2
    assert prefix.shared(whole(), 6) == 2
    other = Prefix.whole([7, 5, *IDS[2:]], V)
    assert whole().shared(other, 6) == 1
    assert whole().shared(Prefix.whole(IDS[:4], V), 6) == 4
