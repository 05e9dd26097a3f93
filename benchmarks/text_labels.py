"""How well are wrong labels of texts found? Ours and cleanlab, on the same features.

    python benchmarks/text_labels.py --out rows.jsonl         and a table
    python benchmarks/text_labels.py --datasets topics --seeds 0 --json

Two sets of texts that every machine can make: ``docstrings``, those of Python's standard library,
labeled by their package (they depend on the version of Python, which the first line of ``--out``
names), and ``topics``, generated texts whose words are drawn from the topics' own distributions.
A fifth of the labels are replaced by another one at random. Features are ``tfidf``'s. cleanlab has
a logistic regression, five folds, whose regularization is chosen by the likelihood of held-out
given labels (``label_finders.py``); on standardized features, and, as ``cleanlab-as-they-are``, on
those features without changing what each weighs. AUROC: how the wrong are ranked; F1: of those that
are called wrong.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from label_finders import Features, Labels, Row, finder_row
from probe_data import noisy_labels

from saln.experiments import mean_interval
from saln.experiments.environment import environment
from saln.features import text_features
from saln.randomness import derive_seed

__all__ = ["DATASETS", "docstrings", "text_row", "topics"]

RATE = 0.2
FINDERS = ("ours", "filter", "cleanlab", "cleanlab-as-they-are")
# Of the logistic regressions: a wider choice than images need.
STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)
# Of the standard library: packages with the most docstrings; letters that each must have.
PACKAGES = 16
LETTERS = 40
# Of the generated texts: how many, topics, words in all and in a text, and how much topics differ.
TEXTS, TOPICS, WORDS, LENGTH, CONTRAST = 3000, 12, 4000, 30, 0.25


@dataclass(frozen=True)
class UnscaledFeatures(Features):
    """Features for a logistic regression that sees each as large as it is."""

    @cached_property
    def standardized(self) -> torch.Tensor:
        """Centered; scaled together, so that their mean variance is 1: float32."""
        rows = self.train - self.train.mean(axis=0)
        return torch.from_numpy(rows / rows.std()).to(self.device)


def docstrings(root: Path | None = None) -> tuple[list[str], Labels]:
    """Docstrings of a folder of packages and their packages' numbers; read, not imported.

    Args:
        root: Python's own standard library when None.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    found: dict[str, dict[str, None]] = {}
    for path in sorted(root.rglob("*.py")):
        package = path.relative_to(root).parts[0].removesuffix(".py")
        if package not in ("site-packages", "test", "__pycache__"):
            found.setdefault(package, {}).update(dict.fromkeys(_docstrings_of(path)))
    largest = sorted(found, key=lambda name: (-len(found[name]), name))[:PACKAGES]
    pairs = [(text, label) for label, name in enumerate(largest) for text in found[name]]
    return [text for text, _ in pairs], np.array([label for _, label in pairs], dtype=np.int64)


def _docstrings_of(path: Path) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in the library's own tests
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            text = ast.get_docstring(node)
            if text is not None and len(text) >= LETTERS:
                yield text


def topics() -> tuple[list[str], Labels]:
    """Generated texts: each word is drawn from its topic's own words or from those of all."""
    random = np.random.Generator(np.random.PCG64(derive_seed(0, "topics")))
    # As in languages: few words are common, most are rare.
    common = 1.0 / np.arange(1, WORDS + 1)
    own = [random.permutation(common) for _ in range(TOPICS)]
    shares = [part / part.sum() for part in (common, *own)]
    labels = random.integers(TOPICS, size=TEXTS)
    texts = []
    for label in labels.tolist():
        length = int(random.integers(LENGTH // 2, 2 * LENGTH))
        mixed = (1 - CONTRAST) * shares[0] + CONTRAST * shares[label + 1]
        texts.append(" ".join(f"w{word}" for word in random.choice(WORDS, length, p=mixed)))
    return texts, labels.astype(np.int64)


DATASETS = {"docstrings": docstrings, "topics": topics}


def text_row(rows: np.ndarray, labels: Labels, dataset: str, seed: int, finder: str) -> Row:
    """How well a finder does on features of texts, (n, d); see :func:`label_finders.finder_row`."""
    kind = UnscaledFeatures if finder.endswith("as-they-are") else Features
    data = kind(rows, labels, int(labels.max()) + 1, strengths=STRENGTHS)
    about = {
        "question": "text-finders", "dataset": dataset, "noise": "symmetric", "asked_rate": RATE,
        "seed": seed, "texts": len(labels), "classes": data.n_classes,
    }  # fmt: skip
    given = noisy_labels(data, "symmetric", RATE, seed)
    row = finder_row(data, given, about, finder.removesuffix("-as-they-are"))
    return row | {"finder": finder}


def table_of(rows: list[Row]) -> str:
    """Means over the seeds, with 95% intervals where there are several."""
    lines = [
        "| texts | finder | seeds | AUROC | F1 | estimated (%) |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for dataset, finder in dict.fromkeys((row["dataset"], row["finder"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["finder"]) == (dataset, finder)]
        cells = []
        for name, scale, digits in (
            ("auroc", 1, 4), ("f1", 1, 3), ("estimated_noise_rate", 100, 1)
        ):  # fmt: skip
            mean, between = mean_interval([scale * row[name] for row in own])
            interval = (
                "" if between is None else f" [{between[0]:.{digits}f}, {between[1]:.{digits}f}]"
            )
            cells.append(f"{mean:.{digits}f}{interval}")
        lines.append(f"| {dataset} | {finder} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs what is asked for, and prints rows or the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--datasets", default=",".join(DATASETS))
    parser.add_argument("--finders", default=",".join(FINDERS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.out is not None:
        command = {"command": ["python", "benchmarks/text_labels.py", *sys.argv[1:]]}
        session = {"environment": environment(torch.device("cpu")) | command}
        args.out.write_text(json.dumps(session) + "\n", encoding="utf-8")
    rows: list[Row] = []
    for dataset in args.datasets.split(","):
        texts, labels = DATASETS[dataset]()
        features = text_features(texts)
        for seed in map(int, args.seeds.split(",")):
            for finder in args.finders.split(","):
                rows.append(text_row(features, labels, dataset, seed, finder))
                line = json.dumps(rows[-1])
                if args.out is not None:
                    with args.out.open("a", encoding="utf-8") as stream:
                        stream.write(line + "\n")
                if args.json:
                    print(line, flush=True)
    if not args.json:
        print(table_of(rows))


if __name__ == "__main__":
    main()
