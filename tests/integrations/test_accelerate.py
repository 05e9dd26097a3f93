"""Against the real library: what `prepare` passes on, and what is refused in a line."""

from __future__ import annotations

import functools

import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from helpers import cell_processes as cells
from torch.utils.data import DataLoader, Subset, TensorDataset

import saln
from saln.errors import InputError
from saln.integrations.accelerate import prepare

MAP_STYLE = TensorDataset(torch.arange(cells.N))


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def loader(batches, dataset=MAP_STYLE, **options):
    options.setdefault("generator", torch.Generator())
    return DataLoader(dataset, batch_sampler=batches, **options)


def given(loader):
    return [batch.tolist() for (batch,) in loader]


@functools.cache
def reference(**settings):
    return cells.reference(**settings)


def test_what_says_how_to_load_is_passed_on(accelerator):
    own = torch.Generator().manual_seed(5)
    options = {
        "num_workers": 2,
        "persistent_workers": True,
        "prefetch_factor": 5,
        "worker_init_fn": print,
        "timeout": 7,
        "collate_fn": torch.utils.data.default_collate,
        "pin_memory": True,
    }
    inner = prepare(accelerator, loader(cells.chosen(), generator=own, **options))._loader
    for name, value in options.items():
        assert getattr(inner, name) == value, name
    assert inner.generator is own


def test_a_generator_that_nobody_seeded_gives_way_to_the_batches(accelerator):
    for generator in (None, torch.Generator()):
        batches = cells.chosen()
        inner = prepare(accelerator, loader(batches, generator=generator))._loader
        assert inner.generator is batches.generator


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (Subset(MAP_STYLE, range(20)), "the data set has 20 examples, but 50 are chosen from"),
        (TensorDataset(torch.arange(51)), "the data set has 51 examples, but 50 are chosen from"),
    ],
)
def test_a_data_set_of_another_length_is_refused(accelerator, dataset, said):
    with pytest.raises(InputError, match=said):
        prepare(accelerator, loader(cells.chosen(), dataset))


def test_a_loader_without_chosen_batches_is_refused(accelerator):
    with pytest.raises(InputError, match="batch_sampler is a BatchSampler; give DataLoader"):
        prepare(accelerator, DataLoader(MAP_STYLE, batch_size=4))


def test_a_stream_of_single_samples_is_refused(accelerator):
    with pytest.raises(InputError, match="give DataLoader\\(stream, batch_size=None\\)"):
        prepare(accelerator, DataLoader(cells.streamed(), batch_size=4))


def test_dispatching_from_the_first_process_is_refused():
    accelerator = Accelerator(
        cpu=True, dataloader_config=_configuration(dispatch_batches=True, split_batches=False)
    )
    with pytest.raises(InputError, match="leave dispatch_batches out"):
        prepare(accelerator, loader(cells.chosen()))


def _configuration(**options):
    from accelerate import DataLoaderConfiguration

    return DataLoaderConfiguration(**options)


@pytest.mark.parametrize("prepare", [prepare, Accelerator.prepare])
def test_the_last_batch_is_gathered_whole(accelerator, prepare):
    # 50 examples in batches of 4: Accelerate takes the last for one of 2.
    assert cells.N % cells.SIZE
    prepared = prepare(accelerator, loader(cells.chosen()))
    gathered = [accelerator.gather_for_metrics(batch).tolist() for (batch,) in prepared]
    assert gathered == reference()[0]


def test_skipping_is_refused_with_the_cure_and_the_cure_works(accelerator):
    prepared = prepare(accelerator, loader(cells.chosen()))
    prepared.set_epoch(1)
    with pytest.raises(InputError, match=r"after load_state there is nothing to skip.* skip\("):
        skip_first_batches(prepared, 4)
    prepared.skip(4)
    assert given(prepared) == reference()[1][4:]
    prepared.set_epoch(2)
    assert given(prepared) == reference()[2]


def test_a_break_ends_an_epoch(accelerator):
    prepared = prepare(accelerator, loader(cells.chosen()))
    for _ in prepared:
        break
    prepared.set_epoch(1)
    assert given(prepared) == reference()[1]


def test_its_own_prepare_goes_by_the_epochs_of_its_loader(accelerator):
    prepared = accelerator.prepare(loader(cells.chosen()))
    prepared.set_epoch(1)
    assert given(skip_first_batches(prepared, 4)) == reference()[1][4:]
    prepared.set_epoch(2)
    assert given(prepared) == reference()[2]


def test_its_own_prepare_does_not_undo_an_epoch(accelerator):
    batches = cells.chosen()
    prepared = accelerator.prepare(loader(batches))
    batches.set_epoch(2)
    for _ in range(2):  # whoever catches it and tries again is told again
        with pytest.raises(InputError, match=r"are to go on in epoch 2, but .* is in epoch 0"):
            given(prepared)
    prepared.set_epoch(2)
    assert given(prepared) == reference()[2]


def test_its_own_prepare_does_not_undo_a_position(accelerator):
    batches = cells.chosen()
    prepared = accelerator.prepare(loader(batches))
    batches.load_state_dict(batches.state_dict() | {"epoch": 1, "step": 4})
    for loading in (prepared, skip_first_batches(prepared, 1)):
        with pytest.raises(InputError, match=r"are to go on in epoch 1, but .* is in epoch 0"):
            given(loading)
    prepared.set_epoch(1)
    assert given(prepared) == reference()[1][4:]


def test_its_own_prepare_of_a_stream_is_refused(accelerator):
    prepared = accelerator.prepare(DataLoader(cells.streamed(), batch_size=None))
    with pytest.raises(InputError, match=r"use\s+saln.integrations.accelerate.prepare"):
        next(iter(prepared))


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata 0.11
def test_a_stateful_loader_keeps_the_position_under_its_own_prepare(tmp_path):
    configuration = _configuration(use_stateful_dataloader=True)
    prepared = []
    for _ in range(2):
        accelerator = Accelerator(cpu=True, dataloader_config=configuration)
        prepared.append((accelerator, accelerator.prepare(loader(cells.chosen()))))
    (first, before), (second, after) = prepared
    before.set_epoch(1)
    seen = []
    for (batch,) in before:
        seen.append(batch.tolist())
        if len(seen) == 4:
            first.save_state(str(tmp_path), safe_serialization=False)
            break
    second.load_state(str(tmp_path))
    after.set_epoch(1)
    assert seen + given(after) == reference()[1]
    after.set_epoch(2)
    assert given(after) == reference()[2]


def test_ranks_that_cannot_share_a_batch_are_refused(accelerator):
    batches = saln.SelectedBatches(
        cells.FEATURES, selector=saln.SALN(), batch_size=3, filter_ratio=0.5, seed=0
    )
    assert len(prepare(accelerator, loader(batches))) == len(batches)
    with pytest.raises(InputError, match="a batch of 3 cannot be shared equally by 2 ranks"):
        batches.share_among(0, 2)
