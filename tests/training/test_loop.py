from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from saln._optimizers import SGD
from saln.data.torch_datasets import Batch
from saln.errors import TrainingError
from saln.randomness import derive_generator, seeded_globally
from saln.training.cost_ledger import Ledger
from saln.training.loop import Measure, TrainSettings, evaluate, train

CPU = torch.device("cpu")


class Fixed:
    """The same batches each epoch."""

    def __init__(self, batches):
        self.batches = batches
        self.epochs = []
        self.observed = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)

    def observe(self, indices, losses):
        self.observed.append((indices, losses))


def make_batches(count=3, size=4, weights=None):
    generator = derive_generator("loop")
    return [
        Batch(
            torch.randn(size, 3, 2, 2, generator=generator),
            torch.randint(0, 3, (size,), generator=generator),
            torch.arange(size) + size * number,
            weights,
        )
        for number in range(count)
    ]


def linear():
    with seeded_globally("linear"):
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


def run(learner, batches, settings, **options):
    ledger = Ledger()
    return list(train(learner, Fixed(batches), settings, ledger=ledger, **options))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_two_steps_agree_with_sgd_by_hand(decay: float, nesterov: bool):
    """Weights after two steps of SGD with momentum, from the closed form of the gradient."""
    learner, batches = linear(), make_batches(2)
    w = torch.cat([learner[1].weight, learner[1].bias[:, None]], dim=1).detach().double()
    velocity = torch.zeros_like(w)
    for batch in batches:
        x = torch.cat([batch.images.flatten(1), torch.ones(4, 1)], dim=1).double()
        p = torch.softmax(x @ w.T, dim=1)
        gradient = (p - nn.functional.one_hot(batch.labels, 3)).T @ x / 4 + decay * w
        velocity = 0.9 * velocity + gradient
        w -= 0.1 * (gradient + 0.9 * velocity if nesterov else velocity)
    settings = TrainSettings(epochs=1, learning_rate=0.1, weight_decay=decay, nesterov=nesterov)
    run(learner, batches, settings)
    found = torch.cat([learner[1].weight, learner[1].bias[:, None]], dim=1).detach().double()
    torch.testing.assert_close(found, w, rtol=1e-5, atol=1e-6)


def test_weights_scale_the_losses():
    """A batch with weights 2, 0, 0, 2 moves the learner like its first and last example."""
    whole = make_batches(1, weights=torch.tensor([2.0, 0.0, 0.0, 2.0]))
    kept = [0, 3]
    half = [Batch(whole[0].images[kept], whole[0].labels[kept], whole[0].indices[kept])]
    first, second = linear(), linear()
    run(first, whole, TrainSettings(epochs=1, learning_rate=0.1))
    run(second, half, TrainSettings(epochs=1, learning_rate=0.1))
    torch.testing.assert_close(first[1].weight, second[1].weight)


def test_the_losses_of_what_was_trained_are_reported_without_weights():
    (batch,) = make_batches(1, weights=torch.tensor([2.0, 0.0, 0.0, 2.0]))
    learner, fixed = linear(), Fixed([batch])
    expected = nn.functional.cross_entropy(learner(batch.images), batch.labels, reduction="none")
    settings = TrainSettings(epochs=1, learning_rate=0.1)
    list(train(learner, fixed, settings, ledger=Ledger()))
    ((indices, losses),) = fixed.observed
    assert torch.equal(indices, batch.indices)
    assert not losses.requires_grad
    torch.testing.assert_close(losses, expected.detach())


def test_epochs_steps_and_indices_are_reported():
    fixed = Fixed(make_batches(3))
    steps = []
    results = list(
        train(
            linear(),
            fixed,
            TrainSettings(epochs=2),
            ledger=Ledger(),
            measure=lambda: {"test": Measure(1.0, 0.5)},
            on_step=lambda examples, step: steps.append((examples, step)),
        )
    )
    assert fixed.epochs[-2:] == [1, 2]  # before that it was asked for each one's length
    assert [result.epoch for result in results] == [1, 2]
    assert [result.steps for result in results] == [3, 3]
    assert results[0].indices.tolist() == list(range(12))
    assert results[1].measures == {"test": Measure(1.0, 0.5)}
    assert steps == [(4, 1), (4, 2), (4, 3)] * 2


def test_a_loss_that_is_not_finite_stops_and_says_where():
    batches = make_batches(3)
    batches[2].images.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1, step 2, .* learning_rate"):
        run(linear(), batches, TrainSettings(epochs=1))


def rates(schedule, steps=8):
    """The rate of each step, seen through plain gradient steps of a loss with gradient 1."""
    learner = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    nn.init.zeros_(learner[1].weight)
    seen = []
    original = SGD.step

    def spy(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return original(self, *args, **kwargs)

    batch = make_batches(1)[0]._replace(labels=torch.zeros(4, dtype=torch.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SGD, "step", spy)
        with seeded_globally("rates"):
            run(
                learner,
                [batch] * (steps // 2),
                TrainSettings(epochs=2, learning_rate=2.0, schedule=schedule),
            )
    return seen


def test_schedules_are_stretched_to_all_steps():
    with seeded_globally("schedules"):
        assert rates("constant") == [2.0] * 8
        cosine = [1 + math.cos(math.pi * step / 8) for step in range(8)]
        assert rates("cosine") == pytest.approx(cosine)
        onecycle = rates("onecycle")
    assert onecycle[:2] == pytest.approx([1.0, 2.0], rel=1e-2)  # up within a quarter
    assert max(onecycle) == pytest.approx(2.0, rel=1e-2)
    assert onecycle[-1] < 0.01  # decays fully
    assert onecycle[1:] == sorted(onecycle[1:], reverse=True)


def test_dropout_is_repeated_exactly_and_leaves_no_trace():
    def dropping():
        with seeded_globally("dropping"):
            return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3))

    first, second, other = dropping(), dropping(), dropping()
    run(first, make_batches(), TrainSettings(epochs=2, seed=1))
    with seeded_globally("elsewhere"):
        torch.rand(17)
        run(second, make_batches(), TrainSettings(epochs=2, seed=1))
    run(other, make_batches(), TrainSettings(epochs=2, seed=2))
    assert torch.equal(first[2].weight, second[2].weight)
    assert not torch.equal(first[2].weight, other[2].weight)


def test_evaluate_is_the_mean_over_examples_and_leaves_no_trace():
    with seeded_globally("evaluate"):
        learner = nn.Sequential(nn.Conv2d(3, 3, 2), nn.BatchNorm2d(3), nn.Flatten())
    learner.train()
    before = copy.deepcopy(learner.state_dict())
    batches = make_batches(2, size=4) + make_batches(1, size=1)  # a ragged last batch
    found = evaluate(learner, batches, CPU)
    learner.eval()
    images = torch.cat([batch.images for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    with torch.inference_mode():
        outputs = learner(images)
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, labels)))
    assert found.accuracy == pytest.approx(float((outputs.argmax(1) == labels).float().mean()))
    for key, value in learner.state_dict().items():
        assert torch.equal(value, before[key])
