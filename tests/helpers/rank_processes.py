"""What each of several real processes does; spawned ones find it by this module's name."""

from __future__ import annotations

import numpy as np
import torch

from saln._optimizers import SGD
from saln.errors import SalnError
from saln.labels.teacher import features_as_teacher
from saln.loading.learner_selected import LearnerSelected
from saln.loading.selected_batches import SelectedBatches
from saln.randomness import derive_generator, seeded_globally
from saln.selection import SALN, SELECTORS, TopLoss, Uniform
from saln.training.distributed_layers import SharedDraws, synchronize
from saln.training.learner_networks import build_learner
from saln.training.processes import Processes


def sampler_of(name, rank=0, world_size=1):
    features = np.random.Generator(np.random.PCG64(0)).random((200, 7))
    selector = {"uniform": Uniform, "saln": SALN}[name]()
    return SelectedBatches(
        features,
        selector=selector,
        batch_size=8,
        filter_ratio=0.8,
        seed=3,
        rank=rank,
        world_size=world_size,
    )


def gather_batches(rank, world_size, meeting):
    """The global batches of an epoch, put together from what each rank was given."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
    )
    try:
        seen = {}
        for name in ("uniform", "saln"):
            batches = []
            for share in sampler_of(name, rank, world_size):
                parts = [torch.empty(len(share), dtype=torch.int64) for _ in range(world_size)]
                torch.distributed.all_gather(parts, torch.tensor(share))
                batches.append(torch.cat(parts).tolist())
            seen[name] = batches
        return seen
    finally:
        torch.distributed.destroy_process_group()


class Observer(TopLoss):
    """Remembers the losses that it observes."""

    observes_losses = True

    def observe(self, indices, losses):
        self.__dict__.setdefault("observed", []).append((indices.tolist(), losses.tolist()))


def network(seed):
    with seeded_globally("network", seed):
        return torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        )


def examples():
    random = derive_generator("examples")
    rows = torch.randn(43, 5, generator=random)
    return torch.utils.data.TensorDataset(rows, torch.arange(43) % 3, torch.arange(43))


def examples_teacher():
    """Of features that say what the labels are, but of a few."""
    rows, labels, _ = examples().tensors
    near = rows[:, :3] + 2 * torch.nn.functional.one_hot(labels, 3)
    return near, features_as_teacher(near, labels)


def learner_selected(selector, rank, world_size, loader=None, learner=None, **options):
    if loader is None:
        # 21 and 22 candidates: no number of ranks divides both.
        loader = torch.utils.data.DataLoader(examples(), batch_size=22, generator=torch.Generator())
    return LearnerSelected(
        loader,
        selector=selector,
        batch_size=8,
        learner=learner or network(0),
        reference=network(1),
        indices=2,
        seed=4,
        rank=rank,
        world_size=world_size,
        **options,
    )


# Those that the learner tells, and what was stored, beside a learner or without.
ASKED = ("uniform", "jest", "top-loss", "small-loss", "divbs", "balanced-curriculum", "herding")


def kept_globally(rank, world_size):
    """The global batches that each selector keeps."""
    seen = {}
    features, teacher = examples_teacher()
    known = {"features": features, "teacher": teacher}
    for name in ASKED:
        batches = []
        for kept in learner_selected(SELECTORS[name].for_run(epochs=2), rank, world_size, **known):
            assert torch.equal(kept.batch[2], kept.indices)
            parts = [kept.indices]
            if world_size > 1:
                parts = [torch.empty_like(kept.indices) for _ in range(world_size)]
                torch.distributed.all_gather(parts, kept.indices)
            batches.append(torch.cat(parts).tolist())
        seen[name] = batches
    return seen


def message_of(make):
    try:
        list(make())
    except SalnError as error:
        return str(error)
    return "no error"


def learn(rank, world_size, meeting):
    """What each rank sees of batches that the learner's scores choose."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
    )
    try:
        seen = {"kept": kept_globally(rank, world_size)}
        selector = Observer()
        batches = learner_selected(selector, rank, world_size)
        for kept in batches:
            batches.observe(kept.indices, kept.indices / 7)
        seen["observed"] = selector.observed
        order = torch.utils.data.DataLoader(
            examples(), batch_size=22, shuffle=True, generator=torch.Generator().manual_seed(rank)
        )
        seen["shuffled"] = message_of(lambda: learner_selected(Uniform(), rank, world_size, order))
        learner = network(0)
        if rank == world_size - 1:  # one rank alone
            learner[3].bias.data.fill_(torch.nan)
        seen["diverged"] = message_of(
            lambda: learner_selected(SELECTORS["jest"](), rank, world_size, learner=learner)
        )
        sampler = torch.utils.data.DistributedSampler(examples(), world_size, rank)
        sharded = torch.utils.data.DataLoader(examples(), batch_size=10, sampler=sampler)
        seen["sharded"] = message_of(lambda: learner_selected(Uniform(), rank, world_size, sharded))
        other = (rank + 1) % world_size
        seen["rank"] = message_of(lambda: learner_selected(Uniform(), other, world_size))
        return seen
    finally:
        torch.distributed.destroy_process_group()


def train_step(rank, world_size, meeting, results):
    """One step with this rank's share of the whole batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
    )
    processes = Processes(rank, world_size, rank)
    network, images, goal = step_example()
    synchronize(network, processes)
    share = slice(rank * 4, rank * 4 + 4)
    mine = images[share].clone().requires_grad_()
    torch.manual_seed(5)
    with SharedDraws(processes, 4):
        outputs = network(mine)
    ((outputs - goal[share]) ** 2).mean().backward()
    processes.average_gradients(network)
    torch.save(
        {
            "outputs": outputs.detach(),
            # The mean over the ranks of the shares' means is the whole batch's mean.
            "input": mine.grad / world_size,
            "gradients": [p.grad for p in network.parameters()],
            "state": network.state_dict(),
        },
        f"{results}-{rank}",
    )
    torch.distributed.destroy_process_group()


class Drops(torch.nn.Module):
    """Stochastic depth as EfficientNet-Lite0 draws it and as torchvision does."""

    def forward(self, rows):
        keep = torch.floor(0.7 + torch.rand([len(rows), 1, 1, 1], dtype=rows.dtype))
        noise = torch.empty([len(rows), 1, 1, 1], dtype=rows.dtype).bernoulli_(0.8)
        return rows * keep * noise


def step_example():
    torch.manual_seed(2)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.ReLU(), Drops(),
        torch.nn.BatchNorm2d(5, momentum=None), torch.nn.Flatten(), torch.nn.Dropout(0.4),
        torch.nn.Linear(5 * 16, 4), torch.nn.BatchNorm1d(4, affine=False),
    ).double()  # fmt: skip
    return network, torch.randn(8, 3, 6, 6).double(), torch.randn(8, 4).double()


def fine_tune(rank, world_size, meeting, results):
    """The losses of some steps of EfficientNet-Lite0, in float64; written to a file."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if world_size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
        )
    processes = Processes(rank, world_size, rank)
    network, _ = build_learner("efficientnet-lite0", 37, image_size=32, pretrained=True)
    network = synchronize(network.double().train(), processes)
    images = torch.randn(8, 3, 32, 32, generator=derive_generator("images")).double()
    share = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
    optimizer = SGD(network.parameters(), lr=0.001, momentum=0.9)
    losses = []
    for step in range(3):
        with seeded_globally("step", step), SharedDraws(processes, 8 // world_size):
            outputs = network(images[share])
        loss = torch.nn.functional.cross_entropy(outputs, torch.arange(8)[share])
        optimizer.zero_grad()
        loss.backward()
        processes.average_gradients(network)
        optimizer.step()
        losses.append(processes.total(loss.detach().clone()) / world_size)
    torch.save(torch.stack(losses), f"{results}-{rank}")
    if world_size > 1:
        torch.distributed.destroy_process_group()
    torch.set_num_threads(threads)


class Observes(Uniform):
    """Remembers the losses that it is told."""

    observes_losses = True

    def __init__(self):
        self.observed = []

    def observe(self, indices, losses):
        self.observed.append((indices.tolist(), losses.tolist()))


def owners_of_observe(**ranks):
    """Everything with an ``observe``, around a selector of its own: name -> (it, the selector)."""
    from saln.integrations.step_counter import CountingLoader
    from saln.loading.epoch_batches import LoadedBatches, ScoredBatches
    from saln.loading.selected_stream import SelectedStream

    def batches():
        selector = Observes()
        settings = {"selector": selector, "batch_size": 8, "seed": 0, **ranks}
        return SelectedBatches(43, filter_ratio=0.5, **settings), settings

    owners = {}
    chosen, settings = batches()
    owners["SelectedBatches"] = chosen, settings["selector"]
    chosen, settings = batches()
    loader = torch.utils.data.DataLoader(examples(), batch_sampler=chosen)
    owners["CountingLoader"] = CountingLoader(loader, chosen), settings["selector"]
    chosen, settings = batches()
    view = torch.utils.data.TensorDataset(torch.arange(43))
    owners["LoadedBatches"] = LoadedBatches(view, chosen), settings["selector"]
    _, settings = batches()
    stream = SelectedStream([], filter_ratio=0.5, **settings)
    owners["SelectedStream"] = stream, settings["selector"]
    for name, wrap in (("LearnerSelected", lambda one: one), ("ScoredBatches", ScoredBatches)):
        _, settings = batches()
        loader = torch.utils.data.DataLoader(examples(), batch_size=16, drop_last=True)
        selected = LearnerSelected(loader, learner=network(0), indices=2, **settings)
        owners[name] = wrap(selected), settings["selector"]
    return owners


def observe_in_every_owner(rank, world_size, meeting, explicit):
    """What each selector was told, where every rank hands on losses of its own."""
    torch.set_num_threads(1)
    if world_size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
        )
    try:
        ranks = {"rank": rank, "world_size": world_size} if explicit else {}
        seen = {}
        for name, (owner, selector) in owners_of_observe(**ranks).items():
            # Two batches of other lengths on each rank; the last rank's second is empty.
            for indices in (
                torch.arange(rank, 10, world_size),
                torch.arange(world_size - 1 - rank),
            ):
                owner.observe(indices, indices / 4 + rank)
            seen[name] = selector.observed
        return seen
    finally:
        if world_size > 1:
            torch.distributed.destroy_process_group()
