"""The ROS parameters of the node: their defaults, ranges and descriptions. settings.py says what they mean together.

This file needs no ROS, so that `litevlm_node --help` can list them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litevlm_ros.config import CAPTION_PROMPT, DEMO_CAMERAS, SETTINGS
from litevlm_ros.images.decoding import MAX_PIXELS
from litevlm_ros.launching.preflight import TRANSPORTS
from litevlm_ros.node.parameter_types import Parameter

RELIABILITIES = ("best_effort", "reliable")
"""Values of the parameter `image_reliability`."""

FRAME_CLOCKS = ("auto", "stamp", "arrival")
"""Values of the parameter `frame_clock`. `auto`: a frame's stamp if the clocks agree, else its arrival."""

_SHORTEST, _LONGEST = 0.001, 86400.0
"""The range in seconds of a duration that is not 0."""


def _model_parameter(name: str, description: str, *, live: bool = False) -> dict[str, Parameter]:
    """Returns the parameter of a setting of the model, whose default, range and choices are in config.py."""
    setting = SETTINGS[name]
    default: Any = setting.default
    low, high = setting.parameter_range or (None, None)
    return {name: Parameter(default, description, low, high, setting.choices, live=live)}


PARAMETERS: Mapping[str, Parameter] = {
    "autostart": Parameter(
        True, "The node configures and activates itself when it starts. false leaves both to a lifecycle manager.",
        read_only=True,
    ),
    "bond_heartbeat_period": Parameter(
        0.0, "Seconds between two heartbeats to a lifecycle manager that watches the node by a bond, as nav2's does. "
        "Needs bondpy. 0: no bond.", 0, 2,
    ),
    # --- cameras
    "cameras": Parameter(list(DEMO_CAMERAS), "Names of the cameras, used in captions and queries."),
    "camera_topics": Parameter(
        [""], "Image topic of each camera, in the order of `cameras`. Empty: NAME/image_raw in the node's namespace, "
        "or NAME/image_raw/compressed with transport `compressed`."
    ),
    "transport": Parameter(
        ["auto"], "`raw` subscribes to sensor_msgs/Image, `compressed` to sensor_msgs/CompressedImage (JPEG or PNG). "
        "`auto`: compressed where the topic ends in /compressed, else raw. One value for all cameras, or one for each.",
        choices=TRANSPORTS,
    ),
    "image_reliability": Parameter(
        ["best_effort"], "Reliability of the image subscriptions. `best_effort` receives from publishers of every "
        "kind, `reliable` only from reliable ones. One value for all cameras, or one for each. Parameters "
        "below `qos_overrides.TOPIC.subscription` take precedence.", choices=RELIABILITIES,
    ),
    "image_depth": Parameter(
        1, "Number of images that the middleware keeps until the node reads them. Only the newest is used.", 1, 1000
    ),
    "max_frame_age": Parameter(
        2.0, "Age in seconds above which a frame is never used. With use_sim_time, neither its simulated nor its real "
        "age may be larger, so raise it for a simulation that is slow or paused.", _SHORTEST, _LONGEST, live=True
    ),
    "frame_clock": Parameter(
        "auto", "Start of a frame's age: the `stamp` in its header or its `arrival`. `auto`: the stamp, unless it is "
        "so far from the node's clock that another clock must have made it.", choices=FRAME_CLOCKS, live=True
    ),
    "max_image_pixels": Parameter(
        MAX_PIXELS, "Images with more pixels are refused, from cameras and in queries.", 1, 2**30
    ),
    # --- captions
    "caption_period": Parameter(
        1.0, "Seconds from one caption of a camera to its next one. 0: no captions.", 0, _LONGEST, live=True
    ),
    "caption_prompt": Parameter(CAPTION_PROMPT, "Instruction that the captions follow.", live=True),
    "caption_cameras": Parameter([""], "Names of the cameras to caption. Empty: all.", live=True),
    "caption_change_threshold": Parameter(
        0.0, "A view is not captioned again while it has changed by less than this since its last caption: the colour "
        "difference, from 0 to 255, of the part that changed most. 12 ignores the noise of most sensors. 0: every "
        "view is captioned.", 0, 255, live=True,
    ),
    "caption_max_hold": Parameter(
        30.0, "Seconds after which an unchanged view is captioned anyway.", _SHORTEST, _LONGEST, live=True
    ),
    "overlay_width": Parameter(
        960, "Largest width in pixels of the images on ~/overlay/CAMERA/compressed and ~/overlay/compressed.",
        160, 7680, live=True,
    ),
    # --- questions
    "max_queued_questions": Parameter(
        16, "Number of questions that may wait while another one is answered. Further ones are refused at once.",
        1, 1000, live=True,
    ),
    "max_question_chars": Parameter(
        2000, "Largest number of characters of a question. Longer ones are refused.", 1, 1_000_000, live=True
    ),
    "max_query_images": Parameter(8, "Largest number of images that may come with one query.", 1, 100, live=True),
    # --- model
    "model_dir": Parameter("", "Directory of the model. Empty: the demo model that ships with the package."),
    **_model_parameter(
        "backend", "Inference backend. `auto`: TensorRT if there are engines that fit this machine, else ONNX Runtime."
    ),
    "engine_dir": Parameter("", "Directory of the model's TensorRT engines. Empty: model_dir."),
    **_model_parameter(
        "vision_precision",
        "Precision of the vision encoder's engine or graph. `auto`: the most accurate engine that fits, or on a CPU "
        "the graph that suits it.",
    ),
    **_model_parameter(
        "text_precision",
        "Precision of the text decoder's engine or graph. `auto`: the most accurate engine that fits, or on a CPU "
        "the graph that suits it.",
    ),
    **_model_parameter(
        "decode", "What computes decode steps on TensorRT. `kernels`: one kernel of this package. `engine`: the "
        "engine's blocks. `auto`: the kernel where it is supported and right.",
    ),
    **_model_parameter(
        "memory_budget_mb",
        "Memory in MB, of the process and the GPU together, above which loading the model gives a warning. 0: none.",
    ),
    **_model_parameter("threads", "Number of CPU threads of the backend. 0: one for each core."),
    **_model_parameter(
        "max_tiles", "Largest number of tiles that a view is cut into. More tiles show finer detail and take longer."
    ),
    **_model_parameter(
        "max_context",
        "Largest number of tokens of prompt, images and answer together. 0: as many as the model allows.",
    ),
    "system_prompt": Parameter("", "Replaces the system prompt of the model family. Empty: the family's own."),
    "view_label": Parameter(
        "", "Text before each image in the prompt, for a model that was tuned with other labels than its family's. It "
        "needs quotes in YAML: `'Image-{index} ({camera}): '`. Empty: the family's own form, where a line behind "
        "several images tells which camera each is from.",
    ),
    "stitch_views": Parameter(
        False, "The cameras of a question are shown to the model as one picture in a grid, with their names in it, and "
        "not one by one. For models that were trained so, such as Mini-InternVL2-1B-DA-DriveLM; six cameras then need "
        "max_tiles 12. A caption shows one camera in any case.",
    ),
    **_model_parameter(
        "max_new_tokens", "Largest number of tokens of a caption, or of an answer whose query does not set its own.",
        live=True,
    ),
    **_model_parameter(
        "temperature", "Sampling temperature of captions; a query has its own. 0: always the likeliest token. Above 0: "
        "tokens are sampled, more freely the higher it is.", live=True,
    ),
    **_model_parameter(
        "top_k", "Captions with a temperature above 0 sample among this many of the likeliest tokens. 0: no limit.",
        live=True,
    ),
    **_model_parameter(
        "top_p", "Captions with a temperature above 0 sample among the likeliest tokens whose probabilities add up to "
        "this. 1: all tokens.", live=True,
    ),
    **_model_parameter(
        "repetition_penalty", "Values above 1 make tokens that the text already has less likely. 1: no penalty.",
        live=True,
    ),
    # --- LiteVLM
    **_model_parameter(
        "view_selection", "Method that selects the cameras that a question about all of them needs. `lexical` goes by "
        "the words of the question, and keeps all cameras if they say nothing. `learned` also uses the model's "
        "view_selector.onnx.",
    ),
    **_model_parameter(
        "view_selection_threshold", "Score above which a view is kept. A camera that is named has the score 1, one "
        "whose direction is mentioned 0.4.", live=True,
    ),
    "view_selection_phrases": Parameter(
        [""], "Further words for cameras, such as `gripper: hand, tool`. One camera an entry. Empty: none.", live=True
    ),
    **_model_parameter(
        "token_selection", "Method that selects the visual tokens of each tile that the language model reads. "
        "`diversity` and `similarity` need no training, `scorer` needs the model's token_scorer.onnx, and `random` is "
        "for comparison.",
    ),
    **_model_parameter("token_selection_keep", "Share of each tile's visual tokens that is kept.", live=True),
    **_model_parameter(
        "speculation", "Source of drafts, whose tokens greedy decoding checks several at a time. `ngram` looks for the "
        "same words in earlier text, `head` asks a small trained network, `auto` does both. Drafts are used where "
        "they prove faster, and change no answer.",
    ),
    **_model_parameter("speculation_tokens", "Largest number of tokens of one draft."),
    **_model_parameter(
        "reuse_frames", "Number of frames whose visual tokens are kept, so that further questions about them do not "
        "encode them again. 0: none.",
    ),
}  # fmt: skip
