"""What lets a share of a batch pass through a network as it would in the whole batch."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from saln.training.processes import Processes


class SynchronizedBatchNorm(_BatchNorm):
    """BatchNorm whose statistics in training are those of all ranks' shares together.

    torch's SyncBatchNorm does the same, on GPUs alone. The names in the state dict are
    those of BatchNorm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (n, c, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, ...) to the same shape."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        others = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        reduce: Any = torch.distributed.nn.functional.all_reduce
        # Shares are equal.
        count = input.numel() // input.shape[1] * torch.distributed.get_world_size()
        mean = reduce(input.sum(dim=others)) / count
        centered = input - mean.view(shape)
        # A second pass: the difference of two sums of squares would lose digits.
        variance = reduce(centered.square().sum(dim=others)) / count
        if self.track_running_stats and self.running_mean is not None:
            with torch.no_grad():
                assert self.running_var is not None
                assert self.num_batches_tracked is not None
                self.num_batches_tracked.add_(1)
                share = self.momentum
                if share is None:
                    share = 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.detach(), share)
                unbiased = variance.detach() * (count / max(count - 1, 1))
                self.running_var.lerp_(unbiased, share)
        # all_reduce is part of the graph: its backward sums the gradients of all ranks' shares.
        scaled = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return cast(Tensor, scaled)


def synchronize(network: nn.Module, processes: Processes) -> nn.Module:
    """Puts a :class:`SynchronizedBatchNorm` in the place of every BatchNorm, in place.

    The parameters and buffers stay the same tensors, and so the network, unless it is one
    itself. With one process nothing changes.
    """
    if processes.world_size == 1:
        return network
    if isinstance(network, _BatchNorm) and not isinstance(network, SynchronizedBatchNorm):
        names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
        found = SynchronizedBatchNorm(**{name: getattr(network, name) for name in names})
        # The same tensors: an optimizer made before goes on with them.
        found._parameters, found._buffers = network._parameters, network._buffers
        found.training = network.training
        return found
    for name, part in network.named_children():
        setattr(network, name, synchronize(part, processes))
    return network


class SharedDraws(TorchFunctionMode):
    """Makes dropout and stochastic depth draw for the whole batch and take the rank's rows.

    So the ranks together draw what one process with the whole batch would. Covered are
    ``torch.rand``, ``Tensor.bernoulli_`` and ``torch.nn.functional.dropout``, by which
    torchvision's networks and EfficientNet-Lite0 drop; what draws in another way draws the
    same for every rank's rows. ``share`` is the number of this rank's examples.
    """

    def __init__(self, processes: Processes, share: int) -> None:
        super().__init__()
        self.processes, self.share = processes, share

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called in the place of every torch function inside the block."""
        kwargs = kwargs or {}
        if self.processes.world_size > 1:
            # Only draws of one number a row of this rank's share; others are not of the batch.
            if func is torch.rand and args:
                size = tuple(args[0]) if isinstance(args[0], list | tuple | torch.Size) else args
                if size and size[0] == self.share:
                    return self._mine(func(self._whole(size), **kwargs))
            elif func is Tensor.bernoulli_ and args[0].ndim and len(args[0]) == self.share:
                drawn = args[0].new_empty(self._whole(args[0].shape))
                return args[0].copy_(self._mine(drawn.bernoulli_(*args[1:], **kwargs)))
            elif func is torch.nn.functional.dropout and len(args[0]) == self.share:
                return self._dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _whole(self, size: Any) -> tuple[int, ...]:
        return (self.share * self.processes.world_size, *size[1:])

    def _mine(self, rows: Tensor) -> Tensor:
        start = self.processes.rank * self.share
        return rows[start : start + self.share]

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return input
        # Ones through torch's own dropout: the mask, drawn and scaled as torch does.
        ones = input.new_ones(self._whole(input.shape))
        mask = self._mine(torch.nn.functional.dropout(ones, p, True))
        return input.mul_(mask) if inplace else input * mask
