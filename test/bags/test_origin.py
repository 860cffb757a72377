from __future__ import annotations

import shutil
from pathlib import Path

from litevlm_ros.bags.origin import Origin, Source, model_source
from litevlm_ros.model_directory import TEXT, demo_model_directory, weight_files


def test_a_model_is_known_by_its_name_and_its_contents(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(demo_model_directory(), tmp_path / "demo"))
    original = model_source(demo_model_directory())
    assert (original.name, model_source(copy)) == ("demo", original)
    weights = weight_files(copy / TEXT)[0]
    contents = bytearray(weights.read_bytes())
    contents[-1] ^= 1
    weights.write_bytes(contents)
    assert model_source(copy).identity != original.identity


def test_the_fields_of_an_entry() -> None:
    origin = Origin(Source("drive", "1"), Source("demo", "2"), "What?")
    assert origin.fields() == {"bag": {"name": "drive", "identity": "1"}, "model": {"name": "demo", "identity": "2"}}
