"""The division of blocks into teams, on GPUs with clusters and without."""

from __future__ import annotations

import pytest

from litevlm_ros.runtime.tensorrt.kernels.teams import Teams, divided

H100 = {8: 15, 4: 30, 2: 66}
GB10 = {8: 6, 4: 12, 2: 24}


@pytest.mark.parametrize(
    ("clusters", "heads", "units", "singles", "expected"),
    [
        (H100, 14, 152, 132, Teams(15, 8)),
        (H100, 14, 14, 132, Teams(14, 8)),
        (H100, 16, 152, 132, Teams(30, 4)),
        (GB10, 14, 152, 48, Teams(24, 2)),
        ({}, 14, 152, 16, Teams(16, 1)),
        ({}, 14, 5, 16, Teams(5, 1)),
        ({}, 14, 152, 128, Teams(32, 1)),
        (H100, 80, 152, 132, Teams(32, 1)),
    ],
)
def test_a_team_is_as_large_as_leaves_one_for_each_head(
    clusters: dict[int, int], heads: int, units: int, singles: int, expected: Teams
) -> None:
    assert divided(heads, units, singles, lambda size: clusters.get(size, 0)) == expected


def test_blocks_are_those_of_all_teams() -> None:
    assert Teams(15, 8).blocks == 120
