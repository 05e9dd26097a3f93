"""Training through each front end, in one process or several: what every step was trained on.

``python cell_processes.py FOLDER`` makes every run of the table in test_cells.py, of this rank
of the processes that the environment speaks of, and writes what came of it as JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import sys
import traceback
import warnings
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

import saln
from saln.distributed import wait_before_forks
from saln.errors import SalnError

IMPORTED = (
    "saln.integrations.accelerate", "saln.integrations.lightning", "saln.integrations.transformers",
    "transformers.trainer", "accelerate.checkpointing",
)  # fmt: skip
N, SIZE, EPOCHS = 50, 4, 3
SEED = 7
SCHEDULE = saln.FilterSchedule(start=0.75, end=0.5, epochs=EPOCHS)  # 3, 4 and 6 steps
FEATURES = np.random.Generator(np.random.PCG64(1)).random((N, 5), dtype=np.float32)
KEYS = [f"text key {row}" for row in range(N)]
# No workers; two; two that outlive an epoch and look further ahead.
WORKERS = {
    "0": {},
    "2": {"num_workers": 2},
    "2, persistent": {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 3},
}
# Read at once: Lightning takes them away.
RANK, WORLD_SIZE = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE"))
SELECTORS = {"saln": saln.SALN, "infobatch": saln.InfoBatch}


class Positions(Dataset):
    """Each example is its own position, and what augmentation would draw in a worker."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        drawn = [0, 0, 0]
        if get_worker_info() is not None:
            drawn = [
                int(torch.randint(2**31, ())),
                int(np.random.randint(2**31)),  # noqa: NPY002
                random.getrandbits(31),
            ]
        return torch.tensor([index, *drawn])


def chosen(*, selector="saln", ratio=0.5, seed=SEED, **ranks):
    return saln.SelectedBatches(
        FEATURES,
        selector=SELECTORS[selector](),
        batch_size=SIZE,
        filter_ratio=SCHEDULE if ratio == "schedule" else ratio,
        seed=seed,
        **ranks,
    )


def losses_of(indices, epoch):
    """What a selector is told: anything that differs from epoch to epoch."""
    return (indices * (epoch + 2)) % 11 / 7


def reference(**settings):
    """The batches of every epoch, from the sampler alone: no loader, no library."""
    batches = chosen(**settings)
    epochs = []
    for epoch in range(EPOCHS):
        batches.set_epoch(epoch)
        seen = []
        for kept in batches:
            seen.append(kept)
            batches.observe(torch.tensor(kept), losses_of(torch.tensor(kept), epoch))
        epochs.append(seen)
    return epochs


class Seen:
    """What a run was trained on, step by step; as JSON."""

    def __init__(self):
        self.epochs, self.indices, self.drawn = [], [], []

    def add(self, epoch, rows):
        self.epochs.append(epoch)
        self.indices.append(rows[:, 0].tolist())
        self.drawn.append(rows[:, 1:].tolist())


def tell(batches, epoch, rows):
    batches.observe(rows[:, 0], losses_of(rows[:, 0], epoch))


def save(accelerator, place, epoch):
    if int(place.name) in SAVED:
        accelerator.save_state(str(place))
        (place / "epoch").write_text(str(epoch))


def accelerate_prepared(batches, folder, *, resume, **loading):
    """A loop with the loader that SALN prepares; saved at every step."""
    from accelerate import Accelerator

    from saln.integrations.accelerate import prepare

    accelerator, seen = Accelerator(cpu=True), Seen()
    loader = prepare(accelerator, DataLoader(Positions(), batch_sampler=batches, **loading))
    begin = 0
    if resume is not None:
        accelerator.load_state(str(resume))
        begin = int((resume / "epoch").read_text())
    step = 0 if resume is None else int(resume.name)
    for epoch in range(begin, EPOCHS):
        loader.set_epoch(epoch)
        for rows in loader:
            seen.add(epoch, rows)
            tell(batches, epoch, rows)
            gathered = accelerator.gather_for_metrics(rows[:, 0].contiguous())
            assert len(gathered) == SIZE, "gather_for_metrics cut a batch"
            step += 1
            save(accelerator, folder / str(step), epoch)
    return seen


def accelerate_plain(batches, folder, *, resume, **loading):
    """A loop with Accelerate's own prepare, the sampler's state saved by hand."""
    from accelerate import Accelerator

    accelerator, seen = Accelerator(cpu=True), Seen()
    loading.setdefault("generator", batches.generator)
    loader = accelerator.prepare(DataLoader(Positions(), batch_sampler=batches, **loading))
    begin, step, start = 0, 0, 0
    if resume is not None:
        state = torch.load(resume, weights_only=True)
        batches.load_state_dict(state)
        begin, start, step = state["epoch"], state["step"], int(resume.name)
    for epoch in range(begin, EPOCHS):
        loader.set_epoch(epoch)
        trained = start if epoch == begin else 0
        for rows in loader:
            seen.add(epoch, rows)
            tell(batches, epoch, rows)
            step += 1
            trained += 1
            torch.save(batches.state_dict(steps=trained), folder / str(step))
    return seen


def accelerate_counting(batches, folder, *, resume, **loading):
    """Accelerate's own prepare, and nobody sets an epoch: it counts them."""
    from accelerate import Accelerator

    accelerator, seen = Accelerator(cpu=True), Seen()
    loader = accelerator.prepare(DataLoader(Positions(), batch_sampler=batches, **loading))
    if resume is not None:
        batches.load_state_dict(batches.state_dict() | {"epoch": 1, "step": 2})
    for epoch in range(EPOCHS):
        for rows in loader:
            seen.add(epoch, rows)
            tell(batches, epoch, rows)
    return seen


def _module(batches):
    from saln.integrations.lightning import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.Linear(1, 1)
            self.seen = Seen()

        def training_step(self, rows, batch_idx):
            self.seen.add(self.current_epoch, rows)
            loss = self.network(rows[:, :1].float())[:, 0].square()
            told = losses_of(rows[:, 0], self.current_epoch)
            return {"loss": loss.mean(), "losses": told, "indices": rows[:, 0].contiguous()}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    return Module()


def _lightning_trainer(folder, *callbacks, **options):
    from saln.integrations.lightning import lightning
    from saln.integrations.lightning_plain import every_trainers_callbacks

    if "saln" not in entry_points(group="lightning.pytorch.callbacks_factory").names:
        callbacks = (*callbacks, *every_trainers_callbacks())  # installed before it was one

    class Saver(lightning.pytorch.callbacks.ModelCheckpoint):
        """At the steps that others go on from: a checkpoint takes longer than a step."""

        def on_train_batch_end(self, trainer, *rest):
            if trainer.global_step in SAVED:
                super().on_train_batch_end(trainer, *rest)

    saver = Saver(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    if WORLD_SIZE:
        options = {"strategy": "ddp", "devices": WORLD_SIZE} | options
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, saver],
        **options,
    )


def lightning_module(batches, folder, *, resume, **loading):
    """A Trainer with the data module."""
    from saln.integrations.lightning import ObserveLosses, SelectedDataModule

    module = _module(batches)
    trainer = _lightning_trainer(folder, ObserveLosses())
    checkpoint = None if resume is None else str(resume.parent / f"step={resume.name}.ckpt")
    trainer.fit(module, SelectedDataModule(Positions(), batches, **loading), ckpt_path=checkpoint)
    return module.seen


def lightning_plain(batches, folder, *, resume, shares=True, **loading):
    """A Trainer with a plain loader."""
    module = _module(batches)
    loading.setdefault("generator", batches.generator)
    loader = DataLoader(Positions(), batch_sampler=batches, **loading)
    checkpoint = None if resume is None else str(resume.parent / f"step={resume.name}.ckpt")
    trainer = _lightning_trainer(folder, use_distributed_sampler=shares)
    trainer.fit(module, loader, ckpt_path=checkpoint)
    return module.seen


def lightning_own_shares(batches, folder, **settings):
    """A Trainer that is told not to share out, with a plain loader."""
    return lightning_plain(batches, folder, shares=False, **settings)


def transformers_mixin(batches, folder, *, resume, **loading):
    """A Hugging Face Trainer with the mixin."""
    import transformers

    from saln.integrations.transformers import SelectedTrainerMixin

    transformers.logging.set_verbosity_error()

    class Trainer(SelectedTrainerMixin, transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            rows = inputs["rows"]
            epoch = int(self.state.epoch)
            seen.add(epoch, rows)
            tell(batches, epoch, rows)
            loss = model(rows)["loss"]
            return (loss, {}) if return_outputs else loss

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.Linear(1, 1)

        def forward(self, rows):
            return {"loss": self.network(rows[:, :1].float()).square().mean()}

    class Saver(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            control.should_save = state.global_step in SAVED

    seen = Seen()
    options = {f"dataloader_{name}": value for name, value in loading.items()}
    arguments = transformers.TrainingArguments(
        str(folder),
        num_train_epochs=EPOCHS,
        save_strategy="no",  # but by the callback
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        learning_rate=1e-6,
        **options,
    )
    trainer = Trainer(
        Model(),
        arguments,
        train_dataset=Positions(),
        data_collator=lambda rows: {"rows": torch.stack(rows)},
        selected_batches=batches,
        callbacks=[Saver()],
    )
    checkpoint = None if resume is None else str(resume.parent / f"checkpoint-{resume.name}")
    trainer.train(resume_from_checkpoint=checkpoint)
    return seen


def accelerate_stream(stream, folder, *, resume, **loading):
    """A stream of samples with text keys, prepared by SALN; saved at every step."""
    from accelerate import Accelerator

    from saln.integrations.accelerate import prepare

    accelerator, seen = Accelerator(cpu=True), Seen()
    loader = prepare(accelerator, DataLoader(stream, batch_size=None, **loading))
    begin = 0
    if resume is not None:
        accelerator.load_state(str(resume))
        begin = int((resume / "epoch").read_text())
    step = 0 if resume is None else int(resume.name)
    for epoch in range(begin, EPOCHS):
        loader.set_epoch(epoch)
        for batch in loader:
            assert batch.keys == [KEYS[row] for row in batch.indices]
            seen.add(epoch, batch.samples)
            step += 1
            save(accelerator, folder / str(step), epoch)
    return seen


def streamed(*, seed=SEED, ratio=0.5, selector="saln"):
    return saln.SelectedStream(
        [(key, row) for row, key in enumerate(KEYS)],
        features=FEATURES,
        keys=KEYS,
        selector=SELECTORS[selector](),
        batch_size=SIZE,
        filter_ratio=SCHEDULE if ratio == "schedule" else ratio,
        seed=seed,
        shuffle_buffer=20,
        decode=Positions().__getitem__,
        collate=torch.stack,
    )


def stream_reference(**settings):
    """The batches of every epoch of the stream, in one process without a loader."""
    stream, epochs = streamed(**settings), []
    for epoch in range(EPOCHS):
        stream.set_epoch(epoch)
        epochs.append([batch.indices.tolist() for batch in stream])
    return epochs


FRONTS = {
    "Accelerate": accelerate_prepared,
    "Accelerate, stream": accelerate_stream,
    "Accelerate's own prepare": accelerate_plain,
    "Accelerate's own prepare, its epochs": accelerate_counting,
    "Lightning": lightning_module,
    "Lightning, plain loader": lightning_plain,
    "Lightning, plain loader, own shares": lightning_own_shares,
    "Transformers": transformers_mixin,
}
# Whose checkpoints hold the position.
RESUMING = ("Accelerate", "Accelerate, stream", "Lightning", "Transformers")
# The position is saved by hand.
BY_HAND = "Accelerate's own prepare"
# With one process there is nothing to share out.
OWN_SHARES = "Lightning, plain loader, own shares"
# What shares batches out among ranks by itself, and is refused where there are several.
SHARING = (BY_HAND, "Accelerate's own prepare, its epochs", "Lightning, plain loader")
# Of the epochs' 6, 6 and 6 steps: in the middle of one, twice, and at its end; of 3, 4 and 6.
MIDDLE, LATER, END, MIDDLE_OF_SCHEDULE = 8, 10, 6, 5
SAVED = {END, MIDDLE, LATER, MIDDLE_OF_SCHEDULE}


def table(front, workers, ranks):
    """The runs of a front end: a name, settings of the batches, and where to go on from.

    All of Accelerate, which is the fastest. Of the others every pair of front end, workers, ranks
    and what happens: all that can happen with two workers in one process and with none in two;
    else a run that is left alone and one that goes on.
    """
    persistent = workers == "2, persistent"
    resuming = front in RESUMING
    if (persistent and not resuming) or (ranks == 1 and front == OWN_SHARES):
        return
    yield "whole", {}, None
    if ranks > 1 and front in SHARING:
        return
    yield "resumed", {}, ("whole", MIDDLE)
    # What workers draw: of those that persist in two processes, of the others in one.
    if resuming and workers != "0" and persistent == (ranks == 2):
        yield "another seed", {"seed": SEED + 1}, None
        if persistent:
            yield "the same again", {}, None
    if persistent or (front != "Accelerate" and (workers == "0") == (ranks == 1)):
        return
    yield "schedule", {"ratio": "schedule"}, None
    if resuming or front == BY_HAND:
        yield "resumed twice", {}, ("resumed", LATER)
        yield "resumed at an epoch's end", {}, ("whole", END)
        yield "schedule, resumed", {"ratio": "schedule"}, ("schedule", MIDDLE_OF_SCHEDULE)
    if resuming and front != "Accelerate, stream":  # its workers' copies are not told
        yield "memory", {"selector": "infobatch"}, None
        yield "memory, resumed", {"selector": "infobatch"}, ("memory", MIDDLE)


def order(runs):
    """Those that others go on from first."""
    return sorted(runs, key=lambda run: (run[2] is not None, run[0] == "resumed twice"))


@contextlib.contextmanager
def wall(folder):
    """Every rank has left the folder before it goes on."""
    import torch.distributed as dist

    folder.mkdir(parents=True, exist_ok=True)
    yield
    if dist.is_initialized():
        dist.barrier()


def run(function, made, place, **settings):
    """What a run was trained on, or the one line that refused it."""
    try:
        with wall(place):
            seen = function(made, place, **settings)
    except SalnError as error:
        return {"refused": str(error)}
    except Exception:
        return {"failed": traceback.format_exc()}
    return {"epochs": seen.epochs, "indices": seen.indices, "drawn": seen.drawn}


def main(folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    if WORLD_SIZE:
        wait_before_forks()
    results = {}
    for front, function in FRONTS.items():
        for workers, loading in WORKERS.items():
            for name, settings, origin in order(table(front, workers, WORLD_SIZE or 1)):
                place = folder / front / workers / name
                resume = None
                if origin is not None:
                    resume = folder / front / workers / origin[0] / str(origin[1])
                make = streamed if front == "Accelerate, stream" else chosen
                key = f"{front} | {workers} | {name}"
                results[key] = run(function, make(**settings), place, resume=resume, **loading)
                if "failed" in results[key] and WORLD_SIZE:
                    sys.stderr.write(f"{key}: {results[key]['failed']}")
                    sys.stderr.flush()
                    os._exit(1)  # the ranks no longer do the same
                # Workers that persist, and only die after those of the next run were forked, are
                # waited for: their pipes stay open in the others.
                gc.collect()
                gc.freeze()  # so that the next search is short
    (folder / f"{RANK}.json").write_text(json.dumps(results))
    sys.stdout.flush()
    os._exit(0)  # libraries leave groups and threads behind


if __name__ == "__main__":
    main(Path(sys.argv[1]))
