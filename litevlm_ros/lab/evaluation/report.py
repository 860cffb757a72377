"""An evaluation as a table for people and as a dictionary for JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.evaluation.evaluation import TRAINING_SCENES, Evaluation
from litevlm_ros.lab.evaluation.scores import SPLITS, Score, is_right, score
from litevlm_ros.lab.evaluation.share import Share

Report = dict[str, Any]
Row = tuple[str, Callable[[Score], Share]]


def to_json(evaluation: Evaluation) -> Report:
    """Every figure with its counts and interval, the baselines beside them, and each wrong reply."""
    replies = evaluation.replies
    seeds = [replies[0].exercise.scene.seed, replies[-1].exercise.scene.seed]
    return {
        **_with_splits(replies),
        "baselines": {name: _with_splits(given) for name, given in evaluation.baselines.items()},
        "scenes": 1 + seeds[1] - seeds[0],
        "seeds": {"evaluated": seeds, "majority": [0, TRAINING_SCENES - 1]},
        "seconds": evaluation.seconds,
        "mean_ms": evaluation.mean_ms(),
        "mistakes": [_mistake(reply) for reply in replies if not is_right(reply)],
    }


def to_table(evaluation: Evaluation) -> str:
    """Shares in percent, one row for each figure, and one column for each part of the evaluation and each baseline."""
    replies = evaluation.replies
    whole = score(replies)
    parts = {name.replace("_", " "): score(filter(belongs, replies)) for name, belongs in SPLITS.items()}
    baselines = {name: score(given) for name, given in evaluation.baselines.items()}
    columns = [*parts.values(), *baselines.values()]
    titles = "".join(f"{name:>10}" for name in (*parts, *baselines))
    lines = [f"{'share in %':32}{'of':>6}{'right':>7}{'95 % interval':>15}{titles}"]
    for title, figure in _rows(whole):
        share = figure(whole)
        low, high = share.interval
        cells = "".join(f"{_percent(figure(column)):>10}" for column in columns)
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        lines.append(f"{title:32}{share.total:6}{_percent(share):>7}{interval:>15}{cells}")
    return "\n".join(lines)


def _rows(whole: Score) -> list[Row]:
    def of_kind(kind: str) -> Callable[[Score], Share]:
        return lambda part: part.kinds.get(kind, Share(0, 0))

    return [
        ("short answers", lambda part: part.answers),
        *((f"  {kind.replace('_', ' ')}", of_kind(kind)) for kind in whole.kinds),
        ("captions: statements made, true", lambda part: part.captions.truth),
        ("  statements due, made", lambda part: part.captions.coverage),
        ("  true and complete", lambda part: part.captions.exact),
        ("held out: kind and colour", lambda part: part.held_out.answers),
        ("  statements made, true", lambda part: part.held_out.truth),
        ("  statements due, made", lambda part: part.held_out.coverage),
        ("held out: weather and time", lambda part: part.held_out.condition),
    ]


def _with_splits(replies: Sequence[Reply]) -> Report:
    splits = {name: _figures(filter(belongs, replies)) for name, belongs in SPLITS.items()}
    return {**_figures(replies), "splits": splits}


def _figures(replies: Iterable[Reply]) -> Report:
    figures = score(replies)
    captions, held_out = figures.captions, figures.held_out
    return {
        "questions": figures.answers.total,
        **_flat("answer_accuracy", figures.answers),
        "captions": captions.exact.total,
        "caption_statements": captions.truth.total,
        **_flat("caption_truth", captions.truth),
        **_flat("caption_coverage", captions.coverage),
        **_flat("captions_exact", captions.exact),
        "kinds": _all_shares(figures.kinds),
        "held_out": _all_shares(
            {
                "short_answers": held_out.answers,
                "caption_truth": held_out.truth,
                "caption_coverage": held_out.coverage,
                "condition": held_out.condition,
            }
        ),
    }


def _flat(name: str, share: Share) -> Report:
    return {name: share.value, f"{name}_interval": list(share.interval)}


def _all_shares(shares: Mapping[str, Share]) -> Report:
    return {
        name: {"right": share.hits, "of": share.total, "share": share.value, "interval": list(share.interval)}
        for name, share in shares.items()
    }


def _mistake(reply: Reply) -> Report:
    return {
        "seed": reply.exercise.scene.seed,
        "unseen": reply.exercise.unseen,
        "cameras": reply.exercise.cameras,
        "kind": reply.question.kind,
        "question": reply.question.text,
        "answer": reply.question.answer,
        "given": reply.text,
    }


def _percent(share: Share) -> str:
    return "-" if share.value is None else f"{100 * share.value:.1f}"
