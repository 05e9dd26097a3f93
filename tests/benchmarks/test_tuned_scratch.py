"""Training in lanes beside torch's own SGD, and a whole tiny study, stopped and resumed."""

from __future__ import annotations

import copy
import shutil
import time

import numpy as np
import pytest
import torch
import tuned_scratch
from evidence_tables.tuned import study_table
from gpu_lanes import (
    CODES,
    SHIFT,
    Lane,
    Pictures,
    Training,
    crop,
    loss_and_slope,
    run_lanes,
    steps_per_second,
)
from helpers.tiny_studies import tiny_setup
from scratch_plans import Noise, Setup, make_plans
from study_networks import pretrained_lite0, small_network, whole_sums, write_pretrained
from tuned_scratch import ScratchStudy, one_cycle, targets_of
from tuned_study import Cell, Point, StudyArm, stored

from saln.randomness import seeded_globally

N, CLASSES = 640, 10


def pictures(n, seed, padding=0):
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
    labels = torch.from_numpy(random.integers(0, CLASSES, n))
    return Pictures.of(images, labels, torch.device("cpu"), padding), images


def test_a_lane_trains_as_torchs_sgd_does():
    train, _ = pictures(40, 0, SHIFT)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(40, (5, 8), generator=generator)
    codes = torch.randint(CODES, (5, 8), generator=generator)
    targets = torch.rand(40, CLASSES, generator=generator).softmax(dim=1)
    rates = one_cycle(5, 0.1)
    start = small_network(CLASSES, 4, 3).state_dict()
    mean, deviation = torch.full((3,), 120.0), torch.full((3,), 60.0)
    lane = Lane(
        small_network(CLASSES, 4, 1), train, size=32, kept=8, n_classes=CLASSES,
        weight_decay=0.01, normalization=(mean, deviation),
    )  # fmt: skip
    lane.capture()
    run = Training(rows, codes, targets, rates, 0.0, start)
    assert steps_per_second([lane], run) > 0
    todo = [("first", run, [train_part()]), ("again", run, [train_part()])]
    found = {}
    run_lanes(
        [lane],
        lambda: todo.pop(0) if todo else None,
        lambda job, values, seconds: found.update({job: values}),
    )

    network = small_network(CLASSES, 4, 3).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True
    )
    losses = []
    for step in range(5):
        images = crop(train.images, rows[step], codes[step], 32).float()
        planes = ((images - mean) / deviation).permute(0, 3, 1, 2)
        loss = torch.nn.functional.cross_entropy(network(planes), targets[rows[step]])
        optimizer.param_groups[0]["lr"] = float(rates[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert found["first"][0] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["again"] == found["first"]  # a lane keeps nothing of the run before
    for name, value in lane.network.state_dict().items():
        expected = network.state_dict()[name]
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4)
    network.eval()
    part = train_part()
    with torch.no_grad():
        planes = ((part.images.float() - mean) / deviation).permute(0, 3, 1, 2)
        right = (network(planes).argmax(dim=1) == part.labels).float().mean()
    assert found["first"][1] == pytest.approx(float(right), abs=1e-6)


def train_part():
    return pictures(30, 7)[0]


def test_crops_are_shifted_and_flipped():
    padded, images = pictures(6, 2, SHIFT)
    wide = np.pad(images.numpy(), ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), "reflect")
    rows = torch.tensor([5, 0, 3, 3])
    codes = torch.tensor([0, 161, 81 + 4 * 9 + 2, 4 * 9 + 4])
    found = crop(padded.images, rows, codes, 32).numpy()
    expected = [
        wide[5, 0:32, 0:32],
        wide[0, 8:40, 8:40][:, ::-1],
        wide[3, 4:36, 2:34][:, ::-1],
        images[3].numpy(),
    ]
    np.testing.assert_array_equal(found, np.stack(expected))


def test_the_generalized_loss_is_its_papers_and_slopes_are_autograds():
    outputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.eye(4, dtype=torch.float64)[[0, 3, 1, 1, 2]]
    p = torch.softmax(outputs, dim=1)[torch.arange(5), [0, 3, 1, 1, 2]]
    torch.testing.assert_close(
        loss_and_slope(outputs, targets, 0.7)[0], ((1 - p**0.7) / 0.7).mean()
    )
    soft = 0.6 * targets + 0.1
    for q in (0.7, 0.0):
        leaf = outputs.clone().requires_grad_()
        share = (soft * leaf.softmax(dim=1)).sum(dim=1)
        usual = torch.nn.functional.cross_entropy(leaf, soft)
        expected = ((1 - share**q) / q).mean() if q else usual
        expected.backward()
        loss, slope = loss_and_slope(outputs, soft, q)
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(slope, leaf.grad)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    tiny_setup(folder)
    return folder


@pytest.fixture
def setup(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return Setup(tmp_path)


def test_a_study_tunes_tests_and_resumes(setup, tmp_path):
    arms = ("standard", "uniform", "uniform+targets", "coherence", "oracle")
    path = tmp_path / "rows.jsonl"

    def study(rows, until=float("inf")):
        return ScratchStudy(
            setup, 4, 1, until,
            cells={Cell("cifar10", *noise): arms for noise in [("clean", 0.0), ("symmetric", 0.4)]},
            grid=[Point(rate, 5e-4) for rate in (0.01, 0.05)],
            tuning_seeds=[100], seeds=[0, 1], rows=rows,
        )  # fmt: skip

    tuned_scratch.train_all(study([], until=-1.0), path, torch.device("cpu"), 1, 0)
    assert not path.exists()  # the time was over
    tuned_scratch.train_all(study([]), path, torch.device("cpu"), 2, 0)
    rows = stored(path)
    # Two learning rates and two seeds for each of five arms under noise, and of four without.
    assert len(rows) == (5 + 4) * (2 + 2)
    steps = {row["arm"]: row["steps"] for row in rows}
    assert steps["standard"] == 10
    assert steps["uniform"] == 2
    for row in rows:
        assert ("test_accuracy" in row) == (row["stage"] == "final")
        if row["arm"] == "oracle":
            assert row["wrong_label_share_kept"] == 0
    for arm in arms:
        trials = {
            row["learning_rate"]: row["validation_accuracy"]
            for row in rows
            if (row["arm"], row["noise"], row["stage"]) == (arm, "symmetric", "tuning")
        }
        best = max(trials, key=trials.get)
        finals = [r for r in rows if (r["arm"], r["noise"]) == (arm, "symmetric")]
        assert {r["learning_rate"] for r in finals if r["stage"] == "final"} == {best}
    # One that was killed does what is missing, and ends with the same numbers.
    rest = study(rows[:-5])
    path.unlink()
    tuned_scratch.train_all(rest, path, torch.device("cpu"), 1, 0)
    again = stored(path)
    assert len(again) == 5
    same = ("stage", "arm", "noise", "seed", "learning_rate", "validation_accuracy")
    assert sorted(tuple(row[n] for n in same) for row in again) == sorted(
        tuple(row[n] for n in same) for row in rows[-5:]
    )
    table = study_table(rows)
    assert "| random, 40% | `oracle` | 2 |" in table
    assert len(table.splitlines()) == 2 + 9


def test_targets_are_mixed_and_sum_to_one(setup):
    noise = make_plans(setup.folder, Noise("symmetric", 0.4, 0), 1, {0.8: ["uniform"]})
    known = setup.beliefs(noise)
    given = np.eye(CLASSES)[known.labels]
    mixed = targets_of(StudyArm("uniform+targets(beliefs=0.5,features=0.3)"), known).numpy()
    expected = 0.2 * given + 0.5 * known.posterior + 0.3 * known.leave_one_out
    np.testing.assert_allclose(mixed, expected, atol=2e-3)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
    smooth = targets_of(StudyArm("uniform+smoothing"), known).numpy()
    np.testing.assert_allclose(smooth, 0.9 * given + 0.01, atol=1e-6)


def test_plans_are_what_the_library_chooses(setup):
    import saln

    noise = make_plans(setup.folder, Noise("symmetric", 0.4, 3), 2, {0.8: ["coherence"]})
    with np.load(setup.folder / "features.npz") as held:
        features = held["features"].astype(np.float32)
    batches = saln.SelectedBatches(
        features, selector=saln.Coherence(), batch_size=64, filter_ratio=0.8, seed=3,
        labels=setup.beliefs(noise).labels,
    )  # fmt: skip
    expected = []
    for epoch in (1, 2):
        batches.set_epoch(epoch)
        expected += list(batches)
    np.testing.assert_array_equal(setup.plan(noise, "coherence", 2, 0.8).rows, np.array(expected))


def test_a_lane_in_half_precision_trains_as_autocast_does():
    train, _ = pictures(40, 0, SHIFT)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(40, (3, 16), generator=generator)
    targets = torch.rand(40, CLASSES, generator=generator).softmax(dim=1)
    start = small_network(CLASSES, 4, 3).state_dict()
    mean, deviation = torch.full((3,), 120.0), torch.full((3,), 60.0)
    lane = Lane(
        small_network(CLASSES, 4, 1), train, size=32, kept=16, n_classes=CLASSES,
        weight_decay=0.01, normalization=(mean, deviation), half=True,
    )  # fmt: skip
    lane.load(Training(rows, 40 * torch.ones_like(rows), targets, one_cycle(3, 0.1), 0.0, start))
    lane.advance()
    network = small_network(CLASSES, 4, 3).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True
    )
    for step, rate in enumerate(one_cycle(3, 0.1)):
        images = crop(train.images, rows[step], 0 * rows[step] + 40, 32).float()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(((images - mean) / deviation).permute(0, 3, 1, 2)).float()
        loss = torch.nn.functional.cross_entropy(outputs, targets[rows[step]])
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in lane.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=0.02, atol=0.01)


def test_shifts_are_of_an_eighth_of_a_larger_image():
    images = torch.arange(64 * 64 * 3).reshape(1, 64, 64, 3).remainder(251).to(torch.uint8)
    padded = Pictures.of(images, torch.tensor([0]), torch.device("cpu"), 8).images
    unchanged = crop(padded, torch.tensor([0]), torch.tensor([4 * 9 + 4]), 64)
    torch.testing.assert_close(unchanged, images)
    left = crop(padded, torch.tensor([0]), torch.tensor([4 * 9 + 5]), 64)
    torch.testing.assert_close(left[:, :, :-2], images[:, :, 2:])


def test_the_pretrained_network_is_the_librarys_backbone(tmp_path):
    from saln.features import build_backbone

    write_pretrained(tmp_path / "start.npz")
    first, again, other = (
        pretrained_lite0(37, 64, tmp_path / "start.npz", seed).eval() for seed in (0, 0, 1)
    )
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = build_backbone("efficientnet-lite0", image_size=64).body.eval()(images)
        expected = first._fc(features)
        torch.testing.assert_close(first(images), expected, rtol=0.01, atol=0.01)
        torch.testing.assert_close(first(images), again(images))
    assert not torch.equal(first._fc.weight, other._fc.weight)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolutions_in_half_precision_round_what_float32_gives(stride):
    with seeded_globally(0, "test"):
        made = torch.nn.Conv2d(8, 8, 5, stride, padding=2, groups=8, bias=False)
    made.weight.data = made.weight.detach().bfloat16().float()
    ours = copy.deepcopy(made)
    whole_sums(ours)
    images = torch.randn(4, 8, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), made(images), rtol=0, atol=0)
    halves = images.bfloat16().requires_grad_()
    rounded = halves.detach().float().requires_grad_()
    expected, found = made(rounded), ours.bfloat16()(halves)
    torch.testing.assert_close(found, expected.bfloat16(), rtol=0, atol=0)
    slope = expected.detach().bfloat16()
    wanted = torch.autograd.grad(expected, [rounded, made.weight], slope.float())
    had = torch.autograd.grad(found, [halves, ours.weight], slope)
    for one, other in zip(had, wanted, strict=True):
        torch.testing.assert_close(one, other.bfloat16(), rtol=0, atol=0)


def test_cells_are_trained_in_their_order_at_their_filter_ratios(setup, tmp_path):
    """A rate at the edge asks for the one beyond; what cannot end in time is not begun."""
    path = tmp_path / "rows.jsonl"
    study = ScratchStudy(
        setup, 4, 1,
        cells={Cell("cifar10", "clean", 0.0, f): ("standard", "uniform") for f in (0.5, 0.9)},
        grid=[Point(rate, 5e-4) for rate in (1e-6, 1e-5)], beyond=[Point(0.05, 5e-4)],
        tuning_seeds=[100], seeds=[0], rows=[],
    )  # fmt: skip
    tuned_scratch.train_all(study, path, torch.device("cpu"), 1, 0)
    rows = stored(path)
    assert [row["filter_ratio"] for row in rows if row["stage"] == "final"] == [0.0, 0.5, 0.9]
    assert {row["filter_ratio"]: row["steps"] for row in rows} == {0.0: 10, 0.5: 5, 0.9: 1}
    for ratio in (0.0, 0.5, 0.9):
        tried = {
            row["learning_rate"]: row["validation_accuracy"]
            for row in rows
            if (row["stage"], row["filter_ratio"]) == ("tuning", ratio)
        }
        at_edge = tried[1e-5] > tried[1e-6]
        assert set(tried) == ({1e-6, 1e-5, 0.05} if at_edge else {1e-6, 1e-5})
    slow = ScratchStudy(
        setup, 4, 1, time.perf_counter() + 100,
        cells={Cell("cifar10", "clean", 0.0, f): ("standard", "uniform") for f in (0.5, 0.9)},
        grid=[Point(0.01, 5e-4)], tuning_seeds=[100], seeds=[0], rows=[],
    )  # fmt: skip
    slow.planned.add(Noise("clean", 0.0, 100))
    slow.pace = 0.07  # of the ten, five and one steps that are asked for, only those of two fit
    found = [slow.next(), slow.next(), slow.next()]
    assert [job and job.cell.filter_ratio for job in found] == [0.5, 0.9, None]
