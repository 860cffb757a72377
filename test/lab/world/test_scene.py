from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise

import pytest

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.world.scene import (
    COLOURS,
    HELD_OUT_CONDITION,
    HELD_OUT_USERS,
    Distance,
    Kind,
    Scene,
    Side,
    generate,
)


@cache
def scenes(unseen: bool) -> list[Scene]:
    return [generate(seed, unseen=unseen) for seed in range(300)]


def test_a_seed_always_gives_the_same_scene() -> None:
    assert generate(17) == generate(17)
    assert generate(17) != generate(18)


def test_training_scenes_have_no_held_out_combination() -> None:
    for scene in scenes(False):
        assert (scene.weather, scene.time) != HELD_OUT_CONDITION
        users = [(user.kind, user.colour) for view in scene.views.values() for user in view.users]
        assert not set(users) & set(HELD_OUT_USERS)


def test_unseen_scenes_have_one_in_nearly_every_view_with_road_users() -> None:
    conditions = set()
    held_out = []
    for scene in scenes(True):
        conditions.add((scene.weather, scene.time))
        for view in scene.views.values():
            if view.users:
                held_out.append((view.users[0].kind, view.users[0].colour) in HELD_OUT_USERS)
    assert sum(held_out) > 0.9 * len(held_out)
    assert HELD_OUT_CONDITION in conditions


def test_each_kind_and_colour_is_held_out_exactly_once() -> None:
    assert Counter(kind for kind, _ in HELD_OUT_USERS) == Counter(Kind)
    assert Counter(colour for _, colour in HELD_OUT_USERS) == Counter(COLOURS)


@pytest.mark.parametrize("unseen", [False, True])
def test_road_users_of_a_view_do_not_overlap_and_stand_inside_it(unseen: bool) -> None:
    for scene in scenes(unseen):
        for view in scene.views.values():
            spans = [(u.azimuth - u.half_width_degrees(), u.azimuth + u.half_width_degrees()) for u in view.users]
            spans.sort()
            assert all(high < low for (_, high), (low, _) in pairwise(spans))
            assert all(low > -32 and high < 32 for low, high in spans)


def test_sides_and_distances_leave_no_borderline_case() -> None:
    for scene in scenes(False):
        for view in scene.views.values():
            for user in view.users:
                assert (user.depth < 14) == (user.distance is Distance.NEAR)
                side = Side.AHEAD if abs(user.azimuth) < 7 else Side.LEFT if user.azimuth > 0 else Side.RIGHT
                assert user.side is side


def test_everything_occurs() -> None:
    assert set(scenes(False)[0].views) == set(DEMO_CAMERAS)
    users = [user for scene in scenes(False) for view in scene.views.values() for user in view.users]
    assert len({(user.kind, user.colour) for user in users}) == len(Kind) * len(COLOURS) - len(HELD_OUT_USERS)
    assert len({(scene.weather, scene.time) for scene in scenes(False)}) == 7
    assert {len(view.users) for scene in scenes(False) for view in scene.views.values()} >= {0, 1, 2, 3}
