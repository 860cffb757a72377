from __future__ import annotations

import numpy as np

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.training.packing import COLOUR_CLASSES, DISTANCE_CLASSES, KIND_CLASSES, grid_labels, pictures
from litevlm_ros.lab.world.scene import COLOURS, Kind, generate


def test_pictures_are_all_views_at_model_size() -> None:
    images = pictures(generate(3), 96, np.random.default_rng(0))
    assert images.shape == (6, 96, 96, 3)
    assert images.dtype == np.uint8
    assert images.std() > 10


def test_each_road_user_has_a_cell_of_its_kind_and_colour() -> None:
    for seed in range(40):
        scene = generate(seed)
        labels = grid_labels(scene, 8)
        assert labels.shape == (6, 8, 8, 3)
        assert (labels.reshape(-1, 3).max(0) < (KIND_CLASSES, COLOUR_CLASSES, DISTANCE_CLASSES)).all()
        for index, camera in enumerate(DEMO_CAMERAS):
            shown = {tuple(cell) for cell in labels[index].reshape(-1, 3)}
            nearest = min(scene.views[camera].users, key=lambda user: user.depth, default=None)
            if nearest is None:
                assert all(kind in (0, KIND_CLASSES - 1) for kind, _, _ in shown)
            else:
                classes = (1 + list(Kind).index(nearest.kind), 1 + COLOURS.index(nearest.colour))
                assert classes in {(kind, colour) for kind, colour, _ in shown}
