"""Looks after chosen batches that a Lightning Trainer was given in a plain DataLoader.

Lightning asks every installed package for callbacks, so this is imported by each Trainer where
SALN is installed: it loads nothing else of SALN, and does nothing where nobody chooses batches.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import lightning
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

if TYPE_CHECKING:
    from saln.loading.selected_batches import SelectedBatches
    from saln.loading.selected_stream import SelectedStream


class PlainLoaders(lightning.Callback):
    """Refuses what chosen batches in a plain loader cannot have, and sets the epoch of streams.

    The position of such a loader is in no checkpoint, and a Trainer reads the length of its
    epochs once.
    """

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Refuses to go on from a checkpoint, and a schedule of the filter ratio."""
        for chooser in _choosers(trainer):
            _refuse(chooser, resumed=trainer.ckpt_path is not None)

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Sets the epoch of streams; Lightning sets that of samplers alone."""
        for chooser in _choosers(trainer):
            if isinstance(chooser, IterableDataset):
                chooser.set_epoch(trainer.current_epoch)


def _choosers(trainer: lightning.Trainer) -> list[SelectedBatches | SelectedStream]:
    # Chosen batches can be here only if somebody has imported them.
    if "saln.loading.selected_batches" not in sys.modules:
        return []
    from saln.loading.selected_batches import SelectedBatches
    from saln.loading.selected_stream import SelectedStream

    # A Trainer takes a loader, or lists and dicts of them.
    loaders = CombinedLoader(trainer.train_dataloader).flattened
    plain = [loader for loader in loaders if isinstance(loader, DataLoader)]
    parts = [part for loader in plain for part in (loader.batch_sampler, loader.dataset)]
    return [part for part in parts if isinstance(part, SelectedBatches | SelectedStream)]


def _refuse(chooser: SelectedBatches | SelectedStream, *, resumed: bool) -> None:
    from saln.errors import InputError
    from saln.loading.filter_schedule import FilterSchedule
    from saln.loading.selected_batches import SelectedBatches

    batches = chooser if isinstance(chooser, SelectedBatches) else None
    cure = (
        "train from the beginning, or in a loop of your own, as docs/resume.md says"
        if batches is None
        else "give fit() saln.integrations.lightning.SelectedDataModule(dataset, batches)"
    )
    if resumed:
        raise InputError(
            f"{type(chooser).__name__} in a loader of your own cannot go on from a checkpoint: "
            f"Lightning's holds no position of it to rely on; {cure}"
        )
    if batches is not None and isinstance(batches.filter_ratio, FilterSchedule):
        raise InputError(
            "a FilterSchedule changes the length of the epochs, which Lightning reads once from a "
            f"plain DataLoader; {cure}"
        )


def every_trainers_callbacks() -> list[lightning.Callback]:
    """What Lightning adds to every Trainer; see the entry points in pyproject.toml."""
    return [PlainLoaders()]
