"""The texts of the benchmark are those that it says, and a row is of the finder it names."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from text_labels import UnscaledFeatures, docstrings, text_row, topics

from saln.features import text_features


def test_docstrings_are_labeled_by_their_package(tmp_path):
    long = "It is long enough to say something about its package, number "
    for package, count in (("small", 2), ("large", 5), ("test", 9), ("site-packages", 9)):
        folder = tmp_path / package / "inner"
        folder.mkdir(parents=True)
        for number in range(count):
            body = f'class A:\n    def f(self):\n        """{long}{package} {number}."""\n'
            (folder / f"m{number}.py").write_text(f'"""Too short."""\n{body}')
    (tmp_path / "single.py").write_text(f'def f():\n    "{long}of single."\n')
    (tmp_path / "broken.py").write_text("def f(:\n")
    texts, labels = docstrings(tmp_path)
    assert texts[:5] == [f"{long}large {number}." for number in range(5)]
    assert texts[5:] == [f"{long}small 0.", f"{long}small 1.", f"{long}of single."]
    assert labels.tolist() == [0] * 5 + [1] * 2 + [2]


def test_topics_are_the_same_everywhere_and_tell_their_label():
    texts, labels = topics()
    assert topics()[0] == texts
    words = [set(text.split()) for text in texts]
    random = np.random.default_rng(0)
    same, other = [], []
    for _ in range(4000):
        i, j = random.integers(len(texts), size=2)
        share = len(words[i] & words[j]) / min(len(words[i]), len(words[j]))
        if i != j:
            (same if labels[i] == labels[j] else other).append(share)
    assert np.mean(same) > 1.1 * np.mean(other)


def test_a_row_names_its_finder_and_what_it_saw():
    texts, labels = topics()
    some = np.flatnonzero(labels < 3)
    rows = text_features([texts[row] for row in some])
    cleanlabs = ("cleanlab", "cleanlab-as-they-are") if find_spec("cleanlab") else ()
    found = {
        finder: text_row(rows, labels[some], "topics", 0, finder) for finder in ("ours", *cleanlabs)
    }
    for finder, row in found.items():
        assert (row["finder"], row["texts"], row["dataset"]) == (finder, len(some), "topics")
        assert abs(row["noise_rate"] - 0.2) < 0.01
        assert row["auroc"] > (0.9 if finder == "ours" else 0.6)
    if cleanlabs:
        assert found["cleanlab"]["auroc"] != found["cleanlab-as-they-are"]["auroc"]


def test_unscaled_features_keep_how_much_each_weighs():
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * [1, 10, 100]
    data = UnscaledFeatures(rows.astype(np.float32), np.zeros(50, dtype=np.int64), 1)
    spread = data.standardized.std(dim=0)
    assert 5 < spread[1] / spread[0] < 20
    assert abs(float(data.standardized.std()) - 1) < 0.05
