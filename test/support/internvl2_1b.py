"""InternVL2-1B's shapes, without any weights."""

from __future__ import annotations

from dataclasses import replace

from litevlm_ros.published_models import PUBLISHED_MODELS

_PUBLISHED = PUBLISHED_MODELS["internvl2-1b"].model

INTERNVL2_1B = replace(_PUBLISHED, text=replace(_PUBLISHED.text, tie_word_embeddings=True))
"""With one table for embedding and head, unlike the published checkpoint, which has two."""
