from __future__ import annotations

import pytest

kernels = pytest.importorskip("litevlm_ros.lab.benchmarking.kernels", reason="traces with PyTorch: pip install torch")


def test_the_table_has_the_longest_kernels_and_the_sum() -> None:
    found = {"decode_token": [kernels.Kernel("gemv", 96.0, 600.0), kernels.Kernel("softmax", 24.0, 200.0)]}
    lines = kernels.kernel_table(found).splitlines()
    assert lines[0] == "decode_token: 800 µs in 120 launches of 2 kernels"
    assert lines[1].split() == ["600.0", "µs", "75%", "96.0x", "gemv"]


@pytest.mark.gpu
def test_a_matrix_product_is_found() -> None:
    import torch

    matrix = torch.ones(512, 512, device="cuda")
    found = kernels.trace(lambda: matrix @ matrix, runs=2)
    assert found
    assert found[0].launches >= 0.5
    assert 0 < found[0].microseconds < 1e5
