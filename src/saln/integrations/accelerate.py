"""Hugging Face Accelerate: chosen batches, shared out once, saved with ``save_state``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from saln.errors import MissingExtraError
from saln.integrations.counting import CountingLoader, chosen_by, share_among

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["prepare"]


def prepare(accelerator: Accelerator, loader: DataLoader[Any]) -> CountingLoader:
    """Prepares a loader as ``accelerator.prepare`` does, for batches that are chosen.

    Every process chooses the global batch and loads its own share of it: nothing is sent,
    and nothing is shared out a second time. Batches go to the accelerator's device. The
    position is saved by ``accelerator.save_state`` and put back by ``load_state``.

    Args:
        accelerator: As made.
        loader: ``DataLoader(dataset, batch_sampler=saln.SelectedBatches(...))``, not prepared.

    Returns:
        Iterate over it in place of the loader, after ``set_epoch``.

    Raises:
        InputError: A loader without SelectedBatches, or ranks that cannot share its batch.
        MissingExtraError: Accelerate is not installed.
    """
    try:
        from accelerate.data_loader import prepare_data_loader
    except ImportError as error:
        raise MissingExtraError(
            "saln.integrations.accelerate needs the package 'accelerate', which is not installed; "
            "run: pip install 'saln[accelerate]'"
        ) from error
    batches = chosen_by(loader)
    share_among(batches, accelerator.process_index, accelerator.num_processes)
    own = prepare_data_loader(  # one process: the shares are ours
        loader,
        device=accelerator.device,
        num_processes=1,
        process_index=0,
        put_on_device=True,
        dispatch_batches=False,
    )
    counting = CountingLoader(own, batches)
    accelerator.register_for_checkpointing(counting)
    return counting
