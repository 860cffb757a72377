from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="trains: pip install 'litevlm_ros[convert]'")

from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder  # noqa: E402
from litevlm_ros.errors import ConfigError  # noqa: E402
from litevlm_ros.lab.training.token_scorer import (  # noqa: E402
    ScorerTraining,
    _views,
    read,
    soft_choice,
    train_scorer,
)
from litevlm_ros.model_directory import demo_model_directory  # noqa: E402


def training(steps: int = 1, seed: int = 0) -> ScorerTraining:
    return ScorerTraining(demo_model_directory(), steps=steps, views=1, learning_rate=1e-3, seed=seed)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_gates_add_up_to_the_budget_and_prefer_higher_scores(share: float) -> None:
    torch.manual_seed(0)
    scores = torch.linspace(-4, 4, 64).repeat(200, 1)
    gates = soft_choice(scores, share, 0.3)
    torch.testing.assert_close(gates.mean(1), torch.full((200,), share), atol=1e-3, rtol=0)
    assert gates.min() >= 0
    assert gates.max() <= 1
    assert gates[:, 48:].mean() > 2 * gates[:, :48].mean()


def test_a_gate_opens_only_as_far_as_others_close() -> None:
    torch.manual_seed(0)
    scores = torch.zeros(1, 8, requires_grad=True)
    gates = soft_choice(scores, 0.5, 0.5)
    (gradient,) = torch.autograd.grad(gates.sum(), scores, retain_graph=True)
    assert gradient.abs().max() < 1e-4
    (gradient,) = torch.autograd.grad(gates[0, 2], scores)
    assert gradient[0, 2] > 0 > gradient[0, [0, 1, 3, 4, 5, 6, 7]].max()


def test_closed_gates_read_as_if_the_tokens_were_not_there() -> None:
    vision, decoder = (load(demo_model_directory()) for load in (load_vision_encoder, load_text_decoder))
    pixels, ids, _, segment, positions = next(_views(training(), vision.config.image_size))
    kept = torch.arange(64) % 3 > 0
    with torch.no_grad():
        visual = vision(pixels).flatten(0, 1)
        masked = read(decoder, ids, segment, positions, visual, torch.where(kept, 1.0, 0.0))
        number = ids - decoder.config.vocab_size
        stays = (number < 0) | kept[number.clamp(min=0)]
        dropped = read(decoder, ids[stays], segment[stays], positions[stays], visual)
        everything = read(decoder, ids, segment, positions, visual)
    words = number[stays] < 0
    # A closed gate lets one part in 10,000 through, so that training still feels it.
    torch.testing.assert_close(masked[stays][words], dropped[words], atol=0.2, rtol=0)
    assert (everything[stays][words] - dropped[words]).abs().max() > 0.5


def test_training_is_seeded() -> None:
    scorers = [train_scorer(training(seed=seed), print).state_dict() for seed in (0, 0)]
    assert all(torch.equal(scorers[0][name], scorers[1][name]) for name in scorers[0])


def test_settings_without_sense_and_scenes_of_the_evaluation_are_refused() -> None:
    training(seed=999)
    with pytest.raises(ConfigError, match="seed is 1000; allowed: 0 to 999"):
        training(seed=1000)
    with pytest.raises(ConfigError, match="steps is 0; allowed: above 0"):
        training(steps=0)
