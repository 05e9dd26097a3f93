"""What ``transformers`` loads: from a folder, the machine's cache or the hub, in this order.

Code that comes with a model is never run; of two files of weights that of safetensors is taken.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from saln._extras import optional_import
from saln._torchvision import torchvision  # noqa: F401 (transformers imports it; see there)
from saln.errors import WeightsError

# How many letters of another library's message are shown.
_SHOWN = 200
# How long the hub may take to say that it has a model.
_PATIENCE_SECONDS = 10


def import_transformers(needed_by: str) -> Any:
    """The package; MissingExtraError where it is not installed."""
    with optional_import("transformers", needed_by):
        import transformers
    return transformers


def load_from_hub(load: Callable[..., Any], model: str, name: str, **options: Any) -> Any:
    """Calls a ``from_pretrained``, first for what is on this machine, so that no request is made.

    It takes a folder or the model's name on the hub, and ``local_files_only``; messages call it as
    it was asked for. WeightsError where it cannot be had, which says how it can.
    """
    # A name with a path's marks is a folder: the hub is not asked for it.
    is_path = Path(model).is_dir() or model.startswith((".", "/", "~")) or "\\" in model
    folder = Path(model).expanduser() if is_path else _cached_folder(model)
    if folder is not None:
        try:
            return _quietly(load, str(folder), local_files_only=True, **options)
        except Exception as error:  # its parts raise kinds of their own; all mean the same here
            if is_path:
                raise WeightsError(
                    f"{name} cannot be loaded from the folder {folder} ({first_line(error)}); "
                    "give one that was written by save_pretrained"
                ) from error
    try:
        ask_hub(model)
        return _quietly(load, model, local_files_only=False, **options)
    except Exception as error:  # as above
        raise WeightsError(
            f"{name} is not on this machine and cannot be downloaded ({first_line(error)}); "
            "connect to the internet once, or give hf:FOLDER, a folder written by save_pretrained"
        ) from error


def cached_file(model: str, name: str) -> str | None:
    """Where the hub's cache has a model's file: the client itself makes a request before it looks.

    ValueError for a name of a model that the hub could not have.
    """
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(model, name)
    return file if isinstance(file, str) else None


def _cached_folder(model: str) -> Path | None:
    with contextlib.suppress(ValueError):
        if (file := cached_file(model, "config.json")) is not None:
            return Path(file).parent
    return None


def ask_hub(model: str) -> None:
    """Asks the hub for a model once, as downloads try for a minute where there is no connection."""
    from huggingface_hub import HfApi

    HfApi().model_info(model.partition("@")[0], timeout=_PATIENCE_SECONDS)


def load_weights(model_class: Any, model: str, name: str, **options: Any) -> Any:
    """A model in float32 and eval mode, of safetensors where there are any, and what it lacks.

    Errors are those of :func:`load_from_hub`.
    """
    import torch

    def load(source: str, *, local_files_only: bool, **more: Any) -> Any:
        more |= {"local_files_only": local_files_only, "trust_remote_code": False}
        more |= {"dtype": torch.float32, "output_loading_info": True}
        try:
            return model_class.from_pretrained(source, use_safetensors=True, **more)
        except OSError as absent:
            try:
                # torch's own format, of which weights alone are unpickled.
                return model_class.from_pretrained(
                    source, use_safetensors=False, weights_only=True, **more
                )
            except OSError:
                raise absent from None

    module, facts = load_from_hub(load, model, name, **options)
    return module.eval(), facts


def first_line(error: Exception) -> str:
    """What another library says, in a line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return text[:_SHOWN].rstrip(".") or type(error).__name__


@contextlib.contextmanager
def _no_chatter(bars_too: bool) -> Iterator[None]:
    """Without reports, and bars but of downloads, on the terminal, which a program writes to."""
    chatter: Any = importlib.import_module("transformers.utils.logging")
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = bars_too and chatter.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    if bars:
        chatter.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            chatter.enable_progress_bar()


def _quietly(load: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    # Else weights that are no safetensors are sent to a service that converts them in public.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    with _no_chatter(bars_too=options["local_files_only"]):
        return load(*arguments, **options)
