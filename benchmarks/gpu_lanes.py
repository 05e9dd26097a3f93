"""Several networks trained at once on one GPU, each step of each a replayed CUDA graph.

A small network at a batch of 64 leaves a GPU waiting for Python: its some hundred kernels take
less time than their launches. So a :class:`Lane` holds one network and all that its steps need
on the device: images, what each step trains on, targets and learning rates. A step then asks the
CPU for nothing, is captured once and replayed for every run after it. Lanes have streams of their
own, so that their kernels run beside each other. On a CPU the same step runs without a graph.

What then takes the time is the number of kernels, so there are as few as can be: images are
cut for many steps at once, all weights lie in one tensor for the update, those of products are
cast together, and the slope of the loss is written out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import pad

__all__ = [
    "Lane",
    "Pictures",
    "Training",
    "augmentation_codes",
    "crop",
    "loss_and_slope",
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
PROBED_STEPS = 96


class Pictures(NamedTuple):
    """Images of one part on the device: uint8, (n, h, w, 3), padded for training, and labels."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, device: torch.device, padding: int) -> Pictures:
        """Takes images as they are stored, (n, h, w, 3)."""
        whole = images.to(device)
        if padding:
            planes = pad(whole.permute(0, 3, 1, 2).float(), (padding,) * 4, mode="reflect")
            whole = planes.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return cls(whole, labels.to(device))


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


def shift_unit(size: int) -> int:
    """Pixels of one shift: four of them are an eighth of an image."""
    return max(size // 32, 1)


def crop(padded: Tensor, rows: Tensor, codes: Tensor, size: int) -> Tensor:
    """Flipped and shifted images: uint8, (b, size, size, 3), of padded ones, (n, p, p, 3).

    A code is ``flip * 81 + down * 9 + right``, the last two in :func:`shift_unit`.
    """
    reach, unit = 2 * SHIFT + 1, shift_unit(size)
    down, right = unit * (codes // reach % reach), unit * (codes % reach)
    steps = torch.arange(size, device=padded.device)
    across = torch.where((codes >= reach * reach)[:, None], size - 1 - steps, steps)
    ys = down[:, None] + steps
    return padded[rows[:, None, None], ys[:, :, None], (right[:, None] + across)[:, None, :]]


def loss_and_slope(outputs: Tensor, targets: Tensor, robust: float) -> tuple[Tensor, Tensor]:
    """The mean loss, and what autograd would give as its slope by the outputs, (b, C).

    Cross-entropy with probabilities, whose rows sum to 1; or, where ``robust`` is above 0, the
    generalized one, ``(1 - p ** q) / q`` of the target's probability (arXiv 1805.07836, eq. 6).
    """
    logs = outputs.log_softmax(dim=1)
    found = logs.exp()
    if not robust:
        return (targets * logs).sum() / -len(outputs), (found - targets) / len(outputs)
    share = (targets * found).sum(dim=1, keepdim=True).clamp_min(1e-7)
    power = share**robust
    slope = found * (share - targets) * (power / share) / len(outputs)
    return (1 - power).mean() / robust, slope


class Weights:
    """A network's weights in one tensor, those of its products first, and SGD's steps of them.

    Args:
        network: Its parameters become views of that tensor.
        kind: Of the products, of which copies are kept where it is not float32.

    Attributes:
        leaves: What a forward pass takes: those copies, and all other weights.
        speeds: Of Nesterov's momentum, (all weights,).
    """

    def __init__(self, network: nn.Module, kind: torch.dtype) -> None:
        products = {
            f"{name}.{part}".removeprefix("."): weight
            for name, module in network.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
            for part, weight in module.named_parameters(recurse=False)
        }
        of = products | dict(network.named_parameters())
        self.names = list(of)
        self.cast = sum(weight.numel() for weight in products.values())
        self.whole = torch.cat([_flat(weight.detach()) for weight in of.values()])
        self.products = self.whole[: self.cast].to(kind, copy=True)
        self.speeds, self.slopes = torch.zeros_like(self.whole), torch.zeros_like(self.whole)
        self.leaves: list[Tensor] = []
        end = 0
        for weight in of.values():
            start, end = end, end + weight.numel()
            held = self.products if end <= self.cast else self.whole
            leaf = _shaped(held[start:end], weight.shape).detach()
            self.leaves.append(leaf.requires_grad_())
            weight.data = _shaped(self.whole[start:end], weight.shape)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # a count that nothing reads
                module.num_batches_tracked = None

    def outputs(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits of normalized images, (b, h, w, 3), in the type of the products."""
        with torch.no_grad():
            self.products.copy_(self.whole[: self.cast])
        weights = dict(zip(self.names, self.leaves, strict=True))
        found: Tensor = functional_call(network, weights, (images.permute(0, 3, 1, 2),))
        return found

    def descend(self, slopes: Sequence[Tensor], rate: Tensor, decay: float) -> None:
        """SGD as torch's with Nesterov's momentum, at a rate that lies on the device."""
        flat = [_flat(slope) for slope in slopes]
        count = sum(leaf.dtype == self.products.dtype for leaf in self.leaves)
        parts = (flat[:count], flat[count:]) if count < len(flat) else (flat,)
        start = 0
        for part in parts:
            joined = torch.cat(part)
            self.slopes[start : start + len(joined)] = joined
            start += len(joined)
        self.slopes.add_(self.whole, alpha=decay)
        self.speeds.mul_(MOMENTUM).add_(self.slopes)
        self.slopes.add_(self.speeds, alpha=MOMENTUM)
        self.whole.addcmul_(self.slopes, rate, value=-1)


def _flat(weight: Tensor) -> Tensor:
    """All values, the channels of a kernel last, as GPUs keep them."""
    return (weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight).reshape(-1)


def _shaped(values: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return values.view(shape)
    return values.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)


class Lane:
    """One network in training after another, of one shape.

    Args:
        network: Trained in place; each run loads its own weights.
        train: Padded images; the labels are not looked at.
        size: Height and width that the network sees.
        kept: ``k``.
        n_classes: C.
        weight_decay: Of SGD with Nesterov's momentum, of all weights.
        normalization: Mean and deviation of a channel, of values 0 to 255, (3,) each.
        half: Whether products are of bfloat16.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Pictures,
        *,
        size: int,
        kept: int,
        n_classes: int,
        weight_decay: float,
        normalization: tuple[Tensor, Tensor],
        half: bool = False,
    ) -> None:
        device = train.images.device
        self.device, self.train, self.size, self.kept = device, train, size, kept
        self.network = network.to(device).train()
        self.weight_decay = weight_decay
        self.mean, self.deviation = (part.to(device) for part in normalization)
        self.kind = torch.bfloat16 if half else torch.float32
        self.weights = Weights(self.network, self.kind)
        # What steps read: filled again for every turn, so that one graph serves all of them.
        turn = STEPS_A_TURN
        self.images = torch.zeros(turn, kept, size, size, 3, dtype=self.kind, device=device)
        self.aims = torch.full((turn, kept, n_classes), 1 / n_classes, device=device)
        self.rates = torch.zeros(turn, device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), device=device)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.graphs: dict[float, torch.cuda.CUDAGraph] = {}
        self.run: Training | None = None
        self.taken = self.steps_left = 0

    def load(self, run: Training) -> None:
        """Begins a run."""
        with torch.cuda.stream(self.stream), torch.no_grad():
            parts = ("rows", "codes", "targets", "rates")
            sent = {name: getattr(run, name).to(self.device) for name in parts}
            self.run = dataclasses.replace(run, **sent)
            state = self.network.state_dict()
            for name, value in state.items():
                value.copy_(run.start[name])
            self.weights.speeds.zero_()
            self.loss_sum.zero_()
        self.taken, self.steps_left = 0, len(run.rows)

    def capture(self, robust: Iterable[float] = (0.0,)) -> None:
        """Makes the graphs; what it trained meanwhile is overwritten by the next run.

        Args:
            robust: ``q`` of the losses that will be asked for.
        """
        if self.stream is None:
            return
        torch.cuda.synchronize(self.device)  # what was made above lies in another stream
        for q in robust:
            with torch.cuda.stream(self.stream):
                for _ in range(WARM_UP):
                    self.at.zero_()
                    self._step(q)
            torch.cuda.synchronize(self.device)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, stream=self.stream):
                    self._step(q)
            except RuntimeError as error:
                print(f"steps are taken without a graph: {error}", flush=True)
                return
            self.graphs[q] = graph

    def advance(self, steps: int = STEPS_A_TURN) -> None:
        """Takes a turn of steps of the run, or all that are left; on a GPU they are queued."""
        assert self.run is not None
        steps = min(steps, STEPS_A_TURN, self.steps_left)
        graph = self.graphs.get(self.run.robust)
        with torch.cuda.stream(self.stream):
            self._fill(self.run, slice(self.taken, self.taken + steps))
            for _ in range(steps):
                self._step(self.run.robust) if graph is None else graph.replay()
        self.taken += steps
        self.steps_left -= steps

    @torch.no_grad()
    def _fill(self, run: Training, steps: slice) -> None:
        """Lays out what some steps read."""
        rows = run.rows[steps]
        count = len(rows)
        cut = crop(self.train.images, rows.flatten(), run.codes[steps].flatten(), self.size)
        self.images[:count] = self._normalized(cut).view_as(self.images[:count])
        self.aims[:count] = run.targets[rows]
        self.rates[:count] = run.rates[steps]
        self.at.zero_()

    def _normalized(self, images: Tensor) -> Tensor:
        return ((images.float() - self.mean) / self.deviation).to(self.kind)

    def _step(self, robust: float) -> None:
        images, aims, rate = (
            part.index_select(0, self.at)[0] for part in (self.images, self.aims, self.rates)
        )
        outputs = self.weights.outputs(self.network, images)
        loss, slope = loss_and_slope(outputs.detach().float(), aims, robust)
        slopes = torch.autograd.grad(outputs, self.weights.leaves, slope.to(outputs.dtype))
        with torch.no_grad():
            self.weights.descend(slopes, rate, self.weight_decay)
            self.loss_sum += loss
            self.at += 1

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
            found[0] = self.loss_sum / max(self.taken, 1)
            for place, part in enumerate(parts):
                for start in range(0, len(part.labels), EVALUATION_BATCH):
                    rows = slice(start, start + EVALUATION_BATCH)
                    images, labels = self._normalized(part.images[rows]), part.labels[rows]
                    outputs = self.weights.outputs(self.network, images).float()
                    right = (outputs.argmax(dim=1) == labels).sum()
                    losses = nn.functional.cross_entropy(outputs, labels, reduction="sum")
                    found[2 * place + 1] += right / len(part.labels)
                    found[2 * place + 2] += losses / len(part.labels)
            self.network.train()
            if event is not None:
                event.record(self.stream)
        return lambda: found.tolist() if event is None or event.query() else None


def steps_per_second(lanes: Sequence[Lane], run: Training) -> float:
    """How many steps of a run a second lanes take beside each other; what they train is lost."""
    for lane in lanes:
        lane.load(run)
        lane.steps_left = min(lane.steps_left, PROBED_STEPS)
    steps = sum(lane.steps_left for lane in lanes)
    _wait(lanes[0].device)
    started = time.perf_counter()
    while any(lane.steps_left for lane in lanes):
        for lane in lanes:
            lane.advance()
    _wait(lanes[0].device)
    return steps / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
                lane.advance()
            elif place not in asked:
                asked[place] = lane.measure(busy[place][1])
            elif (found := asked[place]()) is not None:
                job, _, started = busy.pop(place)
                del asked[place]
                end(job, found, time.perf_counter() - started)
                has_ended = True
