"""Hugging Face Trainer: a mixin that trains on chosen batches and resumes them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from saln._extras import optional_import
from saln._torchvision import torchvision  # noqa: F401 (they import it; see there)
from saln.errors import DataError, InputError
from saln.files import write_with
from saln.integrations.accelerate import own_shares
from saln.integrations.step_counter import check_dataset
from saln.loading.double_sharding import refuse_double_sharding
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.selected_batches import SelectedBatches

with optional_import("transformers", "saln.integrations.transformers"):
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, seed_worker

# Beside the Trainer's own files in a checkpoint.
_STATE_FILE = "selected_batches.pt"
# The Trainer's arguments dataloader_*, beside the plain ones, that are the DataLoader's.
_LOADER_ARGUMENTS = ("persistent_workers", "prefetch_factor", "multiprocessing_context", "in_order")


class _Resumable(Sampler[list[int]]):
    """Chosen batches, with empty ones in the place of those before a loaded position.

    The Trainer goes on in the middle of an epoch by leaving out the first batches; those
    need not be chosen again.
    """

    def __init__(self, batches: SelectedBatches) -> None:
        self.batches = batches
        self.batch_size = batches.batch_size
        self.drop_last = True
        self.skipped = 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.batches.epoch:
            self.skipped = 0
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return self._after_skipped(iter(self.batches))

    def _after_skipped(self, left: Iterator[list[int]]) -> Iterator[list[int]]:
        # Not in __iter__: a loader with workers asks for two iterators and uses one.
        skipped, self.skipped = self.skipped, 0
        yield from ([] for _ in range(skipped))
        yield from left


def _check_arguments(arguments: Any) -> None:
    """Refuses what is asked of the Trainer's own choice of batches."""
    strategy = getattr(arguments, "train_sampling_strategy", "random")
    grouped = getattr(arguments, "group_by_length", False)  # so it was called before version 5
    if strategy != "random" or grouped:
        name = "group_by_length=True" if grouped else f"train_sampling_strategy={strategy!r}"
        raise InputError(
            f"{name} has the Trainer put the batches together, but SelectedBatches choose them; "
            "leave it out"
        )
    if arguments.ignore_data_skip:
        raise InputError(
            "ignore_data_skip=True would train on an epoch's first batches again; leave it out: "
            "the batches before the position are neither chosen nor loaded anew"
        )


class SelectedTrainerMixin:
    """Put before ``Trainer``: trains on the batches that SelectedBatches choose.

    ::

        class MyTrainer(SelectedTrainerMixin, Trainer): ...

        trainer = MyTrainer(model, arguments, train_dataset=dataset, selected_batches=batches)

    Every process loads its own share of the chosen batch; ``per_device_train_batch_size`` is
    not used. The ``dataloader_*`` arguments that say how to load hold. Checkpoints hold the
    position and what the selector remembers, and ``train(resume_from_checkpoint=...)`` goes on
    with the batches that were left.

    Args:
        *args: Trainer's.
        selected_batches: Made for one process, over the examples of ``train_dataset``.
        **kwargs: Trainer's.

    Raises:
        InputError: The filter ratio has a schedule; ``train_dataset`` has another length than
            what is chosen from; arguments by which the Trainer would choose batches.
    """

    def __init__(self, *args: Any, selected_batches: SelectedBatches, **kwargs: Any) -> None:
        if isinstance(selected_batches.filter_ratio, FilterSchedule):
            raise InputError(
                "the Trainer counts on epochs of one length, but a FilterSchedule changes it; "
                "give SelectedBatches one filter_ratio"
            )
        super().__init__(*args, **kwargs)
        _check_arguments(self.args)  # type: ignore[attr-defined]
        if self.train_dataset is not None:  # type: ignore[attr-defined]
            check_dataset(self.train_dataset, selected_batches)  # type: ignore[attr-defined]
        self.selected_batches = selected_batches
        self._resumable = _Resumable(selected_batches)

    def get_train_dataloader(self: Any) -> DataLoader[Any]:
        """The chosen batches, of this process; raises InputError where it has no equal share."""
        accelerator, arguments = self.accelerator, self.args
        self.selected_batches.share_among(accelerator.process_index, accelerator.num_processes)
        dataset, collate = self.train_dataset, self.data_collator
        check_dataset(dataset, self.selected_batches)
        if hasattr(dataset, "remove_columns"):  # a Hugging Face data set
            dataset = self._remove_unused_columns(dataset, description="training")
        else:
            collate = self._get_collator_with_removed_columns(collate, description="training")
        workers = arguments.dataloader_num_workers
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self._resumable,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=arguments.dataloader_pin_memory and accelerator.device.type == "cuda",
            worker_init_fn=partial(seed_worker, num_workers=workers, rank=arguments.process_index),
            generator=self.selected_batches.generator,
            **{
                name: getattr(arguments, f"dataloader_{name}")
                for name in _LOADER_ARGUMENTS
                if hasattr(arguments, f"dataloader_{name}")  # some came with later versions
            },
        )
        own = own_shares(accelerator, loader)
        refuse_double_sharding(own)
        return own

    def get_batch_samples(self: Any, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The batches of one step, and how many labels they hold.

        Where examples are weighed or have soft targets the Trainer is given none, so it divides the
        loss by the number of accumulated batches, which are all of one size. Else it leaves that
        to any model that takes keyword arguments, whose loss of weighted examples is a mean.
        """
        samples, counted = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        batches = self.selected_batches
        weighs = batches.weights_of(torch.empty(0, dtype=torch.int64)) is not None
        own = weighs or batches.selector.observes_losses or batches.teacher is not None
        return samples, None if own else counted

    def _save_checkpoint(self: Any, model: Any, trial: Any, *args: Any, **kwargs: Any) -> None:
        if self.args.should_save:  # first, so that no checkpoint that can be resumed lacks it
            # Loaders ask ahead: what counts is where the Trainer is.
            batches, state = self.selected_batches, self.state
            content = batches.state_dict(steps=round((state.epoch - batches.epoch) * len(batches)))
            run = Path(self._get_output_dir(trial=trial))
            path = run / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / _STATE_FILE
            write_with(path, lambda temporary: torch.save(content, temporary))
        super()._save_checkpoint(model, trial, *args, **kwargs)  # type: ignore[misc]

    def train(self: Any, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Trainer's ``train``, which also goes on with the batches of the checkpoint.

        Raises:
            InputError: The checkpoint is of other batches.
            DataError: The checkpoint holds no batches.
        """
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder:
            path = Path(str(folder)) / _STATE_FILE
            if not path.exists():
                raise DataError(
                    f"{path} is missing: the checkpoint was saved without SelectedTrainerMixin; "
                    "resume it with the Trainer that saved it, or train from the beginning"
                )
            state = torch.load(path, weights_only=True)
            self.selected_batches.load_state_dict(state)
            self._resumable.skipped = state["step"]
        return super().train(  # type: ignore[misc]
            resume_from_checkpoint=resume_from_checkpoint, **kwargs
        )
