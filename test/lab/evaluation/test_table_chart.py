from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import table_halves
from PIL import Image

from litevlm_ros.errors import ConfigError

pytest.importorskip("matplotlib", reason="draws")

from litevlm_ros.lab.evaluation.table_chart import draw_table


def test_the_table_becomes_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "new" / "table.png"
    draw_table(table_halves.table(), file)
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(10**6) or ()) > 50


def test_without_times_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--latency-questions"):
        draw_table(replace(table_halves.table(), latency={}), tmp_path / "table.png")
