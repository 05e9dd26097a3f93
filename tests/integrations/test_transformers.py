"""Against the real library: a Trainer's batches, stopped in an epoch and gone on with."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import torch
import transformers
from resume_processes import EPOCHS, Own, Positions, sampler, train
from torch import nn

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
