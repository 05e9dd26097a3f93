"""Lightning: chosen batches as a data module; checkpoints hold the position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from saln._torchvision import torchvision  # noqa: F401 (they import it; see there)
from saln.errors import InputError, MissingExtraError
from saln.integrations.counting import CountingLoader, share_among
from saln.loading.batches import SelectedBatches

try:
    import lightning as lightning  # given on, so that it need not be imported before this
except ImportError as error:
    raise MissingExtraError(
        "saln.integrations.lightning needs the package 'lightning', which is not installed; "
        "run: pip install 'saln[lightning]'"
    ) from error

__all__ = ["ObserveLosses", "SelectedDataModule"]


class SelectedDataModule(lightning.LightningDataModule):
    """Gives a Trainer chosen batches for training.

    Every rank loads its own share of the chosen batch. Lightning leaves the loader alone,
    whatever ``use_distributed_sampler`` is, sets its epoch, and keeps its position
    in every checkpoint, also in the middle of an epoch. Derive from it to add loaders for
    validation and test.

    Args:
        dataset: What the batches name examples of.
        batches: Made for one process.
        num_workers: Of the loader.
        collate_fn: Of the loader; torch's own by default.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: SelectedBatches,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.batches = batches
        self.num_workers = num_workers
        self.collate_fn = collate_fn

    def train_dataloader(self) -> CountingLoader:
        """The chosen batches, of this rank.

        Raises:
            InputError: The ranks cannot share a batch equally.
        """
        if self.trainer is not None:
            share_among(self.batches, self.trainer.global_rank, self.trainer.world_size)
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=self.batches,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            generator=torch.Generator(),  # else the loader draws from the global one
        )
        return CountingLoader(loader, self.batches)


class ObserveLosses(lightning.Callback):
    """Tells a selector that remembers, such as InfoBatch, the losses of what was trained.

    ``training_step`` returns, beside ``loss``, ``indices``, int64 (m,), and ``losses``, (m,),
    one an example. Those of all ranks are brought together.
    """

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Hands the losses on.

        Raises:
            InputError: ``training_step`` returned something else, or the Trainer's data
                module has no chosen batches.
        """
        module = getattr(trainer, "datamodule", None)
        if not isinstance(module, SelectedDataModule):
            raise InputError(
                f"ObserveLosses found a {type(module).__name__} as the Trainer's data module; "
                "give fit() a SelectedDataModule"
            )
        if not isinstance(outputs, dict) or not {"indices", "losses"} <= set(outputs):
            raise InputError(
                "ObserveLosses needs training_step to return a dict with loss, indices and "
                'losses; get losses with reduction="none"'
            )
        indices, losses = outputs["indices"], outputs["losses"].detach()
        if trainer.world_size > 1:
            gathered = [pl_module.all_gather(part) for part in (indices, losses)]
            indices, losses = (torch.as_tensor(part).flatten() for part in gathered)
        module.batches.observe(indices.cpu(), losses.float().cpu())
