from __future__ import annotations

import numpy as np

from litevlm_ros.lab.benchmarking.stages import Statistics, camera_image


def test_statistics() -> None:
    assert Statistics.of([3, 1, 2, 10]) == Statistics(median=2.5, least=1, most=10)


def test_images_are_the_same_each_time_and_differ_by_view() -> None:
    first, again, other = camera_image(0, 64, 48), camera_image(0, 64, 48), camera_image(1, 64, 48)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (48, 64, 3)
    assert (first != other).any(-1).mean() > 0.02
