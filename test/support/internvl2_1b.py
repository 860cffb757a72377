"""InternVL2-1B's shapes, without any weights."""

from __future__ import annotations

from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig

INTERNVL2_1B = ModelConfig(
    vision=VisionConfig(1024, 4096, 24, 16, image_size=448, patch_size=14),
    text=TextConfig(896, 4864, 24, 14, 2, 64, 1e-6, 1e6, 151655, True, 32768),
    template="Hermes-2",
    use_thumbnail=True,
    max_dynamic_tiles=12,
)
"""With one table for embedding and head, unlike the published checkpoint, which has two."""
