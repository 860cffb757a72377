"""The prompt families: the chat template that a checkpoint was trained with, by its name.

`text/prompt.py` has the templates themselves. A new family is a name here and a template there.
"""

from __future__ import annotations

from litevlm_ros.config_json import ConfigSection
from litevlm_ros.errors import CheckpointError

HERMES = "Hermes-2"
"""The family of InternVL2-1B. `internlm2-chat`, which some fine-tuned models name, has the same tokens."""
INTERNVL2_5 = "internvl2_5"
"""The family of InternVL2.5, InternVL3 and InternVL3.5."""
INTERNVL_HF = "internvl-hf"
"""The family of checkpoints in transformers' own layout, by its chat template: no system prompt, no labels."""
DEMO = "litevlm-demo"
"""The family of the model that ships with the package."""

FAMILIES = (HERMES, INTERNVL2_5, INTERNVL_HF, DEMO)

_NAMES = {**{family: family for family in FAMILIES}, "internlm2-chat": HERMES}
"""The key `template` of a config.json → the family that it names."""


def prompt_family(whole: ConfigSection, *, is_native: bool) -> str:
    """Returns the prompt family of a whole model, one of FAMILIES. Original checkpoints name it as `template`.

    A file in transformers' spelling, which `is_native` says, has no such key. Its model is prompted by transformers'
    chat template, which is the same for all that are published. Raises CheckpointError for an unknown family, and if
    the key is missing.
    """
    given = whole.get("template")
    if given is None and is_native:
        return INTERNVL_HF
    if given is None:
        raise CheckpointError(
            f"{whole.file}: template is missing; add the prompt family that the model was trained with: "
            f"{HERMES!r} for InternVL2, {INTERNVL2_5!r} for InternVL2.5, 3 and 3.5"
        )
    if not isinstance(given, str) or given not in _NAMES:
        known = ", ".join(map(repr, _NAMES))
        whole.refuse("template", given, f"{known}. Take a model that was trained with one of these")
    return _NAMES[given]
