"""Lightning: chosen batches as a data module; checkpoints hold the position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

from torch.utils.data import DataLoader, Dataset

from saln._extras import optional_import
from saln._torchvision import torchvision  # noqa: F401 (they import it; see there)
from saln.errors import InputError
from saln.integrations.step_counter import CountingLoader, check_dataset
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.selected_batches import SelectedBatches

with optional_import("lightning", "saln.integrations.lightning"):
    import lightning as lightning  # given on, so that it need not be imported before this

# What the loader gets from the batches, or does not need beside them.
_DECIDED_BY_BATCHES = ("batch_size", "batch_sampler", "sampler", "shuffle", "drop_last")


class SelectedDataModule(lightning.LightningDataModule):
    """Gives a Trainer chosen batches for training.

    Every rank loads its own share of the chosen batch. Lightning leaves the loader alone,
    whatever ``use_distributed_sampler`` is, sets its epoch, and keeps its position
    in every checkpoint, also in the middle of an epoch. Derive from it to add loaders for
    validation and test.

    Where the filter ratio is a schedule, epochs differ in length, but a Trainer reads the length
    of a loader once. So the Trainer asks for its loaders anew in every epoch
    (``reload_dataloaders_every_n_epochs=1``).

    Args:
        dataset: What the batches name examples of.
        batches: Made for one process.
        num_workers: Of the loader.
        collate_fn: Of the loader; torch's own by default.
        **options: Whatever else torch's DataLoader takes: ``pin_memory``,
            ``persistent_workers``, ``prefetch_factor``, ``worker_init_fn``, ...

    Raises:
        InputError: A data set of another length; an argument of the DataLoader that the
            batches decide.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: SelectedBatches,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        refused = [name for name in _DECIDED_BY_BATCHES if name in options]
        if refused:
            raise InputError(
                f"{', '.join(refused)} cannot be given to SelectedDataModule: the batches decide "
                "it; give it to SelectedBatches, or leave it out"
            )
        check_dataset(dataset, batches)
        self.dataset = dataset
        self.batches = batches
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.options = options
        self._counting: _Loader | None = None

    def train_dataloader(self) -> CountingLoader:
        """The chosen batches, of this rank.

        Raises:
            InputError: The ranks cannot share a batch equally.
        """
        trainer = self.trainer
        if trainer is not None:
            self.batches.share_among(trainer.global_rank, trainer.world_size)
            self.batches.set_epoch(trainer.current_epoch)  # its length is asked for next
            if isinstance(self.batches.filter_ratio, FilterSchedule):
                trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=self.batches,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            **{"generator": self.batches.generator} | self.options,
        )
        self._counting = _Loader(loader, self.batches)
        if trainer is not None and trainer.overfit_batches > 0:  # type: ignore[attr-defined]
            self._counting.moves = False
        return self._counting

    def state_dict(self) -> dict[str, Any]:
        """What the selector remembers, and the epoch."""
        return {} if self._counting is None else self._counting.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint.

        Raises:
            InputError: It is of batches with other settings.
        """
        if state_dict:
            self.batches.load_state_dict(state_dict)
            # A position in an epoch is the loader's to put back: Lightning does that where it
            # goes on within an epoch, and only there.
            self.batches.set_epoch(int(state_dict["epoch"]) + 1)


class _Loader(CountingLoader):
    moves = True  # from epoch to epoch; not to overfit on some batches

    @property
    def sampler(self) -> Self:
        """Where Lightning looks for ``set_epoch``, and to overfit for a shuffling to turn off."""
        if not self.moves:
            raise AttributeError("sampler")
        return self

    def __iter__(self) -> Iterator[Any]:
        if not self.moves:
            self.batches.set_epoch(self.batches.epoch)  # the same again, and so meant
        return super().__iter__()

    @property
    def worker_init_fn(self) -> Any:
        """The loader's; ``seed_everything(workers=True)`` sets it."""
        return self._loader.worker_init_fn

    @worker_init_fn.setter
    def worker_init_fn(self, function: Any) -> None:
        self._loader.worker_init_fn = function


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
        module.batches.observe(outputs["indices"], outputs["losses"].detach())
