"""Runs of seconds: the recipe's parts against plain definitions, and a whole tiny study."""

from __future__ import annotations

import json
import shutil
import sys

import fast_cifar
import numpy as np
import pytest
import torch
from evidence_tables.fast import fast_cifar as stored_table
from evidence_tables.fast import fast_table
from fast_lanes import FastLane, FastRun, ProxyLane
from fast_network import PIXELS, FastNetwork, cut, flip_and_shift_codes, triangle, whitening
from fast_plans import FastStudy, Planner, Settings, candidates_of, make_plan
from gpu_lanes import Pictures
from scratch_plans import Noise
from tuned_study import stored

import saln

CLASSES, BATCH = 10, 32
CLEAN, NOISY = Noise("clean", 0.0, 0), Noise("symmetric", 0.4, 0)


def images_of(n, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    colors = np.random.default_rng(9).integers(40, 216, (CLASSES, 1, 1, 3))
    pixels = colors[labels] + random.integers(-40, 41, (n, 32, 32, 3))
    return torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels)


def smooth_images(n):
    """Neighboring pixels that are alike, as in photographs."""
    noise = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(noise, size=32, mode="bilinear") - 0.5


def lane_of(kind=FastLane, device="cpu", **sizes):
    images, labels = images_of(120)
    train = Pictures.of(images, labels, torch.device(device), PIXELS)
    network = FastNetwork(CLASSES, 8, 0, whitening(smooth_images(50)))
    normalization = (torch.full((3,), 120.0), torch.full((3,), 60.0))
    return kind(
        network, train, most_steps=20, n_classes=CLASSES, normalization=normalization, **sizes
    )


def run_of(steps, width, rate=1.0):
    generator = torch.Generator().manual_seed(1)
    rows = torch.stack([torch.randperm(120, generator=generator)[:width] for _ in range(steps)])
    codes = torch.randint(50, rows.shape, generator=generator)
    targets = torch.rand(120, CLASSES, generator=generator).softmax(dim=1)
    start = FastNetwork(CLASSES, 8, 5, whitening(smooth_images(50))).state_dict()
    return FastRun(rows, codes, targets, rate * triangle(steps), start)


def test_whitened_patches_are_uncorrelated_and_come_with_their_negatives():
    images = smooth_images(200)
    filters = whitening(images, 0.0)
    outputs = torch.nn.functional.conv2d(images, filters).transpose(0, 1).flatten(1)
    moments = outputs @ outputs.T / outputs.shape[1]
    torch.testing.assert_close(moments[:12, :12], torch.eye(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(moments[:12, 12:], -torch.eye(12), atol=1e-3, rtol=0)
    assert not torch.allclose(filters[:12].flatten(1), torch.eye(12), atol=0.1)


def test_the_network_begins_as_an_identity_and_trains_neither_filters_nor_scales():
    network = FastNetwork(CLASSES, 64, 0, whitening(smooth_images(20)))
    first = network[2][0].weight
    assert first.shape == (64, 24, 3, 3)
    x = torch.randn(2, 24, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        torch.nn.functional.conv2d(x, first, padding=1)[:, :24], x, atol=1e-5, rtol=1e-5
    )
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(1.97e6, rel=0.02)
    frozen = [name for name, weight in network.named_parameters() if not weight.requires_grad]
    assert len(frozen) == 1 + 6


def test_each_example_is_flipped_in_every_other_pass():
    codes = flip_and_shift_codes(400, 5, 3)
    flips = codes >= 25
    assert 120 < int(flips[0].sum()) < 280
    for number in range(1, 5):
        assert torch.equal(flips[number], ~flips[number - 1])
    assert set((codes % 25).flatten().tolist()) == set(range(25))
    assert not torch.equal(codes[0] % 25, codes[2] % 25)
    images, labels = images_of(3)
    padded = Pictures.of(images, labels, torch.device("cpu"), PIXELS).images
    wide = np.pad(images.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)), "reflect")
    found = cut(padded, torch.tensor([2, 0]), torch.tensor([25 + 4 * 5 + 1, 2 * 5 + 2]))
    np.testing.assert_array_equal(found[0], wide[2, 4:36, 1:33][:, ::-1])
    np.testing.assert_array_equal(found[1], images[0])


def reference_run(run, batch):
    """The same training by torch's own optimizer and a plain loop."""
    network = FastNetwork(CLASSES, 8, 1, whitening(smooth_images(50)))
    network.load_state_dict(run.start)
    network.train()
    padded = lane_of(batch=batch).train.images
    steady, share = 1 + 1 / (1 - 0.85), batch / 1024
    rate, decay = 11.5 / steady * share, 0.0153 / steady * share
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    biases = [norm.bias for norm in norms]
    others = [
        weight for weight in network.parameters()
        if weight.requires_grad and all(weight is not bias for bias in biases)
    ]  # fmt: skip
    groups = [
        {"params": others, "lr": rate, "weight_decay": decay / rate},
        {"params": biases, "lr": 64 * rate, "weight_decay": decay / (64 * rate)},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    tops = [group["lr"] for group in optimizer.param_groups]
    slow = {name: value.clone() for name, value in network.state_dict().items()}
    steps = len(run.rows)
    for step in range(steps):
        images = cut(padded, run.rows[step], run.codes[step]).float()
        planes = ((images - 120) / 60).permute(0, 3, 1, 2)
        loss = torch.nn.functional.cross_entropy(network(planes), run.targets[run.rows[step]])
        for group, top in zip(optimizer.param_groups, tops, strict=True):
            group["lr"] = top * float(run.rates[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done, is_last = step + 1, step + 1 == steps
        for name, value in network.state_dict().items():
            if value.is_floating_point() and (done % 5 == 0 or is_last):
                if done % 5 == 0:
                    slow[name].lerp_(value, 1 - 0.95**5 * (done / steps) ** 3)
                value.copy_(slow[name])
    return network


def test_a_lane_trains_as_torchs_optimizer_with_lookahead():
    run = run_of(12, 24)
    lane = lane_of(batch=24)
    for _ in range(2):  # a lane keeps nothing of the run before
        lane.train_on(run)
    expected = reference_run(run, 24).state_dict()
    for name, value in lane.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=2e-3, atol=2e-4, msg=name)


def test_an_image_is_judged_with_its_mirror_image():
    lane = lane_of(batch=24)
    images, labels = images_of(50, seed=4)
    part = Pictures.of(images, labels, torch.device("cpu"), 0)
    network = lane.network.eval()
    with torch.no_grad():
        logits = sum(
            network((view.float().permute(0, 3, 1, 2) - 120) / 60)
            for view in (images, images.flip(2))
        )
    assert lane.accuracy(part) == float((logits.argmax(dim=1) == labels).double().mean())
    assert lane.network.training


def test_the_proxy_keeps_the_highest_losses_and_learns_every_fourth_step():
    run = run_of(6, 48)
    lane = lane_of(ProxyLane, batch=24, candidates=48)
    changed, kept = [], []
    lane.load(run)
    for step in range(6):
        # By hand: the loss of every candidate with the weights of this step, batch statistics.
        copy = FastNetwork(CLASSES, 8, 0, whitening(smooth_images(50)))
        copy.load_state_dict(lane.network.state_dict())
        images = cut(lane.train.images, run.rows[step], run.codes[step]).float()
        logs = copy.train()(((images - 120) / 60).permute(0, 3, 1, 2)).log_softmax(dim=1)
        losses = -(run.targets[run.rows[step]] * logs).sum(dim=1)
        kept.append(set(sorted(range(48), key=lambda i: -losses[i].item())[:24]))
        weights = [weight for group in lane.groups for weight in group]
        before = [weight.clone() for weight in weights]
        lane._look() if step % 4 else lane._step()
        moved = any(not torch.equal(*pair) for pair in zip(before, weights, strict=True))
        changed.append(moved)
    assert [set(places.tolist()) for places in lane.places[:6]] == kept
    assert changed == [True, False, False, False, True, False]
    by_hand = lane.places[:6].clone()
    assert torch.equal(lane.choose(run), by_hand)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a captured step needs CUDA")
@pytest.mark.parametrize("kind", [FastLane, ProxyLane])
def test_a_captured_step_is_a_plain_step(kind):
    sizes = {"batch": 24} | ({"candidates": 48} if kind is ProxyLane else {})
    run, states = run_of(11, 48 if kind is ProxyLane else 24), []
    for captured in (False, True):
        lane = lane_of(kind, "cuda", **sizes)
        lane.half = False  # two ways to round would differ as two runs do
        if captured:
            lane.capture()
            assert "replay" in repr(lane.step)
        lane.choose(run) if kind is ProxyLane else lane.train_on(run)
        torch.cuda.synchronize()
        states.append([state.clone() for state in lane.states])
    for plain, replayed in zip(*states, strict=True):
        torch.testing.assert_close(plain, replayed, rtol=1e-2, atol=1e-3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Images, and beliefs that a real teacher has of two kinds of labels."""
    folder = tmp_path_factory.mktemp("prepared")
    images, labels = images_of(640)
    tests, answers = images_of(60, seed=1)
    np.savez(
        folder / "cifar10.npz", train_images=images, train_labels=labels,
        test_images=tests, test_labels=answers,
    )  # fmt: skip
    random = np.random.default_rng(2)
    centers = random.normal(size=(CLASSES, 16))
    features = (centers[labels] + 0.6 * random.normal(size=(640, 16))).astype(np.float32)
    np.save(folder / "features.npy", features)
    given = np.where(random.random(640) < 0.4, random.integers(0, CLASSES, 640), labels)
    for noise, seen in ((CLEAN, labels.numpy()), (NOISY, given)):
        teacher = saln.features_as_teacher(features, seen, classes=CLASSES)
        np.savez(
            folder / f"beliefs-{noise.name}.npz", labels=seen.astype(np.uint8),
            posterior=teacher.posterior, others=teacher.leave_one_out, seconds=teacher.seconds,
        )  # fmt: skip
    return folder


@pytest.fixture
def folder(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("selector", ["uniform", "balanced-curriculum"])
def test_plans_are_what_the_library_chooses(folder, selector):
    settings = Settings(BATCH, 0.5, 3, 8)
    plan = make_plan(folder, NOISY, selector, settings, 4)
    assert plan.rows.dtype == np.int32
    features = np.load(folder / "features.npy")
    with np.load(folder / f"beliefs-{NOISY.name}.npz") as held:
        labels = held["labels"].astype(np.int64)
    chosen = saln.BalancedCurriculum(epochs=3) if selector != "uniform" else saln.Uniform()
    teacher = saln.features_as_teacher(features, labels, classes=CLASSES)
    batches = saln.SelectedBatches(
        features, selector=chosen, batch_size=BATCH, filter_ratio=0.5, seed=4, labels=labels,
        teacher=teacher,
    )  # fmt: skip
    for epoch in (1, 2, 3):
        batches.set_epoch(epoch)
        np.testing.assert_array_equal(plan.rows[epoch - 1], list(batches))
    order = candidates_of(640, settings, 4)
    assert all(
        set(kept) <= set(seen) for kept, seen in zip(plan.rows[0], order[0].numpy(), strict=True)
    )


def test_a_study_tunes_interleaves_seeds_and_goes_on_where_it_stopped(folder):
    settings = Settings(BATCH, 0.5, 1, 8)
    track = fast_cifar.Track(folder, settings, torch.device("cpu"))
    path = folder / "rows.jsonl"
    arms = ["random", "proxy-loss", "rule", "all", "longer"]

    def go_on(rows, until=float("inf")):
        study = FastStudy(settings, {NOISY: 2}, arms, [0.5, 1.0], [100], rows)
        fast_cifar.train_all(study, path, track, Planner(folder, settings, None), until)
        return study

    go_on([], until=-1.0)
    assert not path.exists()  # the time was over
    go_on([])
    rows = stored(path)
    assert len(rows) == 5 * (2 + 2)
    final = [row for row in rows if row["stage"] == "final"]
    assert [(row["seed"], row["arm"]) for row in final] == [
        *((seed, arm) for seed in (0, 1) for arm in arms[:4]),
        *((0, "longer"), (1, "longer")),
    ]
    for row in rows:
        assert ("test_accuracy" in row) == (row["stage"] == "final")
        assert row["steps"] == 10 or (row["arm"] == "longer" and 10 < row["steps"] <= 20)
        assert (row["seconds_before"] > 0) == (row["arm"] == "proxy-loss")
        assert (row["seconds_judging"] > 0) == (row["arm"] == "rule")
    kept = {row["arm"]: row["wrong_label_share_kept"] for row in final}
    assert kept["rule"] < kept["random"] < kept["proxy-loss"]
    # What was stopped does what is missing, with the same numbers.
    path.unlink()
    again = go_on(rows[:-3])
    assert len(stored(path)) == 3
    same = ("arm", "seed", "stage", "learning_rate", "steps", "train_loss")
    assert [[row[key] for key in same] for row in again.rows] == [
        [row[key] for key in same] for row in rows
    ]
    assert next(again.jobs(), None) is None
    assert len(fast_table(rows).splitlines()) == 2 + 5


def test_held_out_images_give_no_gradient_where_rates_are_chosen(folder):
    track = fast_cifar.Track(folder, Settings(BATCH, 0.5, 2, 8), torch.device("cpu"))
    job = fast_cifar.FastJob("tuning", "random", CLEAN, 0, 1.0)
    rows = candidates_of(640, track.settings, 0)
    run = track._training(job, rows, track._network(0), triangle(20))
    assert run.targets[track.held_out].abs().sum() == 0
    assert len(track.held_out) == 64
    others = run.targets.sum(dim=1)
    assert int((others == 0).sum()) == 64
    final = track._training(job._replace(stage="final"), rows, track._network(0), triangle(20))
    torch.testing.assert_close(final.targets.sum(dim=1), torch.ones(640))
    torch.testing.assert_close(final.targets.max(dim=1).values, torch.full((640,), 0.82))


def test_the_command_line_trains_and_the_table_says_what_is_stored(folder, monkeypatch, capsys):
    path = folder / "fast-cifar.jsonl"
    assert stored_table(folder) == ""
    command = ["fast_cifar.py", str(folder), "--rows", str(path), "--batch", str(BATCH)]
    command += ["--passes", "1", "--width", "8", "--noises", "clean", "--runs", "1"]
    command += ["--rates", "1", "--arms", "random,targets"]
    monkeypatch.setattr(sys, "argv", command)
    fast_cifar.main()
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert "--passes" in lines[0]["environment"]["command"]
    assert [row["arm"] for row in lines[1:]] == ["random", "targets"]
    assert stored_table(folder) in printed
    difference = 100 * (lines[2]["test_accuracy"] - lines[1]["test_accuracy"])
    assert f"| {difference:+.2f} |" in printed
