"""Several networks trained at once on one GPU, each step of each a replayed CUDA graph.

A small network at a batch of 64 leaves a GPU waiting for Python: its some hundred kernels take
less time than their launches. So a :class:`Lane` holds one network and all that its steps need
on the device: images, what each step trains on, targets, learning rates, and the number of the
step. A step then asks the CPU for nothing, is captured once and replayed for every run after
it. Lanes have streams of their own, so that their kernels run beside each other. On a CPU the
same step runs without a graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

__all__ = [
    "Lane",
    "Pictures",
    "Training",
    "augmentation_codes",
    "crop",
    "run_lanes",
    "steps_per_second",
]

Job = TypeVar("Job")

SHIFT = 4  # Pixels, as is usual on CIFAR-10
CODES = 2 * (2 * SHIFT + 1) ** 2
MOMENTUM = 0.9
EVALUATION_BATCH = 1_000
WARM_UP = 3  # Steps before a capture: cuDNN chooses its kernels in them
STEPS_A_TURN = 16
PROBED_STEPS = 100


class Pictures(NamedTuple):
    """Images of one part on the device: uint8, (n, h, w, 3), padded for training, and labels."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, device: torch.device, padding: int) -> Pictures:
        """Takes images as they are stored, (n, h, w, 3)."""
        planes = images.permute(0, 3, 1, 2).float()
        if padding:
            planes = pad(planes, (padding,) * 4, mode="reflect")
        whole = planes.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return cls(whole.to(device), labels.to(device))


@dataclass(frozen=True)
class Training:
    """One run, on the CPU.

    Attributes:
        rows: int64, (steps, k): what each step trains on.
        codes: int64, (steps, k): how each of them is changed, see :func:`augmentation_codes`.
        targets: float32, (n, C): what the loss compares the output with.
        rates: float32, (steps,): learning rates.
        robust: ``q`` of the generalized cross-entropy; 0 for the usual one.
        start: The network's first weights.
    """

    rows: Tensor
    codes: Tensor
    targets: Tensor
    rates: Tensor
    robust: float
    start: dict[str, Tensor]


def augmentation_codes(n: int, generator: torch.Generator) -> Tensor:
    """One epoch's flips and shifts: int64, (n,), each of the 162 as likely."""
    return torch.randint(CODES, (n,), generator=generator)


def crop(padded: Tensor, rows: Tensor, codes: Tensor, size: int) -> Tensor:
    """Flipped and shifted images: uint8, (b, size, size, 3), of padded ones, (n, p, p, 3).

    A code is ``flip * 81 + down * 9 + right``.
    """
    reach = 2 * SHIFT + 1
    down, right = codes // reach % reach, codes % reach
    steps = torch.arange(size, device=padded.device)
    across = torch.where((codes >= reach * reach)[:, None], size - 1 - steps, steps)
    ys = down[:, None] + steps
    return padded[rows[:, None, None], ys[:, :, None], (right[:, None] + across)[:, None, :]]


def losses_of(outputs: Tensor, targets: Tensor, robust: Tensor) -> Tensor:
    """Cross-entropy with probabilities, or, where ``robust`` is above 0, the generalized one.

    The second is ``(1 - p ** q) / q`` of the target's probability (arXiv 1805.07836, eq. 6). Both
    are computed: a captured step has no branches.
    """
    logs = outputs.log_softmax(dim=1)
    usual = -(targets * logs).sum(dim=1)
    share = (targets * logs.exp()).sum(dim=1).clamp_min(1e-7)
    general = (1 - share**robust) / robust.clamp_min(1e-7)
    return torch.where(robust > 0, general, usual)


class Lane:
    """One network in training after another, of one shape.

    Args:
        network: Trained in place; each run loads its own weights.
        train: Padded images; the labels are not looked at.
        kept: ``k``.
        most_steps: Of the longest run.
        weight_decay: Of SGD with Nesterov's momentum, of all weights.
        normalization: Mean and deviation of a channel, of values 0 to 255, (3,) each.

    Attributes:
        size: Height and width that the network sees.
        half: Whether products are of bfloat16, by autocast; to be set before ``capture``.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Pictures,
        *,
        kept: int,
        most_steps: int,
        n_classes: int,
        weight_decay: float,
        normalization: tuple[Tensor, Tensor],
    ) -> None:
        device = train.images.device
        self.device, self.train = device, train
        self.network = network.to(device)
        self.size = train.images.shape[1] - 2 * SHIFT
        self.weight_decay = weight_decay
        self.mean, self.deviation = (part.to(device) for part in normalization)
        self.weights: list[Tensor] = list(self.network.parameters())
        self.speeds = [torch.zeros_like(weight) for weight in self.weights]
        # What a step reads: written by every run, so that one graph serves all of them.
        self.rows = torch.zeros(most_steps, kept, dtype=torch.int64, device=device)
        self.codes = torch.zeros_like(self.rows)
        self.targets = torch.full((len(train.images), n_classes), 1 / n_classes, device=device)
        self.rates = torch.zeros(most_steps, device=device)
        self.robust = torch.zeros((), device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), device=device)
        self.half = False
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.steps_left = 0

    def load(self, run: Training) -> None:
        """Begins a run."""
        with torch.cuda.stream(self.stream), torch.no_grad():
            steps = len(run.rows)
            self.rows[:steps].copy_(run.rows)
            self.codes[:steps].copy_(run.codes)
            self.targets.copy_(run.targets)
            self.rates[:steps].copy_(run.rates)
            self.robust.fill_(run.robust)
            self.network.load_state_dict(run.start)
            for state in (*self.speeds, self.at, self.loss_sum):
                state.zero_()
        self.steps_left = steps

    def capture(self) -> None:
        """Makes the graph; what it trained meanwhile is overwritten by the next run."""
        if self.stream is None:
            return
        self.network.train()
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UP):
                self._step()
            self.at.zero_()
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self._step()
        except RuntimeError as error:
            print(f"steps are taken without a graph: {error}", flush=True)
            return
        self.graph = graph

    def advance(self, steps: int) -> None:
        """Takes some more steps of the run, or all that are left; on a GPU they are queued."""
        steps = min(steps, self.steps_left)
        self.steps_left -= steps
        with torch.cuda.stream(self.stream):
            if self.graph is None:
                self.network.train()
            for _ in range(steps):
                self._step() if self.graph is None else self.graph.replay()

    def _step(self) -> None:
        rows = self.rows.index_select(0, self.at)[0]
        codes = self.codes.index_select(0, self.at)[0]
        outputs = self._outputs(crop(self.train.images, rows, codes, self.size))
        loss = losses_of(outputs, self.targets[rows], self.robust).mean()
        slopes = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            self._descend(list(slopes), self.rates.index_select(0, self.at)[0])
            self.loss_sum += loss
            self.at += 1

    def _outputs(self, images: Tensor) -> Tensor:
        """Logits, float32, of uint8 images, (b, h, w, 3)."""
        planes = ((images.float() - self.mean) / self.deviation).permute(0, 3, 1, 2)
        # Each weight is used once a step: a cache of its casts would only outlive the capture.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.half, cache_enabled=False
        ):
            outputs: Tensor = self.network(planes)
        return outputs.float()

    def _descend(self, slopes: list[Tensor], rate: Tensor) -> None:
        """SGD as torch's, with all weights at once and a rate that lies on the device."""
        torch._foreach_add_(slopes, self.weights, alpha=self.weight_decay)
        torch._foreach_mul_(self.speeds, MOMENTUM)
        torch._foreach_add_(self.speeds, slopes)
        torch._foreach_add_(slopes, self.speeds, alpha=MOMENTUM)
        torch._foreach_mul_(slopes, rate)
        torch._foreach_sub_(self.weights, slopes)

    def measure(self, parts: Sequence[Pictures]) -> Callable[[], list[float] | None]:
        """Queues an evaluation of some parts, unpadded.

        Returns:
            A function that gives, once all steps are done, the mean training loss and then each
            part's accuracy and loss; None before. It waits for nothing.
        """
        event = None if self.stream is None else torch.cuda.Event()
        with torch.cuda.stream(self.stream), torch.no_grad():
            self.network.eval()
            # In the lane's own stream: zeros of another one may come after what is written here.
            found = torch.zeros(1 + 2 * len(parts), device=self.device)
            found[0] = self.loss_sum / self.at[0]
            for place, part in enumerate(parts):
                for start in range(0, len(part.labels), EVALUATION_BATCH):
                    rows = slice(start, start + EVALUATION_BATCH)
                    outputs, labels = self._outputs(part.images[rows]), part.labels[rows]
                    right = (outputs.argmax(dim=1) == labels).sum()
                    losses = nn.functional.cross_entropy(outputs, labels, reduction="sum")
                    found[2 * place + 1] += right / len(part.labels)
                    found[2 * place + 2] += losses / len(part.labels)
            self.network.train()
            if event is not None:
                event.record(self.stream)
        return lambda: found.tolist() if event is None or event.query() else None


def steps_per_second(lanes: Sequence[Lane]) -> float:
    """How many steps a second lanes take beside each other; what they train is lost."""
    device = lanes[0].device
    steps = min(PROBED_STEPS, len(lanes[0].rows))
    for lane in lanes:
        with torch.cuda.stream(lane.stream):
            lane.at.zero_()
        lane.steps_left = steps
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        for lane in lanes:
            lane.advance(1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return len(lanes) * steps / (time.perf_counter() - started)


def run_lanes(
    lanes: Sequence[Lane],
    begin: Callable[[], tuple[Job, Training, Sequence[Pictures]] | None],
    end: Callable[[Job, list[float], float], None],
) -> None:
    """Keeps all lanes busy until ``begin`` gives nothing more and all runs have ended.

    Args:
        lanes: Captured, or on a CPU.
        begin: Gives the next run: what it is called, what to train, what to measure at its end.
        end: Takes the name, what :meth:`Lane.measure` gave, and the seconds of the run.
    """
    busy: dict[int, tuple[Job, Sequence[Pictures], float]] = {}
    asked: dict[int, Callable[[], list[float] | None]] = {}
    has_ended = True  # what ends may make more runs possible
    while busy or has_ended:
        has_ended = False
        for place, lane in enumerate(lanes):
            if place not in busy:
                if (more := begin()) is None:
                    continue
                busy[place] = (more[0], more[2], time.perf_counter())
                lane.load(more[1])
            if lane.steps_left:
                lane.advance(STEPS_A_TURN)
            elif place not in asked:
                asked[place] = lane.measure(busy[place][1])
            elif (found := asked[place]()) is not None:
                job, _, started = busy.pop(place)
                del asked[place]
                end(job, found, time.perf_counter() - started)
                has_ended = True
