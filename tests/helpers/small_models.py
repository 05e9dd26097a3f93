"""Small models with random weights, saved as the libraries that they are of save them."""

from __future__ import annotations

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
