"""Training CIFAR-10 in seconds on one GPU, and a proxy that chooses what to train on.

In the manner of arXiv 2404.00498, with its numbers: Nesterov's momentum with weight decay free of
the learning rate, biases that learn 64 times as quickly (section 3.3), lookahead (3.4), an
evaluation of each image and its mirror image (3.5). The proxy is that of the same author's
airbench96: a narrow network looks at all candidates of a step and keeps those with the highest
loss; in every fourth step it learns from them. A step is a CUDA graph that is captured once, so
all that it reads lies on the device; on a CPU it runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from fast_network import FastNetwork, cut
from gpu_lanes import Pictures
from torch import Tensor, nn

__all__ = ["FastLane", "FastRun", "ProxyLane"]

MOMENTUM, BIAS_FACTOR = 0.85, 64.0
# The paper's are for sums of 1024 examples, free of what the momentum adds to a step.
STEADY = 1 + 1 / (1 - MOMENTUM)
RATE, WEIGHT_DECAY = 11.5 / STEADY, 0.0153 / STEADY
LOOK_EVERY, LOOK_DECAY = 5, 0.95
LEARN_EVERY = 4  # Steps of the proxy
EVALUATION_BATCH = 2_000
WARM_UP = 3  # Steps before a capture: cuDNN chooses its kernels in them


class FastRun(NamedTuple):
    """One run.

    Attributes:
        rows: integer, (steps, b): what each step looks at.
        codes: int64, (steps, b): see :func:`fast_network.flip_and_shift_codes`.
        targets: float32, (n, C): what the loss compares the output with.
        rates: float32, (steps,): learning rates, as shares of the paper's.
        start: The network's first weights.
    """

    rows: Tensor
    codes: Tensor
    targets: Tensor
    rates: Tensor
    start: dict[str, Tensor]


class FastLane:
    """One network in training after another, as fast as one GPU allows.

    Args:
        network: Of which each run loads its own weights.
        train: Images padded by :data:`fast_network.PIXELS`.
        batch: ``k``, how many give a gradient.
        most_steps: Of the longest run.
        n_classes: C.
        normalization: Mean and deviation of a channel, of values 0 to 255, (3,) each.
        candidates: How many a step looks at; ``k`` when None.
    """

    def __init__(
        self,
        network: FastNetwork,
        train: Pictures,
        *,
        batch: int,
        most_steps: int,
        n_classes: int,
        normalization: tuple[Tensor, Tensor],
        candidates: int | None = None,
    ) -> None:
        self.device = device = train.images.device
        self.network, self.train, self.batch = network.to(device).train(), train, batch
        self.mean, self.deviation = (part.to(device) for part in normalization)
        self.half = device.type == "cuda"
        norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        biases: list[Tensor] = [norm.bias for norm in norms]
        quick = {id(bias) for bias in biases}
        weights: list[Tensor] = [each for each in network.parameters() if each.requires_grad]
        self.groups: list[list[Tensor]] = [[w for w in weights if id(w) not in quick], biases]
        self.speeds = [[torch.zeros_like(w) for w in group] for group in self.groups]
        # Running means, too: the mixture of two networks has others than either.
        self.states = [each for each in network.state_dict().values() if each.is_floating_point()]
        self.slow = [torch.zeros_like(state) for state in self.states]
        # What a step reads: written by every run, so that one graph serves all of them.
        looks_at = (most_steps, candidates or batch)
        self.rows = torch.zeros(looks_at, dtype=torch.int64, device=device)
        self.codes = torch.zeros_like(self.rows)
        self.targets = torch.full((len(train.images), n_classes), 1 / n_classes, device=device)
        self.rates, self.pull, self.jump = torch.zeros(3, most_steps, device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), device=device)
        self.step: Callable[[], Any] = self._step

    def capture(self) -> None:
        """Makes the graph; what it trained meanwhile is overwritten by the next run."""
        self.step = self._captured(self._step)

    def _captured(self, step: Callable[[], None]) -> Callable[[], Any]:
        """The replay of a step; on a CPU, or where a step cannot be captured, itself."""
        if self.device.type != "cuda":
            return step
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.at.zero_()
                step()
        torch.cuda.synchronize(self.device)
        self.at.zero_()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                step()
        except RuntimeError as error:
            print(f"steps are taken without a graph: {error}", flush=True)
            return step
        return graph.replay

    @torch.no_grad()
    def load(self, run: FastRun) -> None:
        """Begins a run."""
        steps = len(run.rows)
        after = torch.arange(1, steps + 1)
        looks = after % LOOK_EVERY == 0
        decay = LOOK_DECAY**LOOK_EVERY * (after / steps) ** 3
        for held, given in (
            (self.rows, run.rows),
            (self.codes, run.codes),
            (self.rates, run.rates),
            (self.pull, torch.where(looks, 1 - decay, 0)),
            (self.jump, (looks | (after == steps)).float()),
        ):
            held[:steps].copy_(given)
        self.targets.copy_(run.targets)
        self.network.load_state_dict(run.start)
        torch._foreach_copy_(self.slow, self.states)
        for state in (*self.speeds[0], *self.speeds[1], self.at, self.loss_sum):
            state.zero_()

    def train_on(self, run: FastRun) -> None:
        """Takes all steps of a run; on a GPU they are queued."""
        self.load(run)
        for _ in range(len(run.rows)):
            self.step()

    @property
    def mean_loss(self) -> float:
        """Of the steps that were taken."""
        return float(self.loss_sum / self.at[0])

    @torch.no_grad()
    def accuracy(self, part: Pictures) -> float:
        """Of images without padding, each judged with its mirror image."""
        self.network.eval()
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        for start in range(0, len(part.labels), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            images = part.images[rows]
            both = self._outputs(images) + self._outputs(images.flip(2))
            right += (both.argmax(dim=1) == part.labels[rows]).sum()
        self.network.train()
        return int(right) / len(part.labels)

    def _step(self) -> None:
        self._learn(self._losses().mean())
        self._look_ahead()
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

    def _losses(self) -> Tensor:
        """Of the examples of a step, (b,)."""
        rows, codes = (of.index_select(0, self.at)[0] for of in (self.rows, self.codes))
        logs = self._outputs(cut(self.train.images, rows, codes)).log_softmax(dim=1)
        return -(self.targets[rows] * logs).sum(dim=1)

    def _learn(self, loss: Tensor) -> None:
        """Nesterov's step; a weight decays as much in it whether it learns quickly or not."""
        both = torch.autograd.grad(loss, [*self.groups[0], *self.groups[1]])
        count, size = len(self.groups[0]), self.batch / 1024
        parts = (list(both[:count]), list(both[count:]))
        with torch.no_grad():
            share = self.rates.index_select(0, self.at)[0]
            for place, factor in enumerate((1.0, BIAS_FACTOR)):
                weights, speeds, slopes = self.groups[place], self.speeds[place], parts[place]
                rate = RATE * size * factor
                torch._foreach_add_(slopes, weights, alpha=WEIGHT_DECAY * size / rate)
                torch._foreach_mul_(speeds, MOMENTUM)
                torch._foreach_add_(speeds, slopes)
                torch._foreach_add_(slopes, speeds, alpha=MOMENTUM)
                torch._foreach_mul_(slopes, share * rate)
                torch._foreach_sub_(weights, slopes)
            self.loss_sum += loss

    @torch.no_grad()
    def _look_ahead(self) -> None:
        """Every few steps slow weights follow, and the network goes on from there.

        Between them both are multiplied by 0: a captured step has no branches.
        """
        pull, jump = (of.index_select(0, self.at)[0] for of in (self.pull, self.jump))
        change = torch._foreach_sub(self.states, self.slow)
        torch._foreach_mul_(change, pull)
        torch._foreach_add_(self.slow, change)
        change = torch._foreach_sub(self.slow, self.states)
        torch._foreach_mul_(change, jump)
        torch._foreach_add_(self.states, change)


class ProxyLane(FastLane):
    """A narrow network that keeps the candidates with the highest loss, step by step.

    Args:
        network: The proxy.
        train: As :class:`FastLane`.
        batch: ``k``.
        most_steps: Of the longest run.
        **about: As :class:`FastLane`; the candidates are those that each step looks at.

    Attributes:
        places: int64, (steps, k): which of the candidates were kept.
    """

    def __init__(
        self, network: FastNetwork, train: Pictures, *, batch: int, most_steps: int, **about: Any
    ) -> None:
        super().__init__(network, train, batch=batch, most_steps=most_steps, **about)
        self.places = torch.zeros(most_steps, batch, dtype=torch.int64, device=self.device)
        self.look: Callable[[], Any] = self._look

    def capture(self) -> None:
        """Makes two graphs: of steps that learn and of those that only look."""
        super().capture()
        self.look = self._captured(self._look)

    def choose(self, run: FastRun) -> Tensor:
        """Trains on candidates: int64 (steps, k), which places of each step's are kept."""
        self.load(run)
        for step in range(len(run.rows)):
            self.look() if step % LEARN_EVERY else self.step()
        return self.places[: len(run.rows)]

    def _step(self) -> None:
        losses = self._losses()
        highest = self._keep(losses)
        shares = torch.zeros_like(losses).index_fill_(0, highest, 1 / self.batch)
        self._learn((shares * losses).sum())
        self.at += 1

    @torch.no_grad()
    def _look(self) -> None:
        self._keep(self._losses())
        self.at += 1

    def _keep(self, losses: Tensor) -> Tensor:
        highest = losses.detach().topk(self.batch).indices
        self.places.index_copy_(0, self.at, highest[None])
        return highest
