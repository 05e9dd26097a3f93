"""Hugging Face Trainer: a mixin that trains on chosen batches and resumes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from saln._torchvision import torchvision  # noqa: F401 (they import it; see there)
from saln.errors import DataError, InputError, MissingExtraError
from saln.files import write_with
from saln.integrations.counting import share_among
from saln.loading.batches import SelectedBatches
from saln.loading.schedules import FilterSchedule
from saln.loading.sharding import refuse_double_sharding

try:
    from accelerate.data_loader import prepare_data_loader
    from transformers import TrainerCallback
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
except ImportError as error:
    raise MissingExtraError(
        "saln.integrations.transformers needs the package 'transformers', which is not installed; "
        "run: pip install 'saln[transformers]'"
    ) from error

__all__ = ["SelectedTrainerMixin"]

# Beside the Trainer's own files in a checkpoint.
_FILE = "selected_batches.pt"


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
        skipped, self.skipped = self.skipped, 0
        yield from ([] for _ in range(skipped))
        yield from self.batches


class _Save(TrainerCallback):
    def __init__(self, batches: SelectedBatches) -> None:
        self.batches = batches

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        # Loaders ask ahead: what counts is where the Trainer is.
        steps = round((state.epoch - self.batches.epoch) * len(self.batches))
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        content = self.batches.state_dict(steps=steps)
        write_with(folder / _FILE, lambda path: torch.save(content, path))


class SelectedTrainerMixin:
    """Put before ``Trainer``: trains on the batches that SelectedBatches choose.

    ::

        class MyTrainer(SelectedTrainerMixin, Trainer): ...

        trainer = MyTrainer(model, arguments, train_dataset=dataset, selected_batches=batches)

    Every process loads its own share of the chosen batch; ``per_device_train_batch_size`` is
    not used. Checkpoints hold the position and what the selector remembers, and
    ``train(resume_from_checkpoint=...)`` goes on with the batches that were left.

    Args:
        *args: Trainer's.
        selected_batches: Made for one process, over the examples of ``train_dataset``.
        **kwargs: Trainer's.

    Raises:
        InputError: The filter ratio has a schedule.
    """

    def __init__(self, *args: Any, selected_batches: SelectedBatches, **kwargs: Any) -> None:
        if isinstance(selected_batches.filter_ratio, FilterSchedule):
            raise InputError(
                "the Trainer counts on epochs of one length, but a FilterSchedule changes it; "
                "give SelectedBatches one filter_ratio"
            )
        super().__init__(*args, **kwargs)
        self.selected_batches = selected_batches
        self._resumable = _Resumable(selected_batches)
        self.add_callback(_Save(selected_batches))  # type: ignore[attr-defined]

    def get_train_dataloader(self: Any) -> DataLoader[Any]:
        """The chosen batches, of this process.

        Raises:
            InputError: The processes cannot share a batch equally.
        """
        accelerator = self.accelerator
        share_among(self.selected_batches, accelerator.process_index, accelerator.num_processes)
        dataset = self.train_dataset
        if hasattr(dataset, "remove_columns"):  # a Hugging Face data set
            dataset = self._remove_unused_columns(dataset, description="training")
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self._resumable,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and accelerator.device.type == "cuda",
            generator=torch.Generator(),  # else the loader draws from the global one
        )
        own: DataLoader[Any] = prepare_data_loader(  # one process: the shares are ours
            loader,
            device=accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
        )
        refuse_double_sharding(own)
        return own

    def train(self: Any, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Trainer's ``train``, which also goes on with the batches of the checkpoint.

        Raises:
            InputError: The checkpoint is of other batches.
            DataError: The checkpoint holds no batches.
        """
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)  # type: ignore[no-untyped-call]
        if folder:
            path = Path(str(folder)) / _FILE
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
