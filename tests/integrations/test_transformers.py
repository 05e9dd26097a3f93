"""Against the real library: a Trainer's batches, stopped in an epoch and gone on with."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import torch
import transformers
from helpers.resume_processes import EPOCHS, Own, Positions, sampler, train
from torch import nn
from torch.utils.data import Subset

from saln.errors import DataError, InputError
from saln.integrations.transformers import SelectedTrainerMixin
from saln.randomness import seeded_globally


class SelectedTrainer(SelectedTrainerMixin, transformers.Trainer):
    pass


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        with seeded_globally("model"):
            self.network = nn.Linear(1, 1)
        self.seen = []

    def forward(self, position):
        self.seen.append(position.tolist())
        return {"loss": self.network(position.float()[:, None]).square().mean()}


@contextlib.contextmanager
def untouched_generators():
    before, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with seeded_globally("trainer"):
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
        random.setstate(python)


def made(folder, *, dataset=None, **options):
    """A Trainer that is not trained."""
    with untouched_generators():
        arguments = transformers.TrainingArguments(
            str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **options
        )
        return SelectedTrainer(
            Model(),
            arguments,
            train_dataset=Positions() if dataset is None else dataset,
            data_collator=lambda items: {"position": torch.tensor(items)},
            selected_batches=sampler("saln"),
        )


def fit(folder, name, *, steps=-1, checkpoint=None):
    model = Model()
    with untouched_generators():  # the Trainer seeds the global ones
        arguments = transformers.TrainingArguments(
            str(folder),
            num_train_epochs=EPOCHS,
            max_steps=steps,
            save_steps=1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = SelectedTrainer(
            model,
            arguments,
            train_dataset=Positions(),
            data_collator=lambda items: {"position": torch.tensor(items)},
            selected_batches=sampler(name),
        )
        trainer.train(resume_from_checkpoint=checkpoint)
    return model.seen


@pytest.mark.parametrize(("name", "steps"), [("saln", 4), ("rs2", 8), ("uniform", 6)])
def test_a_checkpoint_goes_on_with_the_batches_that_were_left(tmp_path, name, steps):
    whole = train(Own(name, None), range(EPOCHS))
    seen = fit(tmp_path, name)
    assert seen == whole
    rest = fit(tmp_path, name, checkpoint=str(tmp_path / f"checkpoint-{steps}"))
    assert rest == whole[steps:]


def test_what_says_how_to_load_is_passed_on(tmp_path):
    trainer = made(
        tmp_path,
        dataloader_num_workers=2,
        dataloader_persistent_workers=True,
        dataloader_prefetch_factor=5,
    )
    loader = trainer.get_train_dataloader()
    assert loader.num_workers == 2
    assert loader.persistent_workers
    assert loader.prefetch_factor == 5
    assert loader.generator is trainer.selected_batches.generator
    assert loader.worker_init_fn.func is transformers.trainer_utils.seed_worker
    assert loader.worker_init_fn.keywords == {"num_workers": 2, "rank": 0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train_sampling_strategy": "group_by_length"}, "'group_by_length' has the Trainer put"),
        ({"train_sampling_strategy": "sequential"}, "'sequential' has the Trainer put"),
        ({"ignore_data_skip": True}, "ignore_data_skip=True would train on an epoch's first"),
    ],
)
def test_what_the_batches_decide_is_refused(tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        made(tmp_path, **options)


def test_a_data_set_of_another_length_is_refused(tmp_path):
    with pytest.raises(InputError, match="has 20 examples, but 90 are chosen from"):
        made(tmp_path, dataset=Subset(Positions(), range(20)))
    trainer = made(tmp_path)
    trainer.train_dataset = Subset(Positions(), range(20))  # as some scripts set it later
    with pytest.raises(InputError, match="has 20 examples, but 90 are chosen from"):
        trainer.get_train_dataloader()


def test_a_checkpoint_of_another_trainer_is_refused(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(DataError, match="was saved without SelectedTrainerMixin; resume it with"):
        made(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
