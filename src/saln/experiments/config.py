"""One comparison's settings: frozen, checked, from a preset, a TOML file and flags."""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from saln.converter import convert, unusable
from saln.data.dataset_registry import DATASETS
from saln.errors import InputError
from saln.experiments.arm import Arm, Method, as_methods, label_of, read_arm
from saln.experiments.search import check_search
from saln.features.dataset_features import default_cache_dir
from saln.features.network_registry import NETWORKS
from saln.files import check_new_path
from saln.loading.filter_schedule import FilterSchedule
from saln.messages import Placeholder, not_allowed, parameter
from saln.selection import Bounds, candidates_needed
from saln.selection.hyperparameters import hyperparameters
from saln.training.changes import Targets

# Of epochs and of a batch: more is a slip of the pen, and would take for ever to plan.
MOST = 1_000_000
COUNT, COUNT_OR_NONE = Bounds(low=1, high=MOST), Bounds(low=0, high=MOST)
SHARE = Bounds(low=0, below=1)
# Tools that an epoch's numbers can be written for; event_log.py has what writes each.
LOGS = ("tensorboard", "wandb", "mlflow")

if typing.TYPE_CHECKING:
    Methods = tuple[Method, ...]
else:
    Methods = tuple[str, ...]  # what flags and files hold


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of `saln compare`; the paper's (sections 3 and 4), but that the rate decays."""

    preset: str | None = None
    """Start from a named set of settings ('saln list' names them)."""
    config: Path | None = None
    """Then take settings from a TOML file; its keys are these flags."""
    dataset: str = dataclasses.field(default="digits", metadata={"names": DATASETS})
    """The images and labels to train on."""
    data_root: Path = Path("data")
    """Where cifar10 and oxford-pet are, in torchvision's layout."""
    download: bool = False
    """Fetch a data set that is not there."""
    methods: Methods = (
        "standard", "uniform", "saln", "jest", "rho-loss", "top-loss", "coherence",
    )  # fmt: skip
    """The arms to train: NAME or NAME(KEY=VALUE, ...), then +CHANGE(KEY=VALUE); see 'saln list'."""
    learner: str = dataclasses.field(default="resnet18", metadata={"names": NETWORKS})
    """The network to train."""
    backbone: str = dataclasses.field(default="resnet50", metadata={"names": NETWORKS})
    """The frozen network whose features the selectors see."""
    weights: Path | None = None
    """A file with the state dict that the learner starts from, instead of a download."""
    backbone_weights: Path | None = None
    """A file with the backbone's state dict, instead of a download."""
    pretrained: bool = True
    """Start the learner from published weights, where there are any."""
    head_only: bool = False
    """Train the learner's last layer alone; the layers below stay as they are loaded."""
    image_size: Annotated[int | None, Bounds(low=8, high=2048)] = None
    """Pixels that the learner sees; the data set's own default when not given."""
    feature_size: Annotated[int | None, Bounds(low=8, high=2048)] = None
    """Pixels that the backbone sees; when not given its own, or the image size, at least 96."""
    epochs: Annotated[int, COUNT] = 25
    """Passes over the candidates."""
    reference_epochs: Annotated[int | None, COUNT] = None
    """Passes that train a reference model; as many steps as a selecting arm's when not given."""
    batch_size: Annotated[int, COUNT] = 32
    """Examples that get a gradient in each step, in every arm."""
    filter_ratio: float = 0.8
    """The share of the candidates that is dropped, in [0, 1)."""
    filter_ratio_end: Annotated[float | None, SHARE] = None
    """The filter ratio of the last epoch; it changes linearly from --filter-ratio."""
    full_first_epochs: Annotated[int, COUNT_OR_NONE] = 0
    """The number of epochs at the start in which every arm trains on everything."""
    full_last_epochs: Annotated[int, COUNT_OR_NONE] = 0
    """The number of epochs at the end in which every arm trains on everything."""
    learning_rate: Annotated[float, Bounds(above=0)] = 0.001
    """The rate of SGD with momentum 0.9, or the highest of a schedule."""
    weight_decay: Annotated[float, Bounds(low=0)] = 0.0
    """The weight decay of SGD."""
    nesterov: bool = False
    """SGD with Nesterov's momentum."""
    targets: Literal["given", "beliefs", "features"] = "given"
    """Targets of arms that name none; beliefs and features are soft, from saln.judge_labels."""
    target_share: Annotated[float | None, Bounds(above=0, high=1)] = None
    """The weight of --targets, 1 when not given; the given label has the rest."""
    balance: bool = False
    """Keep as many of each class, as features and labels say it, in every arm that selects."""
    tune: Annotated[int, Bounds(low=0, high=100)] = 0
    """Trials, on validation data, of each arm's learning rate and weight decay; 0 for none."""
    tune_search: Literal["grid", "optuna"] = "grid"
    """What the trials try: a grid around --learning-rate and --weight-decay, or Optuna's search."""
    tune_seeds: Annotated[int, Bounds(low=1)] = 1
    """Each trial is the mean over this many seeds, the first ones."""
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"
    """How the learning rate moves over each arm's own steps; the paper's is constant."""
    precision: Literal["float32", "bf16"] = "float32"
    """What the learner's passes compute in; bf16 (autocast) is faster on GPUs and new CPUs."""
    channels_last: bool = False
    """Keep images and weights with channels last in memory; convolutions are often faster."""
    compile: bool = False
    """Run the learner's passes through torch.compile; they may be faster, the start is slower."""
    label_noise: Annotated[float, SHARE] = 0.0
    """The share of training labels that are replaced by wrong ones, in [0, 1)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of every arm for each seed, separated by commas."""
    evaluate_every: Annotated[int, Bounds(low=1)] = 1
    """Measure accuracy and loss every this many epochs, and after the last one."""
    limit: Annotated[int | None, Bounds(low=1)] = None
    """Use at most this many training and this many test images."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    workers: Annotated[int, Bounds(low=0, high=1000)] = 0
    """Processes that load images; 0 loads in the training process."""
    threads: Annotated[int | None, Bounds(low=1, high=10_000)] = None
    """CPU threads that torch may use; torch's own choice when not given."""
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    """Where features are kept for the next run."""
    split_seed: int = 0
    """Decides which examples are for training, validation and test."""
    out: Path | None = None
    """The run's folder; a new one under runs/ when not given."""
    resume: bool = False
    """Go on with the unfinished run in --out, with its settings; --seeds may name more seeds."""
    tensorboard: bool = False
    """Write every epoch's numbers for TensorBoard, too, into tensorboard/ of the run's folder."""
    log: tuple[str, ...] = ()
    """Write them for other tools, too, with commas between: tensorboard, wandb, mlflow."""
    json: bool = False
    """Print the content of summary.json and nothing else."""

    def __post_init__(self) -> None:
        """Takes what a setting plainly means: 8.0 for 8, lists, NumPy's numbers, text of paths."""
        for name, kind in _kinds().items():
            value = getattr(self, name)
            try:
                value = as_methods(value) if name == "methods" else convert(value, kind)
            except InputError:  # of as_methods, a whole message already
                raise
            except ValueError as error:
                raise not_allowed(name, value, str(error)) from error
            object.__setattr__(self, name, value)  # frozen from here on

    @functools.cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The arms to train.

        Raises:
            InputError: One that is not known or given twice, or none at all.
        """
        # Resolved when asked for, so that settings that name a package that is gone can be read.
        share = 1.0 if self.target_share is None else self.target_share
        usual = () if self.targets == "given" else (Targets(**{self.targets: share}),)
        arms = []
        for method in self.methods:
            try:
                arm = read_arm(method)
            except InputError as error:
                raise InputError(f"{parameter('methods')} {error}") from error
            if not any(change.says_targets for change in arm.changes):
                arm = dataclasses.replace(arm, usual=usual)
            arms.append(dataclasses.replace(arm, balance=self.balance))
        # Their files would be the same, too, where a disk knows no capital letters.
        labels = [arm.label.casefold() for arm in arms]
        if not arms or len(set(labels)) < len(labels):
            raise not_allowed("methods", tuple(map(str, arms)), "at least one, none of them twice")
        return tuple(arms)

    @property
    def usual_targets(self) -> str | None:
        """What arms that name no targets have, in words; None for the given labels."""
        share = 1.0 if self.target_share is None else self.target_share
        return None if self.targets == "given" else f"{self.targets} ({share:g})"

    @property
    def labels(self) -> tuple[str, ...]:
        """What the arms are called; also of those that are not known here."""
        return tuple(label_of(method) for method in self.methods)

    @property
    def logs(self) -> tuple[str, ...]:
        """The tools that every epoch's numbers are written for, each once."""
        return tuple(dict.fromkeys(("tensorboard",) * self.tensorboard + self.log))

    def check(self) -> None:
        """Refuses what cannot work, before anything is read or written.

        Raises:
            InputError: A setting that is not allowed; the message names it.
        """
        _check_fields(self)
        _ = self.arms
        if self.resume and self.out is None:
            hint = parameter("out", Placeholder("DIR"))
            raise InputError(
                f"{parameter('resume')} needs the folder of the run to go on with; give {hint}"
            )
        if self.compile and self.head_only:
            raise InputError(
                f"{parameter('compile')} is for a whole network, and {parameter('head_only')} "
                "trains one layer; leave one of them out"
            )
        if self.target_share is not None and self.targets == "given":
            hint = parameter("targets", Placeholder("beliefs"))
            raise InputError(
                f"{parameter('target_share', self.target_share)} is a share of nothing beside the "
                f"given labels; give {hint}, or leave it out"
            )
        candidates_needed(self.batch_size, self.filter_ratio)  # raises for itself
        if self.tune:
            check_search(self.tune_search)
            if self.tune_seeds > len(self.seeds):
                most = f"at most {len(self.seeds)}, as many as there are seeds"
                raise not_allowed("tune_seeds", self.tune_seeds, most)
        full = self.full_first_epochs + self.full_last_epochs
        if full >= self.epochs and full > 0:
            raise InputError(
                f"{parameter('full_first_epochs', self.full_first_epochs)} and "
                f"{parameter('full_last_epochs', self.full_last_epochs)} leave none of "
                f"{self.epochs} epochs to choose in; lower one of them"
            )
        if self.out is not None:
            check_new_path(self.out.absolute(), "out")
            # Bytes that are no UTF-8 are lone surrogates, as Python reads them.
            if self.logs and re.search("[\ud800-\udfff]", str(self.out)):
                raise InputError(
                    f"{self.logs[0]} cannot write into {parameter('out', self.out)}, "
                    "whose name is not UTF-8; give another folder"
                )

    @property
    def autocast(self) -> torch.dtype | None:
        """What the learner's passes are cast to; None where nothing is."""
        return torch.bfloat16 if self.precision == "bf16" else None

    def filter_schedule(self) -> FilterSchedule:
        """The filter ratio of every epoch, from 1."""
        return FilterSchedule(
            self.filter_ratio,
            self.filter_ratio_end,
            epochs=self.epochs,
            full_first=self.full_first_epochs,
            full_last=self.full_last_epochs,
            first_epoch=1,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, paths as text."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # An arm that no text names is saved by its label: enough to tell whether it is the same.
        values["methods"] = tuple(map(str, self.methods))
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in values.items()
        }


@functools.cache
def _kinds() -> dict[str, Any]:
    """What each setting holds."""
    return typing.get_type_hints(Config)


def _check_fields(config: Config) -> None:
    """Refuses what a field may not hold by itself; None is allowed where it is a default."""
    for each, field in zip(hyperparameters(Config), dataclasses.fields(config), strict=True):
        name, value = each.name, getattr(config, each.name)
        # The type has let None through only where it stands for a default.
        if value is None:
            continue
        if each.bounds is not None and not each.bounds.holds(value):
            raise not_allowed(name, value, each.allowed())
        if isinstance(value, Path):
            _check_path(name, value)
        elif name in ("seeds", "split_seed"):
            seeds = value if name == "seeds" else (value,)
            if not seeds or len(set(seeds)) != len(seeds):
                raise not_allowed(name, value, "at least one, none of them twice")
            for seed in seeds:
                if not -(2**63) <= seed < 2**63:
                    raise not_allowed(name, seed, "a whole number of at most 64 bits")
        elif name == "log" and not set(value) <= set(LOGS):
            raise not_allowed(name, value, f"some of {', '.join(LOGS)}, with commas between")
        elif name == "preset" and value not in preset_names():
            raise not_allowed(name, value, f"one of {', '.join(preset_names())}")
        elif "names" in field.metadata and value not in (names := field.metadata["names"]):
            raise not_allowed(name, value, names.choices(value))
        # The prefix is known by now; what stands behind it may still be no path.
        if name == "dataset" and value.startswith(("folder:", "hf:")):
            _check_path(name, Path(value.partition(":")[2]))


def _check_path(name: str, path: Path) -> None:
    """Refuses a path that no system can look at, such as one with too long a name."""
    why = unusable(path)
    if why is not None:
        raise not_allowed(name, path, f"a path that can be looked at ({why})")


def from_mapping(values: Mapping[str, object], source: str, base: Config | None = None) -> Config:
    """Changes a configuration by a mapping; its keys are flags, '-' or '_', else InputError."""
    kinds = _kinds()
    changes: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in kinds:
            raise InputError(
                f"{source}: unknown key {key!r}; choose among "
                f"{', '.join(field.replace('_', '-') for field in kinds)}"
            )
        try:
            changes[name] = convert(value, kinds[name])
        except ValueError as error:
            raise InputError(f"{source}: {key} = {value!r} is not allowed; give {error}") from error
    return dataclasses.replace(base or Config(), **changes)


def load_toml(path: Path, base: Config | None = None) -> Config:
    """Changes a configuration by a TOML file; InputError without one, or for a value of it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{parameter('config', path)} cannot be read ({error}); give a TOML file with lines "
            "such as epochs = 10"
        ) from error
    return from_mapping(values, str(path), base)


def _presets() -> Any:
    return resources.files("saln.experiments") / "presets"


def preset_names() -> tuple[str, ...]:
    """The names of all presets."""
    names = (entry.name for entry in _presets().iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_preset(name: str) -> Config:
    """A named configuration that comes with SALN; an InputError where there is none."""
    if name not in preset_names():
        raise not_allowed("preset", name, f"one of {', '.join(preset_names())}")
    text = (_presets() / f"{name}.toml").read_text(encoding="utf-8")
    return from_mapping({"preset": name, **tomllib.loads(text)}, f"preset {name}")
