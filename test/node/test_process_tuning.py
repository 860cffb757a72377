from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from package_files import ROOT

from litevlm_ros.node.process_tuning import SWITCH_SECONDS

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="allocates with glibc's functions")


def python(code: str) -> str:
    """Returns the output of a new process, because the settings last for the whole life of a process."""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_threads_take_turns_more_often():
    code = "import sys; from litevlm_ros.node.process_tuning import tune_process; tune_process()"
    assert float(python(f"{code}; print(sys.getswitchinterval())")) == pytest.approx(SWITCH_SECONDS)


def test_images_are_decoded_by_one_thread():
    code = "import cv2; from litevlm_ros.node.process_tuning import tune_process; tune_process()"
    assert int(python(f"{code}; print(cv2.getNumThreads())")) == 1


@glibc
def test_the_memory_of_an_image_is_used_for_the_next_one():
    pages = python("""
import resource
from litevlm_ros.node.process_tuning import tune_process
tune_process()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for sizes in range(3):
    images = [bytearray(6 << 20), bytearray(9 << 20)]
    images.clear()
before = faults()
for _ in range(20):
    images = [bytearray(6 << 20), bytearray(9 << 20)]
    images.clear()
print((faults() - before) / 20)
""")
    # Mapped anew, both together are 3840 pages of 4 KB.
    assert float(pages) < 400


@glibc
def test_freed_memory_can_be_given_back():
    kept, released = python("""
from pathlib import Path
from litevlm_ros.node.process_tuning import release_memory, tune_process
resident = lambda: 4096 * int(Path("/proc/self/statm").read_text().split()[1])
tune_process()
before = resident()
images = [bytearray(1 << 20) for _ in range(100)]
images.clear()
kept = resident() - before
release_memory()
print(kept >> 20, (resident() - before) >> 20)
""").split()
    assert int(kept) > 90
    assert int(released) < 10
