"""Networks of other libraries, each with its own preprocessing: timm and open_clip.

Those of ``transformers`` are in :mod:`saln.features.transformers_networks`.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from saln._extras import optional_import
from saln._torchvision import torchvision  # noqa: F401 (both import it; see there)
from saln.data.transforms import Normalization
from saln.errors import InputError, WeightsError
from saln.features.hub_loading import ask_hub, cached_file, first_line
from saln.features.network_registry import (
    BuiltNetwork,
    NetworkRequest,
    Preprocessing,
    register_network,
)

# How many names that are like an unknown one a message has.
_SHOWN = 5


@register_network(
    "timm:",
    "a network of timm, or of a folder that timm wrote",
    argument="NAME",
    needs="extra 'timm'",
    own_size=True,
)
def _timm(request: NetworkRequest) -> BuiltNetwork:
    timm = _import("timm", request.name)
    argument, name = _source(request)
    if ":" not in argument and not timm.is_model(argument.partition(".")[0]):
        raise _unknown(request.name, "timm", argument, timm.list_models())
    options: dict[str, Any] = {"pretrained": request.pretrained, "num_classes": 0}
    with _published(request.name, "timm:FOLDER, a folder written by timm's save_for_hf"):
        if request.pretrained and ":" not in argument:
            options["pretrained_cfg_overlay"] = _cached_weights(timm, argument)
        # Transformers have their size built in; others take any, and no argument for it.
        try:
            module = timm.create_model(argument, img_size=request.image_size or None, **options)
        except TypeError:
            module = timm.create_model(argument, **options)
    size = {"img_size": request.image_size} if request.image_size else {}
    facts = timm.data.resolve_data_config(size, model=module)
    classifier = module.pretrained_cfg.get("classifier") or ()
    return BuiltNetwork(
        module,
        normalization=Normalization(tuple(facts["mean"]), tuple(facts["std"])),
        head="",
        image_size=_side(facts["input_size"][1:], request.name),
        preprocessing=Preprocessing(
            timm.data.create_transform(**facts, is_training=False),
            {
                "by": "timm",
                "interpolation": facts["interpolation"],
                "crop_pct": facts["crop_pct"],
                "crop_mode": facts["crop_mode"],
            },
        ),
        passed_over=(classifier,) if isinstance(classifier, str) else tuple(classifier),
        name=name,
    )


def _import(extra: str, name: str) -> Any:
    """The package of an extra; its types say less than what is known of it."""
    with optional_import(extra, name):
        return importlib.import_module(extra.replace("-", "_"))


def _cached_weights(timm: Any, name: str) -> dict[str, Any] | None:
    """A copy of a model's published weights on this machine, which no request is needed for."""
    facts = timm.get_pretrained_cfg(name)
    if facts is None or not facts.hf_hub_id or facts.custom_load:
        return None
    if file := cached_file(facts.hf_hub_id, facts.hf_hub_filename or "model.safetensors"):
        return {"file": file}
    ask_hub(facts.hf_hub_id)
    return None


class ImageTower(nn.Module):
    """What open_clip's ``encode_image`` gives: a model's image tower with its projection."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.visual

    def forward(self, images: Tensor) -> Tensor:
        """Gives (b, width)."""
        found = self.visual(images)
        # Some give their tokens beside it.
        pooled: Tensor = found[0] if isinstance(found, tuple) else found
        return pooled


@register_network(
    "open_clip:",
    "the image tower of a CLIP of open_clip, with its projection, or of a folder",
    argument="MODEL/TAG",
    needs="extra 'open-clip'",
    own_size=True,
)
def _open_clip(request: NetworkRequest) -> BuiltNetwork:
    open_clip = _import("open-clip", request.name)
    argument, name = _source(request)
    model, tag, facts = argument, "", dict[str, Any]()
    if ":" not in argument:
        model, tag, facts = _model_and_tag(request, open_clip)
    # A tag's own; a folder's are read from its file.
    own = ("mean", "std", "interpolation", "resize_mode")
    with _published(request.name, "open_clip:FOLDER, a folder with open_clip_config.json"):
        whole = open_clip.create_model(
            model,
            pretrained=_cached_checkpoint(facts) or tag if request.pretrained else None,
            load_weights=request.pretrained,
            require_pretrained=request.pretrained,
            # Towers of other libraries would load weights of their own.
            pretrained_text=False,
            # Weights that were trained with it give other features without it.
            force_quick_gelu=bool(facts.get("quick_gelu")),
            force_image_size=request.image_size or None,
            force_preprocess_cfg={key: facts[key] for key in own if key in facts},
        )
    preprocessing = open_clip.get_model_preprocess_cfg(whole)
    options = open_clip.transform.PreprocessCfg(**preprocessing)
    parts = {key.partition(".")[0] for key in whole.state_dict()} - {"visual"}
    return BuiltNetwork(
        ImageTower(whole),
        normalization=Normalization(tuple(options.mean), tuple(options.std)),
        head="",
        image_size=_side(options.size, request.name),
        preprocessing=Preprocessing(
            open_clip.transform.image_transform_v2(options, is_train=False),
            {
                "by": "open_clip",
                "interpolation": options.interpolation,
                "resize_mode": options.resize_mode,
                "fill_color": options.fill_color,
            },
        ),
        passed_over=tuple(sorted(parts)),
        name=name,
    )


def _model_and_tag(request: NetworkRequest, open_clip: Any) -> tuple[str, str, dict[str, Any]]:
    """The two parts of ``MODEL/TAG``, and what open_clip knows of the tag; else InputError."""
    model, _, tag = request.argument.partition("/")
    if model not in open_clip.list_models():
        raise _unknown(request.name, "open_clip", model, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(model)
    facts: dict[str, Any] = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    if request.pretrained and not facts:
        known = f"open_clip:{model}/TAG with TAG one of {', '.join(tags)}" if tags else "another"
        raise InputError(f"{request.name} names no published weights; give {known}")
    return model, tag, facts


def _cached_checkpoint(facts: dict[str, Any]) -> str | None:
    """A copy of a tag's published weights on this machine, which no request is needed for."""
    repository, _, name = facts.get("hf_hub", "").rpartition("/")
    if not repository:
        return None
    names = [name] if name else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    if names[0].endswith((".bin", ".pth")):
        names.insert(0, f"{names[0][:-4]}.safetensors")
    for one in names:
        if file := cached_file(repository, one):
            return file
    ask_hub(repository)
    return None


def _source(request: NetworkRequest) -> tuple[str, str]:
    """What the library takes, and the name in those of stores: of a folder without its place."""
    folder = Path(request.argument.removeprefix("local-dir:")).expanduser()
    is_path = request.argument.startswith(("local-dir:", ".", "/", "~")) or folder.is_dir()
    if not is_path:
        return request.argument, request.name
    if not folder.is_dir():
        raise InputError(f"{request.name}: {folder} is no folder; give one that is there")
    return f"local-dir:{folder}", f"{request.name.partition(':')[0]}:{folder.resolve().name}"


def _side(size: Any, name: str) -> int:
    """The side of a square; InputError for what is none."""
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise InputError(
            f"{name} sees images of {height} x {width} pixels, not squares; give another network"
        )
    return int(height)


def _unknown(name: str, library: str, model: str, known: Sequence[str]) -> InputError:
    close = difflib.get_close_matches(model, known, n=_SHOWN, cutoff=0.5)
    like = f"; give another, such as {', '.join(close)}" if close else "; give one that it lists"
    return InputError(f"{library} knows no model {model!r} ({name}){like}")


@contextlib.contextmanager
def _published(name: str, folder: str) -> Iterator[None]:
    """Says in a line why a model cannot be had, and what can be done."""
    # open_clip logs by the root logger, which without a handler gets one for the whole process.
    root, handler, level = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings():
            # What a library says to its own users: of names that changed, of features of others.
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # downloads and files fail in many ways; all mean the same here
        raise WeightsError(
            f"{name} cannot be loaded ({first_line(error)}); connect to the internet once, or give "
            f"{folder}"
        ) from error
    finally:
        logging.disable(level)
        root.removeHandler(handler)
