"""Hugging Face Accelerate: chosen batches, shared out once, saved with ``save_state``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch.utils.data import DataLoader

from saln._extras import optional_import
from saln.errors import InputError
from saln.integrations.step_counter import CountingLoader, chosen_by

if TYPE_CHECKING:
    from accelerate import Accelerator

    from saln.loading.selected_batches import SelectedBatches
    from saln.loading.selected_stream import SelectedStream


def prepare(accelerator: Accelerator, loader: DataLoader[Any]) -> PreparedLoader:
    """Prepares a loader as ``accelerator.prepare`` does, for batches that are chosen.

    Every process chooses the global batch and loads its own share of it: nothing is sent,
    and nothing is shared out a second time. Batches go to the accelerator's device. The
    position is saved by ``accelerator.save_state`` and put back by ``load_state``. Workers are
    seeded by the batches' seed and epoch, unless the loader has a seeded generator of its own.

    Args:
        accelerator: As made.
        loader: Not prepared: ``DataLoader(dataset, batch_sampler=saln.SelectedBatches(...))``
            or ``DataLoader(saln.SelectedStream(...), batch_size=None)``.

    Returns:
        Iterate over it in place of the loader, after ``set_epoch``.

    Raises:
        InputError: A loader without chosen batches or with a data set of another length;
            ranks that cannot share its batch; an Accelerator with ``dispatch_batches=True``.
        MissingExtraError: Accelerate is not installed.
    """
    batches = chosen_by(loader)
    batches.share_among(accelerator.process_index, accelerator.num_processes)
    own: Any = own_shares(accelerator, loader)
    own_generator = loader.generator
    # One that nobody seeded has the same seed in every run.
    if own_generator is None or own_generator.initial_seed() == torch.Generator().initial_seed():
        own.base_dataloader.generator = batches.generator
    prepared = PreparedLoader(own, batches)
    accelerator.register_for_checkpointing(prepared)
    return prepared


def own_shares(accelerator: Accelerator, loader: DataLoader[Any]) -> DataLoader[Any]:
    """Accelerate's loader around one that gives every process its share already."""
    with optional_import("accelerate", "saln.integrations.accelerate"):
        from accelerate.data_loader import prepare_data_loader
    if accelerator.dispatch_batches:
        raise InputError(
            "dispatch_batches=True has the first process load for all, but every process loads "
            "its own share of a chosen batch; leave dispatch_batches out"
        )
    own: Any = prepare_data_loader(  # one process: the shares are ours
        loader,
        device=accelerator.device,
        num_processes=1,
        process_index=0,
        put_on_device=accelerator.device_placement,
        dispatch_batches=False,
        non_blocking=accelerator.non_blocking,
    )
    # Else gather_for_metrics takes the last batch for one that was filled up, and cuts it.
    own._drop_last = True
    result: DataLoader[Any] = own
    return result


def _refuse_rebuilding(loader: PreparedLoader) -> NoReturn:
    """Refused."""
    raise InputError(
        "skip_first_batches, and whatever else builds another loader from this one, would lose "
        "the position; after load_state there is nothing to skip, else call skip(steps) of the "
        "loader that saln.integrations.accelerate.prepare gave"
    )


class PreparedLoader(CountingLoader):
    """What :func:`prepare` gives."""

    # accelerate.skip_first_batches reads these, or is given the first, to build another loader,
    # which would neither count what it gives nor be saved.
    loader = batch_sampler = drop_last = property(_refuse_rebuilding)

    @property
    def dataset(self) -> Any:
        """The loader's."""
        return self._loader.dataset

    @property
    def sampler(self) -> SelectedBatches | SelectedStream:
        """What chooses."""
        return self.batches

    def skip(self, steps: int) -> None:
        """Leaves out the first batches of the current epoch, for those who count by themselves.

        That is, as many steps as were trained on; InputError for more than the epoch has. After
        ``load_state`` there is nothing to leave out: it goes on where ``save_state`` was.
        """
        self.load_state_dict(self.batches.state_dict(steps=steps))
