"""Small models with random weights, saved as the libraries that they are of save them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saln._torchvision import torchvision  # noqa: F401 (the libraries import it; see there)
from saln.randomness import seeded_globally

WIDTH = 16
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[EOS]"]


def save_tokenizer(folder: Path, words: Sequence[str], *, pads: bool = True) -> None:
    """One token a word."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"unk_token": "[UNK]", "eos_token": "[EOS]"}
    if pads:
        special["pad_token"] = "[PAD]"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_text_encoder(
    folder: Path, words: Sequence[str], *, kind: str = "bert", seed: int = 0
) -> Path:
    """A model that reads at most 32 tokens, with its tokenizer."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    size: dict[str, Any] = {
        "vocab_size": len(_SPECIAL) + len(words),
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "initializer_range": 0.5,
    }
    with seeded_globally(seed, "small text encoder"):
        if kind == "clip":
            vision = {**vision_size(), "image_size": 32, "patch_size": 16}
            model: Any = transformers.CLIPModel(
                transformers.CLIPConfig(
                    text_config={**size, "eos_token_id": 4}, vision_config=vision, projection_dim=8
                )
            )
        elif kind == "t5":
            model = transformers.T5Model(
                transformers.T5Config(
                    vocab_size=size["vocab_size"],
                    d_model=WIDTH,
                    d_kv=8,
                    d_ff=32,
                    num_layers=2,
                    num_heads=2,
                    initializer_factor=2.0,
                )
            )
        elif kind == "gpt2":
            model = transformers.GPT2Model(
                transformers.GPT2Config(
                    vocab_size=size["vocab_size"],
                    n_embd=WIDTH,
                    n_layer=2,
                    n_head=2,
                    n_positions=32,
                    initializer_range=0.5,
                )
            )
        elif kind == "roberta":
            model = transformers.RobertaModel(transformers.RobertaConfig(**size, pad_token_id=1))
        else:
            model = transformers.BertModel(transformers.BertConfig(**size))
    model.save_pretrained(folder)
    save_tokenizer(folder, words, pads=kind != "gpt2")
    return folder


def vision_size() -> dict[str, Any]:
    """A small vision transformer's."""
    return {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }


def save_image_model(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A model of ``transformers`` for images of 32 pixels, with its image processor."""
    import transformers

    size = {**vision_size(), "image_size": 32, "patch_size": 8, "initializer_range": 0.3}
    cut = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    squashed = {"size": {"height": 32, "width": 32}}
    with seeded_globally(seed, "small image model"):
        if kind == "dinov2":
            model: Any = transformers.Dinov2Model(transformers.Dinov2Config(**size))
            processor: Any = transformers.BitImageProcessor(**cut)
        elif kind == "clip":
            texts = {**vision_size(), "vocab_size": 20, "eos_token_id": 2, "bos_token_id": 1}
            config = transformers.CLIPConfig(
                text_config=texts, vision_config=size, projection_dim=12
            )
            model = transformers.CLIPModel(config)
            processor = transformers.CLIPImageProcessor(**cut)
        elif kind == "clip-vision":
            model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**size))
            processor = transformers.CLIPImageProcessor(**cut)
        elif kind == "siglip":
            model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**size))
            processor = transformers.SiglipImageProcessor(**squashed)
        elif kind == "vit":
            # As classifiers are published: without a pooler.
            model = transformers.ViTForImageClassification(transformers.ViTConfig(**size))
            processor = transformers.ViTImageProcessor(**squashed)
        else:
            config = transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4)
            model = transformers.ConvNextModel(config)
            processor = transformers.ConvNextImageProcessor(
                size={"shortest_edge": 32}, crop_pct=0.875
            )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_open_clip(folder: Path, *, seed: int = 0) -> Path:
    """A CLIP of open_clip for images of 32 pixels."""
    import open_clip
    from safetensors.torch import save_file

    model = {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": WIDTH, "head_width": 8, "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 8, "vocab_size": 50, "width": WIDTH, "heads": 2, "layers": 1,
        },
    }  # fmt: skip
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear",
                  "resize_mode": "longest"}  # fmt: skip
    folder.mkdir(parents=True)
    facts = {"model_cfg": model, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(facts))
    with seeded_globally(seed, "small CLIP"):
        whole = open_clip.model.CLIP(**model)
    save_file(whole.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def save_timm(folder: Path, name: str, *, seed: int = 0, classes: int = 5) -> Path:
    """A model of timm, and weights as timm publishes them."""
    import timm

    with seeded_globally(seed, "small timm"):
        model = timm.create_model(name, num_classes=classes)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder
