"""The node on a scripted pipeline, for tests that reach it over DDS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lifecycle_bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench whose node the test starts. Files with another kind of bench replace it."""
    from lifecycle_bench import Bench  # not at the top: it needs ROS 2, which its tests are skipped without

    bench = Bench()
    yield bench
    bench.close()
