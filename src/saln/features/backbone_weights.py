"""Weights that people have, as a network's own: of a file, a checkpoint, a wrapped model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saln._extras import optional_import
from saln.errors import InputError
from saln.messages import first_line

State = dict[str, Tensor]
# Under which names checkpoints keep the state dict, in the order in which they are looked for.
_KEPT_UNDER = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params",
)  # fmt: skip
# What torch.compile puts into the names, wherever in the network it was called.
_COMPILED = "_orig_mod."
# Heads that are only there to train from scratch.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_SAVE = "give a state dict saved by torch.save(model.state_dict(), FILE)"
# How many names a message has.
_SHOWN = 3


def read_weights(path: Path) -> State:
    """Reads the state dict of a file, or of a checkpoint in it; InputError where there is none.

    No code in the file is run: of what ``torch.save`` wrote, a pickled model is refused.
    """
    if not path.exists():
        raise InputError(f"weights file {path} does not exist; give a file that does")
    if path.is_dir():
        raise InputError(f"weights file {path} is a folder; give a file")
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    state = _state_of(content)
    if state is None:
        raise InputError(
            f"weights file {path} holds no state dict (names to tensors) but "
            f"{_content(content)}; {_SAVE}"
        )
    return state


def _torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch raise many kinds; all mean the same here
        foreign = _foreign(path)
        if foreign:
            raise InputError(
                f"weights file {path} cannot be read: beside tensors it holds Python objects "
                f"({', '.join(foreign[:_SHOWN])}), as a whole model or a checkpoint saved with its "
                f"settings does, and these may run any code. Where you trust it, open it yourself "
                f"and {_SAVE}"
            ) from error
        raise InputError(
            f"weights file {path} cannot be read ({type(error).__name__}); {_SAVE}"
        ) from error


def _foreign(path: Path) -> list[str]:
    """What in a file is neither a tensor nor plain; nothing of it is run."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # as above; then that is not what is wrong with it
        return []


def _safetensors(path: Path) -> Any:
    with optional_import("safetensors", f"weights file {path}"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"weights file {path} cannot be read ({first_line(error)}); give one saved "
            "by safetensors.torch.save_file(model.state_dict(), FILE)"
        ) from error


def _state_of(content: Any, depth: int = 0) -> State | None:
    """The state dict in what a file holds; None where there is none."""
    if not isinstance(content, Mapping) or depth > len(_KEPT_UNDER):
        return None
    names_to_tensors = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if len(names_to_tensors) == len(content):
        return names_to_tensors
    for key in _KEPT_UNDER:
        found = _state_of(content.get(key), depth + 1)
        if found:
            return found
    return None


def _content(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict with {_names(map(str, content))}" if content else "an empty dict"
    return f"a {type(content).__name__}"


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")


def _unwrapped(state: State, known: set[str]) -> State:
    """With the names that the network has, without those that wrappers put before them."""
    state = {key.replace(_COMPILED, ""): value for key, value in state.items()}
    # Of torch.optim.swa_utils.AveragedModel.
    if "n_averaged" in state and "n_averaged" not in known:
        state = {key: value for key, value in state.items() if key != "n_averaged"}
    while state and not known & set(state):
        first = {key.partition(".")[0] for key in state}
        inside = {key.partition(".")[2]: value for key, value in state.items()}
        # One name before all: "module" of DistributedDataParallel and AveragedModel, or the
        # attribute of another module around the network.
        if len(first) > 1 or "" in inside:
            break
        state = inside
    return state


def fit_weights(module: nn.Module, ignored: Sequence[str], state: State, source: str) -> None:
    """Loads all but parts such as the head, whose number of classes may be another.

    What DistributedDataParallel, torch.compile or a module around the network put before all
    names is taken off. ``source`` says in messages where the weights are from.
    """
    parts = (*(f"{part}." for part in ignored), *_AUXILIARY)

    def counts(key: str) -> bool:
        return not key.startswith(parts) and key not in ignored

    wanted = {key: value for key, value in module.state_dict().items() if counts(key)}
    state = _unwrapped(state, set(wanted))
    given = {key: value for key, value in state.items() if counts(key)}
    missing = [key for key in wanted if key not in given]
    unknown = [key for key in given if key not in wanted]
    other = [key for key in wanted if key in given and wanted[key].shape != given[key].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of its {len(wanted)} tensors are missing "
                        f"({_names(missing)})")  # fmt: skip
    if unknown:
        problems.append(f"{len(unknown)} others are there ({_names(unknown)})")
    if other:
        shapes = (
            f"{key}: {tuple(given[key].shape)} for {tuple(wanted[key].shape)}" for key in other
        )
        problems.append(f"{len(other)} have another shape ({_names(shapes)})")
    if problems:
        raise InputError(
            f"{source} does not fit the network: {'; '.join(problems)}. Give the weights of the "
            "same architecture; its last layer alone may have another number of classes"
        )
    module.load_state_dict(given, strict=False)
