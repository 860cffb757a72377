"""The kinds of questions about a scene: the wording of each, and its one true answer.

Answers are computed from the scene, never from a picture. A writer returns None where the scene allows no question of
its kind with exactly one true answer, or where the answers of the kind would get out of balance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from litevlm_ros.lab.world.scene import (
    COLOURS,
    Distance,
    Kind,
    LightState,
    RoadUser,
    Scene,
    Side,
    TimeOfDay,
    Weather,
    pick,
    spoken,
)

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MOST_COUNTED = 6
_ABSENT_THINGS = ("dog", "horse", "boat", "plane", "train", "child", "tractor", "elephant", "cat", "tram")
"""Things that this world does not have: the answer is always no."""
UNSEEN_ABSENT_THINGS = ("cow", "helicopter", "robot", "piano", "bear")
"""More such things, which no training question names."""


@dataclass(frozen=True)
class Scope:
    """The part of the surroundings that a question is about.

    `users` are the road users in it, with their cameras. `phrase` is what the question calls it, such as " behind us",
    or empty.
    """

    users: tuple[tuple[str, RoadUser], ...]
    cameras: tuple[str, ...]
    phrase: str
    scene: Scene


Writer = Callable[[np.random.Generator, Scope, bool], "tuple[str, str] | None"]
"""Writes a question and its answer; the flag allows things that no training question names. None if it cannot."""


def _plural(kind: str) -> str:
    return {"bus": "buses"}.get(kind, f"{kind}s")


def _unique(
    scope: Scope, rng: np.random.Generator, key: Callable[[RoadUser], tuple[str, ...]]
) -> tuple[str, RoadUser] | None:
    """Returns a road user that `key` tells apart from all others in scope, with its camera; None if there is none."""
    counts = Counter(key(user) for _, user in scope.users)
    candidates = [item for item in scope.users if counts[key(item[1])] == 1]
    return candidates[int(rng.integers(len(candidates)))] if candidates else None


def _presence(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
    coloured = rng.random() < 0.6
    present = {(user.kind.value, user.colour if coloured else "") for _, user in scope.users}
    if rng.random() < 0.5:
        if not present:
            return None
        kind, colour = sorted(present)[int(rng.integers(len(present)))]
        answer = "yes"
    elif rng.random() < 0.15:
        kind, colour, answer = pick(rng, UNSEEN_ABSENT_THINGS if unseen else _ABSENT_THINGS), "", "no"
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
    text = pick(
        rng,
        (
            f"Is there {article} {thing}{scope.phrase}?",
            f"Do you see {article} {thing}{scope.phrase}?",
            f"Can you see any {thing}{scope.phrase}?",
        ),
    )
    return text, answer


def _count(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
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
    text = pick(
        rng,
        (
            f"How many {name} are there{scope.phrase}?",
            f"How many {name} do you see{scope.phrase}?",
            f"Count the {name}{scope.phrase}.",
        ),
    )
    return text, NUMBERS[number]


def _colour(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
    found = _unique(scope, rng, lambda user: (user.kind.value,))
    if not found:
        return None
    kind = found[1].kind.value
    text = pick(
        rng,
        (
            f"What colour is the {kind}{scope.phrase}?",
            f"Which colour does the {kind}{scope.phrase} have?",
            f"What color is the {kind}{scope.phrase}?",
        ),
    )
    return text, found[1].colour


def _kind(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
    found = _unique(scope, rng, lambda user: (user.distance.value, user.side.value))
    if not found:
        return None
    user = found[1]
    place = {Side.LEFT: "on the left", Side.AHEAD: "in the middle", Side.RIGHT: "on the right"}[user.side]
    text = f"What is {user.distance.value} {place}{scope.phrase}?"
    return text, f"a {user.colour} {user.kind.value}"


def _position(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
    found = _unique(scope, rng, lambda user: (user.kind.value, user.colour))
    if not found:
        return None
    user = found[1]
    thing = f"{user.colour} {user.kind.value}"
    if rng.random() < 0.3:
        return f"Is the {thing}{scope.phrase} near or far?", user.distance.value
    if rng.random() < 0.4:
        return f"Is the {thing}{scope.phrase} on the left, ahead or on the right?", user.side.value
    text = pick(rng, (f"Where is the {thing}{scope.phrase}?", f"Where do you see the {thing}{scope.phrase}?"))
    return text, f"{user.distance.value} {user.side.value}"


def _state(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
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
        pick(
            rng,
            (
                f"Which colour does the traffic light{scope.phrase} show?",
                f"What is the state of the traffic light{scope.phrase}?",
                f"What colour is the traffic light{scope.phrase}?",
            ),
        ),
        state.value,
    )


def _camera(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
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
    text = pick(
        rng, (f"Which camera sees the {thing}?", f"In which view is the {thing}?", f"Which camera shows the {thing}?")
    )
    return text, spoken(camera)


def _crossing(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
    there = any(scope.scene.views[camera].crossing for camera in scope.cameras)
    if there != (rng.random() < 0.5):
        return None
    text = pick(
        rng,
        (
            f"Is there a crossing{scope.phrase}?",
            f"Do you see a pedestrian crossing{scope.phrase}?",
            f"Is there a zebra crossing{scope.phrase}?",
        ),
    )
    return text, "yes" if there else "no"


def _weather(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
    scene = scope.scene
    noun = {Weather.CLEAR: "clear", Weather.RAIN: "rain", Weather.FOG: "fog", Weather.SNOW: "snow"}[scene.weather]
    if rng.random() < 0.6:
        return pick(rng, ("What is the weather?", "What is the weather like?", "How is the weather?")), noun
    asked, verb = ((Weather.RAIN, "Is it raining?"), (Weather.FOG, "Is it foggy?"), (Weather.SNOW, "Is it snowing?"))[
        int(rng.integers(3))
    ]
    return verb, "yes" if scene.weather is asked else "no"


def _time(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
    if rng.random() < 0.6:
        return pick(rng, ("Is it day or night?", "What time of day is it?")), scope.scene.time.value
    asked = tuple(TimeOfDay)[int(rng.integers(2))]
    return (
        "Is it dark?" if asked is TimeOfDay.NIGHT else "Is it daytime?"
    ), "yes" if scope.scene.time is asked else "no"


def _way_ahead(rng: np.random.Generator, scope: Scope, unseen: bool) -> tuple[str, str] | None:
    if scope.cameras != ("front",):
        return None
    view = scope.scene.views["front"]
    red = view.light is not None and view.light.state is LightState.RED
    blocked = any(user.side is Side.AHEAD and user.distance is Distance.NEAR for user in view.users)
    if rng.random() < 0.5:
        return pick(rng, ("Is the way ahead clear?", "Is the road ahead free?")), "no" if blocked else "yes"
    return pick(rng, ("Should we stop?", "Do we have to stop?")), "yes" if red or blocked else "no"


WRITERS: dict[str, Writer] = {
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
"""The writer of each kind of question."""
