from __future__ import annotations

import copy
from collections import namedtuple

import numpy as np
import pytest
import torch
from helpers import rank_processes
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from saln import LearnerSelected
from saln.data.torch_datasets import Batch
from saln.errors import InputError, TrainingError
from saln.loading.network_outputs import scoring
from saln.randomness import derive_generator, seeded_globally
from saln.selection import (
    JEST,
    Coherence,
    ImageTextJEST,
    PairEmbeddings,
    RHOLoss,
    Selection,
    Selector,
    TopLoss,
    Uniform,
)


class Fixed:
    """Two batches of ten candidates."""

    def __init__(self, shape=lambda batch: batch):
        self.epoch = None
        self.shape = shape

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 2

    def __iter__(self):
        generator = derive_generator("fixed")
        for start in (0, 10):
            yield self.shape(
                Batch(
                    torch.randn(10, 3, 4, 4, generator=generator),
                    torch.arange(10) % 2,
                    torch.arange(start, start + 10),
                )
            )


class HighestLogit(Selector):
    """Keeps the examples with the highest first logit, at double weight."""

    requires = frozenset({"learner_outputs"})

    def choose(self, candidates, k, generator):
        scores = candidates.need("learner_outputs")[:, 0]
        return Selection(scores.topk(k).indices, weights=torch.full((k,), 2.0), scores=scores)


def network():
    with seeded_globally("network"):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2)
        )


def selected(learner, selector, batches=None, **changes):
    keys = {"inputs": "images", "labels": "labels", "indices": "indices"} if not batches else {}
    options = {"batch_size": 3, "learner": learner, "seed": 0, **keys}
    return LearnerSelected(batches or Fixed(), selector=selector, **(options | changes))


def expected_rows(learner, full, k=3):
    reference = copy.deepcopy(learner).eval()
    with torch.inference_mode():
        return reference(full.images)[:, 0].topk(k).indices


def test_keeps_what_the_learner_says_in_eval_mode():
    learner = network().train()
    batches = selected(learner, HighestLogit())
    batches.set_epoch(3)
    assert batches.batches.epoch == 3
    assert len(batches) == 2
    for kept, full in zip(batches, Fixed(), strict=True):
        rows = expected_rows(learner, full)
        assert torch.equal(kept.indices, full.indices[rows])
        assert isinstance(kept.batch, Batch)
        assert torch.equal(kept.batch.images, full.images[rows])
        assert torch.equal(kept.batch.labels, full.labels[rows])
        assert torch.equal(kept.weights, torch.full((3,), 2.0))
        assert kept.outputs is None
    assert batches.examples_scored == 20


Point = namedtuple("Point", ["image", "extra"])


@pytest.mark.parametrize(
    ("shape", "options", "found"),
    [
        (lambda b: (b.images, b.labels), {}, lambda k: (k[0], k[1])),
        (lambda b: [b.images, b.labels], {}, lambda k: (k[0], k[1])),
        (
            lambda b: {"image": b.images, "label": b.labels},
            {"inputs": "image"},
            lambda k: (k["image"], k["label"]),
        ),
        (  # the rest of a dict becomes keyword arguments: Sequential's is called `input`
            lambda b: {"input": b.images, "labels": b.labels},
            {},
            lambda k: (k["input"], k["labels"]),
        ),
        (
            lambda b: {"x": Point(b.images, {"scale": torch.ones(())}), "y": [b.labels]},
            {"inputs": ("x", "image"), "labels": ("y", 0)},
            lambda k: (k["x"].image, k["y"][0]),
        ),
    ],
)
def test_batches_of_any_shape(shape, options, found):
    learner = network()
    batches = selected(learner, HighestLogit(), Fixed(shape), **options)
    for kept, full in zip(batches, Fixed(), strict=True):
        rows = expected_rows(learner, full)
        images, labels = found(kept.batch)
        assert type(kept.batch) is type(shape(full))
        assert torch.equal(images, full.images[rows])
        assert torch.equal(labels, full.labels[rows])
        assert torch.equal(kept.indices, full.indices[rows])  # counted


def test_texts_are_cut_and_what_belongs_to_all_stays():
    def shape(batch):
        names = [f"image {index}" for index in batch.indices.tolist()]
        return {"input": batch.images, "labels": batch.labels, "meta": (names, torch.arange(7))}

    learner = network()
    forward = lambda network, batch: network(batch["input"])  # noqa: E731
    for kept in selected(learner, HighestLogit(), Fixed(shape), forward=forward):
        names, common = kept.batch["meta"]
        assert names == [f"image {index}" for index in kept.indices.tolist()]
        assert torch.equal(common, torch.arange(7))


def test_the_users_loss_and_outputs_with_logits():
    class HuggingFaceStyle(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, pixel_values):
            return Output(self.network(pixel_values))

    class Output:
        def __init__(self, logits):
            self.logits = logits

    def shape(batch):
        return {"pixel_values": batch.images, "labels": batch.labels}

    learner = HuggingFaceStyle()
    by_default = [kept.indices.tolist() for kept in selected(learner, TopLoss(), Fixed(shape))]

    def loss(outputs, batch):
        return -cross_entropy(outputs.logits, batch["labels"], reduction="none")

    turned = [
        kept.indices.tolist() for kept in selected(learner, TopLoss(), Fixed(shape), loss=loss)
    ]
    for full, highest, lowest in zip(Fixed(), by_default, turned, strict=True):
        with scoring(learner):
            losses = cross_entropy(learner.network(full.images), full.labels, reduction="none")
        order = full.indices[losses.argsort(descending=True)].tolist()
        assert (sorted(highest), sorted(lowest)) == (sorted(order[:3]), sorted(order[-3:]))


def test_a_loss_that_is_not_one_an_example_is_refused():
    loss = lambda outputs, batch: cross_entropy(outputs, batch.labels)  # noqa: E731
    with pytest.raises(InputError, match=r"loss gave \(\) for 10 examples.*reduction"):
        list(selected(network(), TopLoss(), loss=loss, score_batch=10))
    # Labels of another kind have no cross-entropy.
    shape = lambda batch: (batch.images, batch.labels.float())  # noqa: E731
    with pytest.raises(InputError, match="no cross-entropy; give labels"):
        list(selected(network(), TopLoss(), Fixed(shape)))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({"labels": "name"}, "labels='name': there is no 'name' in a Batch with the fields images"),
        ({"indices": "images"}, "indices='images' is torch.float32 .10, 3, 4, 4., expected int64"),
        ({"inputs": ("images", "x")}, "inputs=.*there is no 'x' in a Tensor"),
    ],
)
def test_keys_that_are_not_there_are_named(key, message):
    with pytest.raises(InputError, match=message):
        list(selected(network(), TopLoss(), **key))


def test_scoring_leaves_no_trace():
    learner = network().train()
    learner[1].eval()  # a part that the user froze stays frozen
    before = copy.deepcopy(learner.state_dict())
    state = torch.get_rng_state()
    with scoring(learner):
        learner(torch.ones(5, 3, 4, 4))
        torch.rand(1)  # a network that draws by itself
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in learner] == [True, False, True, True, True]
    for key, value in learner.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_scoring_puts_modes_back_after_an_error():
    learner = network().train()
    with pytest.raises(RuntimeError), scoring(learner):
        learner(torch.ones(1, 1, 1, 1))
    assert all(module.training for module in learner.modules())


class Recorder(Selector):
    """Keeps the first and remembers what it was shown and told."""

    observes_losses = True

    def __init__(self, *requires):
        self.requires = frozenset(requires)
        self.shown, self.told = [], []

    def choose(self, candidates, k, generator):
        self.shown.append(candidates)
        return Selection(torch.arange(k))

    def observe(self, indices, losses):
        self.told.append((indices.tolist(), losses.tolist()))

    def begin_epoch(self, epoch):
        self.told.append(epoch)


def test_losses_are_made_from_the_outputs_where_they_are_required():
    recorder = Recorder("learner_losses", "reference_losses", "reference_outputs", "features")
    outputs = torch.randn(20, 2, generator=derive_generator("reference"))
    features = np.arange(40, dtype=np.float16).reshape(20, 2)
    learner = network()
    batches = selected(learner, recorder, reference_outputs=outputs, features=features)
    batches.set_epoch(2)
    list(batches)
    for candidates, full in zip(recorder.shown, Fixed(), strict=True):
        with scoring(learner):
            logits = learner(full.images)
        assert torch.equal(candidates.reference_outputs, outputs[full.indices])
        for losses, z in (
            (candidates.learner_losses, logits),
            (candidates.reference_losses, outputs[full.indices]),
        ):
            expected = torch.logsumexp(z, dim=1) - z.gather(1, full.labels[:, None])[:, 0]
            torch.testing.assert_close(losses, expected)
        assert torch.equal(candidates.features[:, 0].long(), 2 * full.indices)
        assert candidates.learner_outputs is None  # nobody asked
    batches.observe(torch.tensor([4]), torch.tensor([0.5]))
    assert recorder.told == [2, ([4], [0.5])]


def test_a_reference_network_gives_what_its_outputs_would():
    learner, reference = network(), network()
    with torch.no_grad():
        reference[4].weight.mul_(-1)
    table = torch.cat([_outputs(reference, full) for full in Fixed()])
    by_network = selected(learner, JEST(), reference=reference)
    by_table = selected(learner, JEST(), reference_outputs=table)
    first, second = ([kept.indices.tolist() for kept in each] for each in (by_network, by_table))
    assert first == second
    assert by_network.examples_scored == 20


def _outputs(learner, full):
    with scoring(learner):
        return learner(full.images)


def test_nothing_is_scored_that_no_selector_reads():
    def refuse(network, batch):
        raise AssertionError("scored")

    batches = selected(network(), Uniform(), forward=refuse)
    assert len(list(batches)) == 2
    assert batches.examples_scored == 0
    easy = selected(network(), JEST(variant="easy-reference"), reference=network())
    list(easy)
    assert easy.examples_scored == 0


def test_pairs():
    def forward(network, batch):
        rows = network(batch.images)
        return PairEmbeddings(rows, rows.flip(1), scale=torch.tensor(2.0), bias=0.5)

    recorder = Recorder("learner_embeddings")
    list(selected(network(), recorder, forward=forward, score_batch=4))
    for candidates, full in zip(recorder.shown, Fixed(), strict=True):
        pairs = candidates.need_embeddings("learner_embeddings")
        torch.testing.assert_close(pairs.image, _outputs(network(), full))
        assert (float(pairs.scale), pairs.bias) == (2.0, 0.5)
    jest = selected(network(), ImageTextJEST(), forward=forward, reference=network())
    assert all(len(kept.indices) == 3 for kept in jest)


def test_mixed_precision_scores_in_it_and_hands_float32_on():
    seen = []

    def forward(network, batch):
        outputs = network(batch.images)
        seen.append(outputs.dtype)
        return outputs

    recorder = Recorder("learner_outputs")
    list(selected(network(), recorder, forward=forward, autocast=torch.bfloat16))
    assert set(seen) == {torch.bfloat16}
    for candidates, full in zip(recorder.shown, Fixed(), strict=True):
        exact = _outputs(network(), full)
        assert candidates.learner_outputs.dtype == torch.float32
        torch.testing.assert_close(candidates.learner_outputs, exact, atol=0.05, rtol=0.05)


def test_score_size_scores_small_and_trains_at_full_size():
    with seeded_globally("small"):
        learner = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    sizes = []
    learner[0].register_forward_pre_hook(lambda module, given: sizes.append(given[0].shape[-2:]))
    for kept in selected(learner, HighestLogit(), score_size=2):
        assert kept.batch.images.shape == (3, 3, 4, 4)
    assert set(sizes) == {(2, 2)}
    with pytest.raises(InputError, match="score_size=0"):
        selected(learner, HighestLogit(), score_size=0)


def test_reuse_forward_gives_the_gradients_of_a_second_pass():
    """Where nothing depends on the mode or the other examples, nothing else changes."""
    learner = network()
    del learner[1:3]  # neither BatchNorm nor dropout
    twin = copy.deepcopy(learner)
    once = selected(learner, HighestLogit(), reuse_forward=True)
    for kept, plain in zip(once, selected(twin, HighestLogit()), strict=True):
        assert torch.equal(kept.indices, plain.indices)
        cross_entropy(kept.outputs, kept.batch.labels).backward()
        cross_entropy(twin(plain.batch.images), plain.batch.labels).backward()
    assert once.examples_scored == 20
    for mine, other in zip(learner.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_reuse_forward_is_a_pass_of_training():
    learner = network().train()
    torch_state = torch.get_rng_state()
    with seeded_globally("dropout"):
        list(selected(learner, HighestLogit(), reuse_forward=True))
    assert int(learner[1].num_batches_tracked) == 2  # one pass a batch
    assert torch.equal(torch.get_rng_state(), torch_state)
    with pytest.raises(InputError, match="reuse_forward does not go with score_size"):
        selected(learner, HighestLogit(), reuse_forward=True, score_size=2)
    with pytest.raises(InputError, match="does not go with Uniform"):
        selected(learner, Uniform(), reuse_forward=True)


def test_a_learner_that_diverged_is_told_at_the_step():
    learner = network()
    with torch.no_grad():
        learner[4].bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="outputs are not finite in step 0 of epoch 0"):
        list(selected(learner, HighestLogit()))


@pytest.mark.parametrize(
    ("selector", "changes", "message"),
    [
        (JEST(), {}, "JEST requires reference_outputs; train a reference model"),
        (RHOLoss(), {}, "RHOLoss requires reference_losses; train a reference"),
        (Recorder("features"), {}, "Recorder requires features; give them to LearnerSelected"),
        (Coherence(), {}, "Coherence requires label_confidence; give them to LearnerSelected"),
        (
            ImageTextJEST(),
            {"reference": nn.Identity()},
            "requires learner_embeddings; give forward",
        ),
        (
            ImageTextJEST(),
            {"reference_outputs": torch.ones(20, 2), "forward": lambda network, batch: None},
            "give the network as reference",
        ),
        (
            JEST(),
            {"reference": nn.Identity(), "reference_outputs": torch.ones(20, 2)},
            "reference or reference_outputs, not both",
        ),
        (
            JEST(),
            {"reference_outputs": torch.ones(20, 2), "indices": None},
            "reference_outputs has rows by position.*give indices=KEY",
        ),
        (TopLoss(), {"batch_size": 0}, "batch_size=0 is not allowed"),
        (TopLoss(), {"score_batch": 0}, "score_batch=0"),
        (TopLoss(), {"rank": 0, "world_size": 2}, "3 cannot be shared equally by 2 ranks"),
        (
            TopLoss(),
            {"rank": 0, "world_size": 3},
            "world_size=3, but the processes are not connected",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_construction(selector, changes, message):
    with pytest.raises(InputError, match=message):
        selected(network(), selector, **changes)


def loader(n=20, batch_size=8, **options):
    data = TensorDataset(torch.randn(n, 3, 4, 4, generator=derive_generator("data")))
    return DataLoader(data, batch_size=batch_size, generator=torch.Generator(), **options)


def test_a_loader_that_cannot_fill_the_batches_is_refused_at_construction():
    with pytest.raises(InputError, match="batch_size=9 of the loader's 8 candidates"):
        selected(network(), HighestLogit(), loader(), batch_size=9)
    with pytest.raises(InputError, match=r"last batch has 4 candidates.*drop_last=True"):
        selected(network(), HighestLogit(), loader(), batch_size=5)
    for batches in (loader(), loader(drop_last=True)):
        wrapped = selected(network(), HighestLogit(), batches, batch_size=4)
        assert [len(kept.indices) for kept in wrapped] == [4] * len(wrapped)


def test_a_short_batch_of_any_iterable_is_told_at_the_step():
    with pytest.raises(InputError, match="step 0 of epoch 0 has 10 candidates, fewer than the 12"):
        list(selected(network(), HighestLogit(), batch_size=12))
    with pytest.raises(InputError, match="holds no tensor with one row an example"):
        list(selected(network(), HighestLogit(), [{"name": "x"}]))


def test_an_epoch_reaches_the_loaders_sampler():
    sampler = DistributedSampler(range(20), num_replicas=1, rank=0)
    data = TensorDataset(torch.zeros(20, 3, 4, 4))
    batches = selected(network(), HighestLogit(), DataLoader(data, 10, sampler=sampler))
    batches.set_epoch(5)
    assert sampler.epoch == 5


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_keep_what_one_process_keeps(world_size, warm, tmp_path):
    calls = [(rank, world_size, tmp_path / "meeting") for rank in range(world_size)]
    seen = warm.call_together(rank_processes.learn, calls, tmp_path)
    expected = rank_processes.kept_globally(0, 1)
    assert set(expected) == set(rank_processes.ASKED)
    assert len({str(batches) for batches in expected.values()}) == len(expected)
    assert len(expected["jest"]) == 2
    for each in seen:
        assert each["kept"] == expected
        assert each["observed"] == seen[0]["observed"]
        assert "different candidates" in each["shuffled"]
        assert "outputs are not finite" in each["diverged"]
        assert "DistributedSampler" in each["sharded"]
        assert "torch.distributed says rank" in each["rank"]
