"""Hugging Face's Trainer on texts with 40% wrong labels, chosen by TF-IDF features.

python examples/transformers_text.py
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import Dataset

import saln
from saln.features import text_features
from saln.integrations import SelectedTrainerMixin
from saln.training import seeded_globally

SUBJECTS = {
    "sea": ["ship", "sailor", "harbor", "wave", "anchor", "storm", "island", "tide", "sail"],
    "kitchen": ["oven", "flour", "butter", "recipe", "dough", "sugar", "spoon", "salt", "bake"],
    "court": ["judge", "lawyer", "verdict", "trial", "witness", "appeal", "crime", "jury", "law"],
    "garden": ["seed", "flower", "spade", "soil", "rose", "hedge", "lawn", "bloom", "weed"],
}
EVERYWHERE = ["the", "a", "was", "with", "from", "before", "after", "again", "under", "near"]
Numbers = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]


def sentences(count: int, seed: int) -> tuple[list[str], Numbers]:
    """Texts of a few words of a subject among words of all, and the subjects' numbers."""
    random = np.random.Generator(np.random.PCG64(seed))
    subjects = random.integers(0, len(SUBJECTS), size=count)
    texts = []
    for subject in subjects:
        words = list(random.choice(list(SUBJECTS.values())[subject], 4))
        texts.append(" ".join(random.permutation([*words, *random.choice(EVERYWHERE, 6)])))
    return texts, subjects


class Tokens(Dataset[dict[str, Any]]):
    """Texts as the model reads them, with their labels."""

    def __init__(self, tokenizer: Any, texts: list[str], labels: Numbers) -> None:
        self.tokens = tokenizer(texts)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.tokens["input_ids"][index]
        return {"input_ids": ids, "labels": int(self.labels[index])}


class SelectedTrainer(SelectedTrainerMixin, transformers.Trainer):  # type: ignore[misc]
    """A Trainer whose training batches are chosen."""


def small_model() -> tuple[Any, Any]:
    """A tokenizer and a small BERT; in their place, those of ``from_pretrained``."""
    words = [
        "[PAD]",
        "[UNK]",
        *EVERYWHERE,
        *(word for words in SUBJECTS.values() for word in words),
    ]
    vocabulary = {word: number for number, word in enumerate(words)}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    library: Any = transformers  # whose types say less than it takes
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]"
    )
    config = library.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=len(SUBJECTS),
        initializer_range=0.1,
    )
    with seeded_globally(0, "network"):
        return tokenizer, library.BertForSequenceClassification(config)


def train(
    texts: list[str], features: Features, labels: Numbers, *, filter_ratio: float, epochs: int
) -> tuple[Numbers, float]:
    """The texts of the first epoch that was trained on, and the accuracy on other texts."""
    batches = saln.SelectedBatches(
        features,
        labels=labels,
        selector=saln.Coherence() if filter_ratio else saln.Uniform(),
        batch_size=32,
        filter_ratio=filter_ratio,
        seed=0,
    )
    chosen = np.concatenate([list(batch) for batch in batches])
    tokenizer, model = small_model()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            num_train_epochs=epochs,
            learning_rate=3e-3,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = SelectedTrainer(
            model,
            arguments,
            train_dataset=Tokens(tokenizer, texts, labels),
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            selected_batches=batches,
        )
        trainer.train()
        others, their_subjects = sentences(500, seed=2)
        found: Any = trainer.predict(Tokens(tokenizer, others, their_subjects)).predictions
    accuracy = float(np.mean(found.argmax(axis=1) == their_subjects))
    return chosen, accuracy


def main() -> None:
    """Trains on the half of each batch's candidates that is likeliest right, and on all."""
    torch.set_num_threads(1)
    texts, subjects = sentences(2000, seed=0)
    random = np.random.Generator(np.random.PCG64(1))
    wrong = random.random(len(texts)) < 0.4
    labels = np.where(wrong, (subjects + random.integers(1, 4, len(texts))) % 4, subjects)
    features = text_features(texts)
    # As many steps each.
    for name, filter_ratio, epochs in (("chosen", 0.5, 4), ("all", 0.0, 2)):
        chosen, accuracy = train(texts, features, labels, filter_ratio=filter_ratio, epochs=epochs)
        share = wrong[chosen].mean()
        print(f"{name}: {share:.1%} of the labels wrong, test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
