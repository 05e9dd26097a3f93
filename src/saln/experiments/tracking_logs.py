"""Writers for Weights & Biases and MLflow: on this machine, unless the user's environment differs.

Nothing is sent: runs of W&B are kept in its offline format, for ``wandb sync``, and MLflow's in a
store of files. ``WANDB_MODE=online`` and ``MLFLOW_TRACKING_URI`` lead elsewhere, as they do for
these tools' own users.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
from pathlib import Path
from typing import Any

from saln._extras import optional_import
from saln.experiments.config import Config
from saln.messages import parameter

# Under which the runs of all comparisons are found, where the environment names nothing else.
PROJECT = "saln"
# Of this tag's value is one run at most: that of an arm and seed of a run folder.
_TAG = "saln.run"
# MLflow refuses longer values of parameters.
_LONGEST = 500


class WandbWriter:
    """Runs of Weights & Biases, each in a folder ``NAME/``."""

    def __init__(self, folder: Path, config: Config) -> None:
        with optional_import("wandb", parameter("log", "wandb")):
            self._wandb = importlib.import_module("wandb")
        self.folder = folder
        self.config = config
        self._run: Any = None

    def begin(self, name: str) -> None:
        """Begins a run anew, offline; one that is online goes on, and old steps are passed over."""
        wandb, place = self._wandb, self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self.folder.absolute().parent.name,
            name=name,
            id=hashlib.blake2b(str(place.absolute()).encode(), digest_size=8).hexdigest(),
            dir=str(place),
            config=self.config.to_json(),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # a run of the user's own may be under way
            # Numbers alone: neither what is printed nor facts of the machine.
            settings=wandb.Settings(
                console="off", silent=True, x_disable_stats=True, x_disable_meta=True
            ),
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Takes what an epoch gave, at a number of steps."""
        self._run.log(values, step=step)

    def end(self) -> None:
        """Ends the run that was begun."""
        self._run.finish()


class MLflowWriter:
    """Runs of MLflow, in a store of files in ``folder`` where the environment names no other."""

    def __init__(self, folder: Path, config: Config) -> None:
        with optional_import("mlflow", parameter("log", "mlflow")):
            tracking = importlib.import_module("mlflow.tracking")
            self._entities = importlib.import_module("mlflow.entities")
        self.folder = folder
        self.config = config
        self._client_of = tracking.MlflowClient
        self._client: Any = None
        self._run = ""

    def _open(self) -> str:
        """Opens the store, which makes its folder; gives the experiment's id."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            # New versions want a database, for which the whole of MLflow is needed.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = self.folder.absolute().as_uri()
        self._client = self._client_of(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        found: str = self._client.create_experiment(name) if known is None else known.experiment_id
        return found

    def begin(self, name: str) -> None:
        """Begins a run; an earlier one of the same arm and seed is deleted."""
        experiment = self._open()
        key = str((self.folder / name).absolute())
        quoted = key.replace("'", "_")
        for old in self._client.search_runs([experiment], f"tags.`{_TAG}` = '{quoted}'"):
            self._client.delete_run(old.info.run_id)
        run = self._client.create_run(experiment, run_name=name, tags={_TAG: quoted})
        self._run = run.info.run_id
        params = [
            self._entities.Param(key, str(value)[:_LONGEST])
            for key, value in self.config.to_json().items()
        ]
        self._client.log_batch(self._run, params=params)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Takes what an epoch gave, at a number of steps."""
        metrics = [self._entities.Metric(name, value, 0, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self) -> None:
        """Ends the run that was begun."""
        self._client.set_terminated(self._run)
