from __future__ import annotations

import contextlib
import sys
from types import ModuleType

import cv2
import numpy as np
import pytest

from litevlm_ros.errors import MalformedImageError
from litevlm_ros.images import via_cv_bridge
from litevlm_ros.images.decoding import decode_raw

PIXEL = np.array([10, 20, 30], np.uint8)


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Puts a cv_bridge with the given class body on the path, in this process and in the one that tries it."""

    def put(body: str) -> ModuleType:
        (tmp_path / "cv_bridge.py").write_text(f"import cv2, numpy as np\nclass CvBridge:\n    calls = 0\n{body}")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        via_cv_bridge._find.cache_clear()
        import cv_bridge

        return cv_bridge

    yield put
    sys.modules.pop("cv_bridge", None)
    via_cv_bridge._find.cache_clear()


def bridged() -> bool:
    return via_cv_bridge.decode("bgr8", 1, 1, PIXEL, False) is not None


WORKS = """
    def imgmsg_to_cv2(self, msg, desired_encoding):
        CvBridge.calls += 1
        image = np.ndarray((msg.height, msg.width, 3), np.uint8, msg.data, strides=(msg.step, 3, 1))
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
"""


def test_a_working_bridge_is_used(install):
    module = install(WORKS)
    image = decode_raw("bgr8", 1, 1, 3, PIXEL)
    assert image.tolist() == [[[30, 20, 10]]]
    assert module.CvBridge.calls == 2
    assert bridged()


def test_padded_rows_do_not_go_through_the_bridge(install):
    module = install(WORKS)
    decode_raw("bgr8", 1, 1, 4, np.append(PIXEL, 0))
    assert module.CvBridge.calls == 0


@pytest.mark.parametrize("encoding", ["mono16", "bayer_rggb16", "rgb16", "16UC1", "32FC1"])
def test_what_cv_bridge_would_show_otherwise_does_not_go_through_it(install, encoding):
    module = install(WORKS)
    with contextlib.suppress(MalformedImageError):
        assert decode_raw(encoding, 4, 4, 24, np.full(96, 15, np.uint8)).max() == 0xF0
    assert module.CvBridge.calls == 0


@pytest.mark.parametrize(
    "body",
    [
        "    def imgmsg_to_cv2(self, msg, desired_encoding): raise AttributeError('_ARRAY_API not found')\n",
        "    def imgmsg_to_cv2(self, msg, desired_encoding): raise ImportError('numpy.core.multiarray failed')\n",
        "    def imgmsg_to_cv2(self, msg, desired_encoding): return np.zeros((1, 1, 3), np.uint8)\n",
        "    def imgmsg_to_cv2(self, msg, desired_encoding): import os; os.abort()\n",
    ],
)
def test_a_broken_bridge_is_left_alone(install, body):
    if "abort" in body and int(np.__version__.split(".")[0]) < 2:
        pytest.skip("the trial runs in its own process only where numpy 2 makes a crash likely")
    install(body)
    assert not bridged()
    assert decode_raw("bgr8", 1, 1, 3, PIXEL).tolist() == [[[30, 20, 10]]]


def test_a_bridge_that_fails_later_is_dropped(install):
    module = install(WORKS)
    assert bridged()
    module.CvBridge.imgmsg_to_cv2 = lambda *_, **__: (_ for _ in ()).throw(cv2.error("broken"))
    assert decode_raw("bgr8", 1, 1, 3, PIXEL).tolist() == [[[30, 20, 10]]]
    assert not bridged()
