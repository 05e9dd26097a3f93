"""JEST for image-text pairs: a small two-tower model learns pets from noisy captions.

Captions are made from the names of breed and species; a share of them is mixed up, as on the
web. A reference model learns from a few pairs whose captions are right, as in the JEST paper
(arXiv 2406.17711), and JEST keeps what the learner lacks and the reference knows. Both arms
take the same number of steps with the same number of pairs. Images are seen through a frozen
EfficientNet-Lite0 (extra ``offline``), so that the whole takes a minute or two on a CPU.

    python examples/image_text.py --data-root ../shared/data
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from saln.data import DataSet, Examples, load_dataset
from saln.features import build_backbone, extract_features
from saln.selection import (
    Candidates,
    ImageTextJEST,
    PairEmbeddings,
    Uniform,
    candidates_needed,
    sigmoid_losses,
    softmax_losses,
)
from saln.training import derive_generator, seeded_globally

TEMPLATES = (
    "a photo of a {breed}, a kind of {species}",
    "my {species}, the {breed}",
    "this {species} is a {breed}",
    "{breed}",
)
LOSSES = {"sigmoid": sigmoid_losses, "softmax": softmax_losses}
BATCH = 64
FILTER_RATIO = 0.8


@dataclass(frozen=True)
class Pairs:
    """Images, as frozen features, and their captions, as bags of words.

    Attributes:
        images: float32, (n, 1280).
        words: float32, (n, v): how often each word occurs.
        is_wrong: bool, (n,): whether the caption is another image's.
    """

    images: Tensor
    words: Tensor
    is_wrong: Tensor

    def __getitem__(self, rows: Tensor) -> Pairs:
        return Pairs(self.images[rows], self.words[rows], self.is_wrong[rows])


class TwoTowers(nn.Module):
    """Maps images and texts to unit vectors, with SigLIP's learned scale and bias."""

    def __init__(self, image_width: int, vocabulary: int, loss: str) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(image_width, 128), nn.ReLU(), nn.Linear(128, 64))
        self.text = nn.Linear(vocabulary, 64, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0 if loss == "sigmoid" else 0.0))

    def forward(self, pairs: Pairs) -> PairEmbeddings:
        """Embeds both sides of the pairs."""
        return PairEmbeddings(
            normalize(self.image(pairs.images), dim=1),
            normalize(self.text(pairs.words), dim=1),
            self.log_scale.exp(),
            self.bias,
        )


def batch_loss(pairs: PairEmbeddings, loss: str) -> Tensor:
    """What the model trains on: SigLIP's sum over pairs, or CLIP's mean."""
    if loss == "sigmoid":
        return sigmoid_losses(pairs).sum() / len(pairs)
    return softmax_losses(pairs).diagonal().mean()


class Captions:
    """Writes captions of breeds as bags of words."""

    def __init__(self, data: DataSet, data_root: Path) -> None:
        # "name class species breed-number", the class from 1, species 1 for cats.
        lines = (data_root / "oxford-iiit-pet" / "annotations" / "trainval.txt").read_text()
        rows = [line.split() for line in lines.splitlines() if not line.startswith("#")]
        species = {int(row[1]) - 1: ("cat", "dog")[int(row[2]) - 1] for row in rows}
        self.texts = [
            [t.format(breed=breed, species=species[label]).replace(",", "") for t in TEMPLATES]
            for label, breed in enumerate(data.class_names)
        ]
        words = {word for texts in self.texts for text in texts for word in text.lower().split()}
        self.vocabulary = sorted(words)
        place = {word: i for i, word in enumerate(self.vocabulary)}
        self.bags = torch.zeros(len(self.texts), len(TEMPLATES), len(place))
        for label, texts in enumerate(self.texts):
            for number, text in enumerate(texts):
                for word in text.lower().split():
                    self.bags[label, number, place[word]] += 1

    def write(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """One caption for each label, by a random template: (n, v)."""
        number = torch.randint(0, len(TEMPLATES), (len(labels),), generator=generator)
        return self.bags[labels, number]


def make_pairs(
    images: Tensor, labels: Tensor, captions: Captions, noise: float, seed: int
) -> Pairs:
    """Pairs of which a share has the caption of an example of another breed."""
    generator = derive_generator(seed, "captions")
    written = labels.clone()
    chosen = torch.randperm(len(labels), generator=generator)[: round(noise * len(labels))]
    shift = torch.randint(1, len(captions.texts), (len(chosen),), generator=generator)
    written[chosen] = (labels[chosen] + shift) % len(captions.texts)
    return Pairs(images, captions.write(written, generator), written != labels)


def zero_shot_accuracy(
    model: TwoTowers, images: Tensor, labels: Tensor, captions: Captions
) -> float:
    """How often an image is nearest to the mean caption of its own breed."""
    with torch.inference_mode():
        texts = normalize(model.text(captions.bags), dim=2).mean(dim=1)
        found = (normalize(model.image(images), dim=1) @ texts.T).argmax(dim=1)
    return float((found == labels).float().mean())


def train(
    pairs: Pairs, *, arm: str, loss: str, steps: int, seed: int, reference: TwoTowers | None
) -> tuple[TwoTowers, float]:
    """Trains for some steps; returns the model and the share of wrong captions among its pairs."""
    with seeded_globally(seed, "towers"):
        model = TwoTowers(pairs.images.shape[1], pairs.words.shape[1], loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    selector = ImageTextJEST(loss=loss) if arm == "jest" else Uniform()
    size = min(BATCH, len(pairs.images))
    n = min(candidates_needed(size, FILTER_RATIO), len(pairs.images))
    wrong = 0.0
    for step in range(steps):
        generator = derive_generator(seed, "candidates", step)
        indices = torch.randperm(len(pairs.images), generator=generator)[:n]
        embeddings: dict[str, PairEmbeddings] = {}
        if reference is not None:
            with torch.inference_mode():
                embeddings["learner_embeddings"] = model(pairs[indices])
                embeddings["reference_embeddings"] = reference(pairs[indices])
        candidates = Candidates(
            indices=indices,
            learner_embeddings=embeddings.get("learner_embeddings"),
            reference_embeddings=embeddings.get("reference_embeddings"),
        )
        positions = selector(
            candidates, size, generator=derive_generator(seed, "select", step)
        ).positions
        kept = pairs[indices[positions]]
        wrong += float(kept.is_wrong.float().mean()) / steps
        optimizer.zero_grad(set_to_none=True)
        batch_loss(model(kept), loss).backward()
        optimizer.step()
    return model, wrong


def features_of(examples: Examples, cache: Path) -> Tensor:
    """Frozen EfficientNet-Lite0 features at 96 pixels, standardized by row."""
    backbone = build_backbone("efficientnet-lite0", image_size=96)
    store = extract_features(examples, backbone, name="oxford-pet", cache_dir=cache)
    rows = torch.from_numpy(np.array(store.features, dtype=np.float32))
    return (rows - rows.mean(dim=1, keepdim=True)) / rows.std(dim=1, keepdim=True)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Trains both arms with every seed, prints a table, gives the mean accuracies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--loss", choices=sorted(LOSSES), default="sigmoid")
    parser.add_argument("--noise", type=float, default=0.4, help="share of mixed-up captions")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="the number of images for training and testing")
    default = Path(tempfile.gettempdir()) / "saln-example-features"
    parser.add_argument("--cache-dir", type=Path, default=default)
    options = parser.parse_args(arguments)

    data = load_dataset(
        "oxford-pet",
        options.data_root,
        limit=options.limit,
        validation_share=0.02,
        reference_share=0.1,
    )
    captions = Captions(data, options.data_root)
    parts = {
        name: (
            features_of(part, options.cache_dir / name),
            torch.from_numpy(part.true_labels),
        )
        for name, part in (
            ("train", data.train), ("reference", data.reference), ("test", data.test)
        )
    }  # fmt: skip
    accuracies: dict[str, list[float]] = {"reference": [], "uniform": [], "jest": []}
    wrong: dict[str, list[float]] = {"reference": [], "uniform": [], "jest": []}
    seconds = dict.fromkeys(accuracies, 0.0)
    for seed in range(options.seeds):
        reference = None
        for arm in accuracies:
            right = arm == "reference"
            pairs = make_pairs(
                *parts["reference" if right else "train"],
                captions,
                0.0 if right else options.noise,
                seed,
            )
            start = time.perf_counter()
            model, share = train(
                pairs,
                arm=arm,
                loss=options.loss,
                steps=options.steps,
                seed=seed,
                reference=reference if arm == "jest" else None,
            )
            seconds[arm] += (time.perf_counter() - start) / options.seeds
            accuracies[arm].append(zero_shot_accuracy(model, *parts["test"], captions))
            wrong[arm].append(share)
            if right:
                reference = model
    counts = ", ".join(f"{len(labels):,} {name}" for name, (_, labels) in parts.items())
    print(f"pets ({counts}), {options.loss} loss, {options.noise:.0%} of captions mixed up")
    print(f"{options.steps} steps of {BATCH} pairs, f = {FILTER_RATIO}, {options.seeds} seeds\n")
    print("arm        zero-shot accuracy      wrong captions trained on   seconds")
    for arm, values in accuracies.items():
        mean, low, high = np.mean(values), min(values), max(values)
        print(
            f"{arm:<10} {mean:6.1%}  ({low:.1%} to {high:.1%})   {np.mean(wrong[arm]):24.1%}"
            f"   {seconds[arm]:7.1f}"
        )
    return {arm: float(np.mean(values)) for arm, values in accuracies.items()}


if __name__ == "__main__":
    main()
