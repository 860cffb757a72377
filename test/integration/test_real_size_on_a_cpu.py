"""A model of InternVL2-1B's size in int8 and int4 on a CPU: memory, and tokens against PyTorch in fp32.

It takes minutes, 6 GB of memory and 3 GB of disk, so it runs only when asked for:

    LITEVLM_REAL_SIZE=1 python -m pytest test/integration/test_real_size_on_a_cpu.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from internvl2_1b import INTERNVL2_1B
from package_files import ROOT

torch = pytest.importorskip("torch")

from litevlm_ros.convert.calibration import data_for  # noqa: E402
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder  # noqa: E402
from litevlm_ros.convert.export import export_graphs  # noqa: E402
from litevlm_ros.convert.packed_graph import give_weights  # noqa: E402
from litevlm_ros.convert.packed_weights import stored_weights  # noqa: E402
from litevlm_ros.lab.benchmarking.exact_stages import sample_prompt, sample_tiles  # noqa: E402
from litevlm_ros.lab.world.calibration import calibration_data  # noqa: E402
from litevlm_ros.model_directory import PARTS, TEXT, VISION  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("LITEVLM_REAL_SIZE" not in os.environ, reason="takes minutes: set LITEVLM_REAL_SIZE=1"),
]

TOKENS, WANTED = 442, 32
NOISE = 3
"""A token is compared if the margin of its logit is more than so many times the difference of the logits."""
MOST_MEMORY = 2e9

_RUN = """
import json, sys
from pathlib import Path
import numpy as np
from litevlm_ros.config import CAPTION_PROMPT, PipelineConfig, SamplingConfig
from litevlm_ros.lab.benchmarking.exact_stages import sample_prompt, sample_tiles
from litevlm_ros.lab.benchmarking.stages import camera_views
from litevlm_ros.machine import resident_bytes
from litevlm_ros.pipeline import Pipeline

directory, precision, tokens, wanted, output = sys.argv[1:]
config = PipelineConfig(Path(directory), "onnxruntime", vision_precision=precision, text_precision=precision)
pipeline = Pipeline.from_config(config)
pipeline.stop_ids = frozenset()
pipeline.generate(camera_views(1, (1280, 720)), CAPTION_PROMPT, SamplingConfig(max_new_tokens=16))
backend, model = pipeline.backend, pipeline.model
visual = backend.vision.encode(sample_tiles(1, model.vision.image_size))
ids = sample_prompt(model.text.vocab_size, int(tokens), model.vision.tokens_per_tile)
backend.text.cache.truncate(0)
found = backend.text.forward(ids, np.arange(len(ids)), visual, int(wanted))
np.save(output, found.logits())
print(json.dumps({"resident": resident_bytes(), "about": backend.description}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from random_internvl import write_random_internvl

    directory = tmp_path_factory.mktemp("real_size")
    write_random_internvl(directory, INTERNVL2_1B)
    return directory


def expected_logits(model: Path, precision: str | None, calibration: Any) -> Any:
    """Logits fp32 [WANTED, V] of PyTorch behind the last tokens of a prompt, of weights as stored."""
    config = INTERNVL2_1B
    vision, text = load_vision_encoder(model), load_text_decoder(model)
    if precision is not None:
        data = data_for(precision, calibration)
        for part, module in ((VISION, vision), (TEXT, text)):
            give_weights(module, dict(stored_weights(part, model, precision, data)))
    with torch.inference_mode():
        visual = vision(torch.from_numpy(sample_tiles(1, config.vision.image_size))).flatten(0, 1)
        ids = torch.from_numpy(sample_prompt(config.text.vocab_size, TOKENS, config.vision.tokens_per_tile))
        empty = [torch.zeros(0, config.text.num_kv_heads, config.text.head_dim)] * config.text.num_layers
        positions = torch.arange(TOKENS)
        return text(ids, positions, torch.tensor([0]), positions[-WANTED:], visual, empty, empty)[0].numpy()


@pytest.mark.parametrize(("precision", "weights"), [("int8", None), ("int4", "int4")])
def test_a_caption_fits_in_two_gigabytes_and_clear_tokens_are_those_of_fp32(
    precision: str, weights: str | None, model: Path, tmp_path: Path
) -> None:
    """In int4, with the weights in int4: four bits are too few for weights that are only noise."""
    calibration = partial(calibration_data, model, None, 2)
    expected = expected_logits(model, weights, calibration)
    for graph in export_graphs(model, model, dict.fromkeys(PARTS, precision), calibration=calibration):
        print(f"{graph.file.name}: {graph.seconds:.0f} s, relative error {graph.error}")
    command = [
        sys.executable,
        "-c",
        _RUN,
        str(model),
        precision,
        str(TOKENS),
        str(WANTED),
        str(tmp_path / "logits.npy"),
    ]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    facts = json.loads(told.splitlines()[-1])
    found = np.load(tmp_path / "logits.npy")
    noise = float(np.sqrt(np.square(found - expected).mean()))
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > NOISE * noise
    equal = found.argmax(1) == expected.argmax(1)
    print(
        f"{facts}, {equal.sum()} of {WANTED} tokens equal, {clear.sum()} of them clear, "
        f"noise {noise:.3f} of {expected.std():.3f}"
    )
    assert facts["about"].endswith(precision)
    assert facts["resident"] < MOST_MEMORY
    assert noise < 0.5 * float(expected.std())
    assert equal[clear].all()
