from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.experiments_rows import made, run_of, summary_of
from PIL import Image

from saln.errors import DataError
from saln.experiments.kept_examples import ArmChoices, SeedExamples, Shown
from saln.experiments.run_folder import RunFolder
from saln.report.catalog import SECTIONS
from saln.report.choice_section import overlap
from saln.report.figures import weight_distribution, weight_map
from saln.report.gallery import Candidate, ShownBatch, make_gallery
from saln.report.reported_run import Chosen, ReportedRun
from saln.report.values import IntervalCurve, Panel, Table

EVIL = "<script>alert(1)</script>"
LABELS = np.array([0, 0, 1, 1], dtype=np.int32)
TRUE = np.array([0, 0, 1, 0], dtype=np.int32)  # the last label is wrong


def kept(*epochs):
    return np.array(epochs, dtype=np.bool_)


@pytest.fixture
def chosen():
    shown = Shown(1, 0, np.array([3, 0, 1]), np.array([1]), np.array([0.1, 0.9, 0.5], np.float32))
    facts = {"participation_ratio": np.array([2.0, 4.0], np.float32)}
    saln = ArmChoices(kept([1, 0, 0, 0], [1, 0, 1, 0]), facts, (shown,))
    uniform = ArmChoices(kept([0, 0, 0, 1], [1, 0, 0, 1]), {}, (shown._replace(scores=None),))
    examples = SeedExamples(LABELS, TRUE, ("cat", EVIL))
    return Chosen({0: examples}, {0: {"uniform": uniform, "saln": saln}}, truth=True)


def test_overlap_is_within_epochs():
    first, second = kept([1, 0], [0, 1]), kept([1, 0], [1, 0])
    assert overlap(first, second) == 0.5
    assert overlap(first, first) == 1.0


def test_what_was_chosen_in_values(chosen):
    figures = made(
        next(each.parts for each in SECTIONS if each.name == "chosen"), run_of(chosen=chosen)
    )
    uniform, saln = figures["times_chosen"].curves
    # saln: two never, one once, one twice.
    assert saln == IntervalCurve("saln", (0, 1, 2), *[(0.5, 0.25, 0.25)] * 3)
    assert uniform.y == (0.5, 0.25, 0.25)
    # True classes of what saln chose: 0, 0, 1: 2/3 and 1/3, of data of 3/4 and 1/4.
    (panel,) = figures["class_mix"].panels
    assert panel.values[1] == pytest.approx((8 / 9, 4 / 3))
    assert figures["class_mix"].columns == ("cat", EVIL)
    # Both kept example 0 in epoch 2, one of three choices each.
    assert figures["overlap"].panels == (
        Panel("", ((1.0, pytest.approx(1 / 3)), (pytest.approx(1 / 3), 1.0))),
    )
    assert figures["participation_ratio"].curves == (
        IntervalCurve("saln", (1, 2), (2.0, 4.0), (2.0, 4.0), (2.0, 4.0)),
    )
    assert "eigenvalue_gap" not in figures
    assert figures["chosen"] == Table(
        "chosen",
        figures["chosen"].title,
        ("arm", "never", "most often", "wrong labels", "shared with uniform"),
        # uniform kept the wrong label in two of three choices, a quarter of the data.
        (("uniform", "50.0", "2", "+41.7", "–"), ("saln", "50.0", "2", "-25.0", "33.3")),
    )


def test_the_gallery_tells_kept_from_dropped(tmp_path, chosen):
    assert make_gallery(tmp_path, chosen) is None  # no images
    path = RunFolder(tmp_path).sheet(1, 0)
    path.parent.mkdir()
    Image.new("RGB", (128, 8)).save(path)
    gallery = make_gallery(tmp_path, chosen)
    assert gallery.class_names == ("cat", EVIL)
    assert gallery.sheets["1-0"].startswith("data:image/webp;base64,")
    assert gallery.rows == {"1-0": 1}
    assert gallery.batches[1] == ShownBatch(
        "saln", 1, 0,
        (
            Candidate(1, 0, 0, 0, 0.9, True),
            Candidate(2, 1, 0, 0, 0.5, False),
            Candidate(0, 3, 1, 0, 0.1, False),
        ),
        0,
    )  # fmt: skip
    assert [one.score for one in gallery.batches[0].candidates] == [None] * 3


def test_the_final_layers_weights(tmp_path):
    import torch

    (tmp_path / "checkpoints").mkdir()
    state = {
        "body.weight": torch.ones(2, 5), "head.weight": torch.tensor([[1.0, -1.0], [0.5, 0.25]]),
        "head.bias": torch.zeros(2),
    }  # fmt: skip
    torch.save(state, tmp_path / "checkpoints" / "saln-seed3.pt")
    summary = dataclasses.replace(summary_of(), classes=2, seeds=(3, 4))
    weights = ReportedRun(tmp_path, summary).final_weights
    assert list(weights) == ["saln"]
    run = ReportedRun(tmp_path, summary)
    heat, spread = weight_map(run), weight_distribution(run)
    assert heat.panels == (Panel("saln", ((1.0, -1.0), (0.5, 0.25))),)
    (curve,) = spread.curves
    assert sum(curve.y) == pytest.approx(1)
    assert [x for x, y in zip(curve.x, curve.y, strict=True) if y] == pytest.approx(
        [-0.98333, 0.25, 0.51667, 0.98333], abs=0.02
    )
    assert weight_map(run_of()) is None
    assert weight_distribution(run_of()) is None
    (tmp_path / "checkpoints" / "uniform-seed3.pt").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=r"uniform-seed3\.pt cannot be read"):
        _ = ReportedRun(tmp_path, summary).final_weights
