"""The registry of published models: its names, its arithmetic, and the page that shows it."""

from __future__ import annotations

import re

import pytest
from models_page import PAGE, with_table
from package_files import ROOT

from litevlm_ros import architectures
from litevlm_ros.engines.shapes import DEFAULT_CONTEXT
from litevlm_ros.precision import PRECISIONS
from litevlm_ros.prompt_families import FAMILIES
from litevlm_ros.published_models import DEFAULT_MODEL, PUBLISHED_MODELS, PublishedModel

ENTRIES = list(PUBLISHED_MODELS.values())


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page) == page, "write the table anew: python test/support/models_page.py"
    assert f"KV cache of {DEFAULT_CONTEXT} tokens" in page


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_is_named_after_its_repository(entry: PublishedModel) -> None:
    assert entry.name == entry.repository.partition("/")[2].lower()
    assert re.fullmatch(r"[0-9a-f]{40}|main", entry.revision)
    assert entry.model.template in FAMILIES
    assert (entry.model.template == "internvl-hf") == entry.name.endswith("-hf")


def test_sizes_are_those_of_the_published_files() -> None:
    """The parameters of InternVL3_5-1B-HF as counted in its file, and the sizes of downloads in GB."""
    assert PUBLISHED_MODELS["internvl3_5-1b-hf"].parameters == 1_060_897_792
    sizes = {name: round(entry.download_bytes / 1e9, 2) for name, entry in PUBLISHED_MODELS.items()}
    assert (sizes[DEFAULT_MODEL], sizes["internvl3-2b"], sizes["internvl3_5-1b"]) == (1.88, 4.18, 2.12)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_packed_weights_are_smaller(entry: PublishedModel) -> None:
    sizes = [entry.weight_bytes(precision) for precision in PRECISIONS]
    assert sizes[0] == sizes[1] == entry.download_bytes
    assert sizes[2] == sizes[3] < 0.51 * sizes[0]
    assert 0.3 * sizes[0] < sizes[4] < 0.4 * sizes[0]


def test_a_row_of_the_cache_has_keys_and_values_of_all_layers() -> None:
    assert PUBLISHED_MODELS["internvl2-1b"].cache_bytes(1) == 24 * 2 * 2 * 64 * 2
    assert PUBLISHED_MODELS["internvl3_5-1b"].cache_bytes(100) == 100 * 28 * 2 * 8 * 128 * 2


def test_models_that_refusals_recommend_are_published() -> None:
    source = (ROOT / "litevlm_ros" / "architectures.py").read_text(encoding="utf-8")
    source += (ROOT / "litevlm_ros" / "model_config.py").read_text(encoding="utf-8")
    named = set(re.findall(r"\binternvl\d[\w.]*-\db\b", source))
    assert named
    assert named <= PUBLISHED_MODELS.keys()
    assert architectures.NATIVE not in named
