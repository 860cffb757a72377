"""Questions about a scene with their one true answer.

A question is about one view ("in the front left view", "behind us") or about all views offered. `cameras` names the
views that are needed to answer it: the ground truth for choosing views.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from litevlm_ros.lab.world.scene import COLOURS, Distance, Kind, LightState, RoadUser, Scene, Side, TimeOfDay, Weather

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MOST_COUNTED = 6
# Things this world does not have: the answer is always no.
ABSENT_THINGS = ("dog", "horse", "boat", "plane", "train", "child", "tractor", "elephant", "cat", "tram")
UNSEEN_ABSENT_THINGS = ("cow", "helicopter", "robot", "piano", "bear")

CAPTION_PROMPTS = (
    "Describe the view.",
    "Describe the scene.",
    "What do you see?",
    "Describe what the camera sees.",
    "Write a caption.",
    "What is in this image?",
)


@dataclass(frozen=True)
class Question:
    """A question, its short answer, its kind (for counting), and the cameras needed to answer it.

    `cameras` is empty where any one view will do, as for the weather.
    """

    text: str
    answer: str
    kind: str
    cameras: tuple[str, ...]


@dataclass(frozen=True)
class _Scope:
    """The part of the surroundings that a question is about."""

    users: tuple[tuple[str, RoadUser], ...]
    cameras: tuple[str, ...]
    phrase: str
    scene: Scene


_Writer = Callable[[np.random.Generator, _Scope, bool], "tuple[str, str] | None"]

_DIRECTIONS = {
    "front": ("in the front view", "in front of us", "ahead of us"),
    "back": ("in the back view", "behind us", "at the back"),
    "front_left": ("in the front left view", "to the front left"),
    "front_right": ("in the front right view", "to the front right"),
    "back_left": ("in the back left view", "to the back left"),
    "back_right": ("in the back right view", "to the back right"),
}
_ANY_VIEW = ("weather", "time")
_ALL_AROUND = ("around us", "in all views", "around the car", "in total")


def spoken(camera: str) -> str:
    """A camera's name as people say it: "front left"."""
    return camera.replace("_", " ")


def ask(
    scene: Scene, cameras: Sequence[str], count: int, rng: np.random.Generator, *, unseen: bool = False
) -> list[Question]:
    """Draw `count` questions about the views of `cameras`.

    Kinds come in turn, and the answers of each kind are balanced as far as the scene allows. With `unseen`, things are
    asked about that no training question names.
    """
    kinds = list(_WRITERS)
    if len(cameras) == 1:
        kinds.remove("camera")
    questions: list[Question] = []
    while len(questions) < count:
        for index in rng.permutation(len(kinds)):
            kind = kinds[int(index)]
            scope = _scope(scene, cameras, rng, kind)
            written = _WRITERS[kind](rng, scope, unseen)
            if written and len(questions) < count:
                text, answer = written
                questions.append(Question(text, answer, kind, () if kind in _ANY_VIEW else scope.cameras))
    return questions


def ask_for_caption(camera: str, among: Sequence[str], rng: np.random.Generator) -> str:
    """A request for a caption of `camera`, which is named when several views are offered."""
    if len(among) == 1:
        return _pick(rng, CAPTION_PROMPTS)
    return _pick(rng, (f"Describe the {spoken(camera)} view.", f"What does the {spoken(camera)} camera see?"))


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _scope(scene: Scene, cameras: Sequence[str], rng: np.random.Generator, kind: str) -> _Scope:
    chosen, phrase = tuple(cameras), ""
    # "on the left to the back right" would be hard to follow: places are asked about "in the back right view".
    phrases = 1 if kind in ("kind", "position") else 3
    if len(cameras) > 1:
        if kind == "camera" or (kind not in ("kind", "position", "way_ahead") and rng.random() < 0.3):
            phrase = " " + _pick(rng, _ALL_AROUND)
        else:
            chosen = ("front",) if kind == "way_ahead" and "front" in cameras else (_pick(rng, cameras),)
            phrase = " " + _pick(rng, _DIRECTIONS[chosen[0]][:phrases])
    elif cameras[0] in _DIRECTIONS and rng.random() < 0.25:
        phrase = " " + _pick(rng, _DIRECTIONS[cameras[0]][:phrases])
    users = tuple((camera, user) for camera in chosen for user in scene.views[camera].users)
    return _Scope(users, chosen, phrase, scene)


def _plural(kind: str) -> str:
    return {"bus": "buses"}.get(kind, f"{kind}s")


def _unique(
    scope: _Scope, rng: np.random.Generator, key: Callable[[RoadUser], tuple[str, ...]]
) -> tuple[str, RoadUser] | None:
    """A road user that `key` tells apart from all others in scope."""
    counts = Counter(key(user) for _, user in scope.users)
    candidates = [item for item in scope.users if counts[key(item[1])] == 1]
    return candidates[int(rng.integers(len(candidates)))] if candidates else None


def _presence(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    coloured = rng.random() < 0.6
    present = {(user.kind.value, user.colour if coloured else "") for _, user in scope.users}
    if rng.random() < 0.5:
        if not present:
            return None
        kind, colour = sorted(present)[int(rng.integers(len(present)))]
        answer = "yes"
    elif rng.random() < 0.15:
        kind, colour, answer = _pick(rng, UNSEEN_ABSENT_THINGS if unseen else ABSENT_THINGS), "", "no"
    else:
        absent = [(k.value, c) for k in Kind for c in (COLOURS if coloured else ("",)) if (k.value, c) not in present]
        # Near misses are the hard ones: the kind is there in another colour, or the colour on another kind.
        close = [(k, c) for k, c in absent if any(k == kind or (c and c == colour) for kind, colour in present)]
        options = close if close and rng.random() < 0.7 else absent
        if not options:
            return None
        kind, colour = options[int(rng.integers(len(options)))]
        answer = "no"
    thing = f"{colour} {kind}".strip()
    article = "an" if thing[0] in "aeiou" else "a"
    text = _pick(
        rng,
        (
            f"Is there {article} {thing}{scope.phrase}?",
            f"Do you see {article} {thing}{scope.phrase}?",
            f"Can you see any {thing}{scope.phrase}?",
        ),
    )
    return text, answer


def _count(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    choice = rng.random()
    present = sorted({user.kind for _, user in scope.users})
    if choice < 0.3:
        name, number = "vehicles", sum(user.kind.is_vehicle for _, user in scope.users)
    elif choice < 0.45:
        name, number = "road users", len(scope.users)
    else:
        kind = (
            present[int(rng.integers(len(present)))] if present and choice < 0.85 else tuple(Kind)[int(rng.integers(6))]
        )
        name, number = _plural(kind.value), sum(user.kind is kind for _, user in scope.users)
    if number > _MOST_COUNTED:
        return None
    text = _pick(
        rng,
        (
            f"How many {name} are there{scope.phrase}?",
            f"How many {name} do you see{scope.phrase}?",
            f"Count the {name}{scope.phrase}.",
        ),
    )
    return text, NUMBERS[number]


def _colour(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    found = _unique(scope, rng, lambda user: (user.kind.value,))
    if not found:
        return None
    kind = found[1].kind.value
    text = _pick(
        rng,
        (
            f"What colour is the {kind}{scope.phrase}?",
            f"Which colour does the {kind}{scope.phrase} have?",
            f"What color is the {kind}{scope.phrase}?",
        ),
    )
    return text, found[1].colour


def _kind(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    found = _unique(scope, rng, lambda user: (user.distance.value, user.side.value))
    if not found:
        return None
    user = found[1]
    place = {Side.LEFT: "on the left", Side.AHEAD: "in the middle", Side.RIGHT: "on the right"}[user.side]
    text = f"What is {user.distance.value} {place}{scope.phrase}?"
    return text, f"a {user.colour} {user.kind.value}"


def _position(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    found = _unique(scope, rng, lambda user: (user.kind.value, user.colour))
    if not found:
        return None
    user = found[1]
    thing = f"{user.colour} {user.kind.value}"
    if rng.random() < 0.3:
        return f"Is the {thing}{scope.phrase} near or far?", user.distance.value
    if rng.random() < 0.4:
        return f"Is the {thing}{scope.phrase} on the left, ahead or on the right?", user.side.value
    text = _pick(rng, (f"Where is the {thing}{scope.phrase}?", f"Where do you see the {thing}{scope.phrase}?"))
    return text, f"{user.distance.value} {user.side.value}"


def _state(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    lights = [light for camera in scope.cameras if (light := scope.scene.views[camera].light)]
    if len(lights) > 1:
        return None
    if not lights:
        if rng.random() < 0.75:
            return None
        return f"Which colour does the traffic light{scope.phrase} show?", "none"
    state = lights[0].state
    if rng.random() < 0.35:
        asked = state if rng.random() < 0.5 else tuple(LightState)[int(rng.integers(3))]
        return f"Is the traffic light{scope.phrase} {asked.value}?", "yes" if asked is state else "no"
    return (
        _pick(
            rng,
            (
                f"Which colour does the traffic light{scope.phrase} show?",
                f"What is the state of the traffic light{scope.phrase}?",
                f"What colour is the traffic light{scope.phrase}?",
            ),
        ),
        state.value,
    )


def _camera(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    coloured = rng.random() < 0.6
    found = _unique(scope, rng, lambda user: (user.kind.value, user.colour if coloured else ""))
    if rng.random() < 0.12:
        missing = [
            (k, c) for k in Kind for c in COLOURS if not any(u.kind is k and u.colour == c for _, u in scope.users)
        ]
        kind, colour = missing[int(rng.integers(len(missing)))]
        return f"Which camera sees the {colour} {kind.value}?", "none"
    if not found:
        return None
    camera, user = found
    thing = f"{user.colour} {user.kind.value}" if coloured else user.kind.value
    text = _pick(
        rng, (f"Which camera sees the {thing}?", f"In which view is the {thing}?", f"Which camera shows the {thing}?")
    )
    return text, spoken(camera)


def _crossing(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    there = any(scope.scene.views[camera].crossing for camera in scope.cameras)
    if there != (rng.random() < 0.5):
        return None
    text = _pick(
        rng,
        (
            f"Is there a crossing{scope.phrase}?",
            f"Do you see a pedestrian crossing{scope.phrase}?",
            f"Is there a zebra crossing{scope.phrase}?",
        ),
    )
    return text, "yes" if there else "no"


def _weather(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    scene = scope.scene
    noun = {Weather.CLEAR: "clear", Weather.RAIN: "rain", Weather.FOG: "fog", Weather.SNOW: "snow"}[scene.weather]
    if rng.random() < 0.6:
        return _pick(rng, ("What is the weather?", "What is the weather like?", "How is the weather?")), noun
    asked, verb = ((Weather.RAIN, "Is it raining?"), (Weather.FOG, "Is it foggy?"), (Weather.SNOW, "Is it snowing?"))[
        int(rng.integers(3))
    ]
    return verb, "yes" if scene.weather is asked else "no"


def _time(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    if rng.random() < 0.6:
        return _pick(rng, ("Is it day or night?", "What time of day is it?")), scope.scene.time.value
    asked = tuple(TimeOfDay)[int(rng.integers(2))]
    return (
        "Is it dark?" if asked is TimeOfDay.NIGHT else "Is it daytime?"
    ), "yes" if scope.scene.time is asked else "no"


def _way_ahead(rng: np.random.Generator, scope: _Scope, unseen: bool) -> tuple[str, str] | None:
    if scope.cameras != ("front",):
        return None
    view = scope.scene.views["front"]
    red = view.light is not None and view.light.state is LightState.RED
    blocked = any(user.side is Side.AHEAD and user.distance is Distance.NEAR for user in view.users)
    if rng.random() < 0.5:
        return _pick(rng, ("Is the way ahead clear?", "Is the road ahead free?")), "no" if blocked else "yes"
    return _pick(rng, ("Should we stop?", "Do we have to stop?")), "yes" if red or blocked else "no"


_WRITERS: dict[str, _Writer] = {
    "presence": _presence,
    "count": _count,
    "colour": _colour,
    "kind": _kind,
    "position": _position,
    "state": _state,
    "camera": _camera,
    "crossing": _crossing,
    "weather": _weather,
    "time": _time,
    "way_ahead": _way_ahead,
}
