"""``hf:MODEL``: networks of ``transformers`` for images, with their own image processor."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from saln.data.transforms import Normalization
from saln.errors import InputError, WeightsError
from saln.features.hub_loading import first_line, import_transformers, load_from_hub, load_weights
from saln.features.network_registry import (
    BuiltNetwork,
    NetworkRequest,
    Preprocessing,
    register_network,
)
from saln.messages import parameter

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
# What says nothing of how an image is changed.
_NO_FACTS = ("image_processor_type", "processor_class", "return_tensors", "device", "data_format")


class PooledImages(nn.Module):
    """A model of ``transformers`` that gives a row an image, without a text tower that it has.

    ``drawn`` are names of weights that were in no file, and so are random; ``sized`` says that it
    sees images of another size than its own.
    """

    def __init__(self, model: Any, *, drawn: frozenset[str], sized: bool) -> None:
        super().__init__()
        self.two_towers = hasattr(model, "get_image_features")
        for part in ("text_model", "text_projection", "logit_scale", "logit_bias"):
            if self.two_towers and hasattr(model, part):
                delattr(model, part)
        self.model = model
        call = model.get_image_features if self.two_towers else model.forward
        resizes = "interpolate_pos_encoding" in inspect.signature(call).parameters
        self.options = {"interpolate_pos_encoding": True} if sized and resizes else {}
        # A pooler that was in no file is random, and would be noise.
        self.has_pooler = not any("pooler" in name for name in drawn)
        names = [name for name, _ in model.named_parameters()]
        self.has_first_token = any("cls_token" in name or "class_emb" in name for name in names)

    def forward(self, images: Tensor) -> Tensor:
        """What the model itself pools; else its first token, or the mean over the image."""
        call = self.model.get_image_features if self.two_towers else self.model
        found = call(pixel_values=images, **self.options)
        if isinstance(found, Tensor):
            return found.flatten(1)
        pooled: Tensor | None = getattr(found, "pooler_output", None)
        if pooled is not None and self.has_pooler:
            return pooled.flatten(1)
        states: Tensor = found.last_hidden_state
        if states.ndim == 4:
            return states.mean(dim=(2, 3))
        return states[:, 0] if self.has_first_token else states.mean(dim=1)


class ProcessedImage:
    """An image processor of ``transformers`` as a transform of one image."""

    def __init__(self, processor: Any, size: dict[str, Any]) -> None:
        self.processor, self.size = processor, size

    def __call__(self, image: Image.Image) -> Tensor:
        """float32, (3, height, width)."""
        found = self.processor(images=image, return_tensors="pt", **self.size)
        pixels: Tensor = found["pixel_values"][0]
        return pixels.float()


@register_network(
    "hf:",
    "a network of the Hugging Face hub for images, such as DINOv2, CLIP, SigLIP, or of a folder",
    argument="MODEL",
    needs="extra 'transformers'",
    own_size=True,
)
def _hf(request: NetworkRequest) -> BuiltNetwork:
    transformers = import_transformers(request.name)
    name, model = request.name, request.argument
    folder = Path(model).expanduser()
    if folder.is_dir() and not any((folder / file).exists() for file in _PROCESSORS):
        raise WeightsError(
            f"{name}: the folder holds no {_PROCESSORS[0]}, which says how images are prepared; "
            "save the model's image processor there too, by its save_pretrained"
        )
    options = {"trust_remote_code": False}
    processor = load_from_hub(
        transformers.AutoImageProcessor.from_pretrained, model, name, **options
    )
    drawn: frozenset[str] = frozenset()
    if request.pretrained:
        module, facts = load_weights(transformers.AutoModel, model, name)
        drawn = frozenset(facts["missing_keys"])
        lacking = sorted(key for key in drawn if "pooler" not in key)
        if lacking:
            raise WeightsError(
                f"{name} lacks {len(lacking)} of its weights, such as {lacking[0]}; give a model "
                "that was written by save_pretrained"
            )
    else:
        config = load_from_hub(transformers.AutoConfig.from_pretrained, model, name, **options)
        module = transformers.AutoModel.from_config(config, trust_remote_code=False)
    own = _pixels_of(processor, {}, name)
    pixels = request.image_size or own
    size = {} if pixels == own else _sized(processor, own, pixels)
    if _pixels_of(processor, size, name) != pixels:
        raise InputError(
            f"{name} cannot be given images of {pixels} pixels; leave {parameter('image_size')} "
            f"out for its own, {own}"
        )
    body = PooledImages(module, drawn=drawn, sized=pixels != own)
    return BuiltNetwork(
        body,
        normalization=_normalization(processor),
        head="",
        image_size=pixels,
        preprocessing=Preprocessing(ProcessedImage(processor, size), _facts(processor, size)),
        # In files they have other names than here, which transformers alone knows.
        weights_from="the model's own folder",
        # Without its place: a folder that is moved holds the same network.
        name=f"hf:{folder.resolve().name}" if folder.is_dir() else "",
    )


def _pixels_of(processor: Any, size: dict[str, Any], name: str) -> int:
    """The side of the square that a processor makes of any image; else InputError."""
    shapes = []
    for given in ((96, 64), (64, 96)):
        try:
            shapes.append(tuple(ProcessedImage(processor, size)(Image.new("RGB", given)).shape))
        except Exception as error:  # processors fail in many ways; all mean the same here
            raise InputError(
                f"the image processor of {name} cannot be used ({first_line(error)}); give a "
                "network for single images"
            ) from error
    if shapes[0] != shapes[1] or len(shapes[0]) != 3 or len(set(shapes[0][1:])) > 1:
        raise InputError(
            f"the image processor of {name} makes {shapes[0]} and {shapes[1]} of two images, not "
            "squares of one size; give a network for whole images"
        )
    return int(shapes[0][1])


def _sized(processor: Any, own: int, pixels: int) -> dict[str, Any]:
    """Its sizes for another number of pixels: what is cut off stays the same share."""
    found = {}
    for key in ("size", "crop_size"):
        sides = dict(getattr(processor, key, None) or {})
        lengths = {side: round(length * pixels / own) for side, length in sides.items() if length}
        if lengths:
            found[key] = lengths
    return found


def _normalization(processor: Any) -> Normalization:
    """What a learner's images are scaled by; none where the processor has none."""
    if not getattr(processor, "do_normalize", False):
        return Normalization((0.0,) * 3, (1.0,) * 3)
    return Normalization(tuple(processor.image_mean), tuple(processor.image_std))


def _facts(processor: Any, size: dict[str, Any]) -> dict[str, Any]:
    """What the processor does, as JSON holds it."""
    facts = {**processor.to_dict(), **size}
    kept = {key: facts[key] for key in facts if key not in _NO_FACTS and facts[key] is not None}
    known: dict[str, Any] = json.loads(json.dumps(kept, default=str, sort_keys=True))
    return {"by": type(processor).__name__, **known}
