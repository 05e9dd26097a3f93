from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from saln.data.datasets import load_dataset
from saln.errors import DataError
from saln.experiments.kept_examples import (
    ChoiceRecord,
    read_choices,
    read_examples,
    save_examples,
    save_sheets,
)
from saln.experiments.run_folder import RunFolder
from saln.selection import SALN, Uniform
from saln.selection.candidates import Candidates


def record(selector, epochs=3, steps=4, n=10, show=True, stop=None, before=None):
    """Every epoch's choices among n * steps examples, in order."""
    found = before or ChoiceRecord(n * steps, [steps] * epochs, show=show)
    selector.watch(found.choice)
    begin = found.choices // steps
    for epoch in range(begin + 1, (stop or epochs) + 1):
        kept = []
        for step in range(steps):
            indices = torch.arange(step * n, (step + 1) * n)
            random = torch.Generator().manual_seed(100 * epoch + step)
            features = torch.randn(n, 6, generator=random)
            candidates = Candidates(indices=indices, features=features)
            kept.append(indices[selector(candidates, 3, generator=random).positions])
        found.end_epoch(epoch, torch.cat(kept).numpy())
    return found


def same(first, second):
    assert np.array_equal(first.kept, second.kept)
    assert first.facts.keys() == second.facts.keys()
    for name in first.facts:
        assert np.array_equal(first.facts[name], second.facts[name])
    assert len(first.shown) == len(second.shown)
    for one, two in zip(first.shown, second.shown, strict=True):
        for a, b in zip(one, two, strict=True):
            assert np.array_equal(a, b)


def test_a_record_holds_what_was_chosen(tmp_path):
    found = record(SALN())
    found.save(tmp_path, "saln", 0)
    read = read_choices(tmp_path, "saln", 0, 40)
    assert read.kept.shape == (3, 40)
    assert (read.kept.sum(axis=1) == 12).all()
    # Epochs 1, 2 and 3; batches 0, 1 and the middle one.
    assert [(batch.epoch, batch.step) for batch in read.shown] == [
        (epoch, step) for epoch in (1, 2, 3) for step in (0, 1, 2)
    ]
    for batch in read.shown:
        where = batch.indices[batch.positions]
        assert read.kept[batch.epoch - 1, where].all()
        top = np.sort(batch.scores)[-3:]
        assert np.allclose(np.sort(batch.scores[batch.positions]), top)
    assert set(read.facts) == {"eigenvalue_gap", "participation_ratio"}
    assert all(len(values) == 12 for values in read.facts.values())
    # Of a unit vector v the ratio is 1 / sum(v ** 4).
    first = read.facts["participation_ratio"][0]
    assert first == pytest.approx(1 / (read.shown[0].scores ** 4).sum(), rel=1e-5)


def test_a_record_goes_on_from_its_state(tmp_path):
    whole = record(SALN())
    whole.save(tmp_path, "whole", 0)
    begun = record(SALN(), stop=1)
    torch.save(begun.state_dict(), tmp_path / "state.pt")
    again = ChoiceRecord(40, [4] * 3, show=True)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    record(SALN(), before=again).save(tmp_path, "again", 0)
    same(read_choices(tmp_path, "whole", 0, 40), read_choices(tmp_path, "again", 0, 40))


def test_nothing_is_shown_where_it_is_not_asked_for(tmp_path):
    found = record(Uniform(), show=False)
    found.save(tmp_path, "uniform", 1)
    read = read_choices(tmp_path, "uniform", 1, 40)
    assert read.shown == ()
    assert read.facts == {}
    assert read_choices(tmp_path, "uniform", 2, 40) is None


def test_a_broken_file_is_named(tmp_path):
    record(Uniform()).save(tmp_path, "uniform", 0)
    path = tmp_path / "choices" / "uniform-seed0.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"uniform-seed0\.npz cannot be read"):
        read_choices(tmp_path, "uniform", 0, 40)


def test_labels_and_images_are_kept_once(tmp_path):
    data = load_dataset("digits", limit=100).with_label_noise(0.5, 0)
    save_examples(tmp_path, 0, data.train, data.class_names)
    read = read_examples(tmp_path, 0)
    assert read.labels.tolist() == data.train.labels.tolist()
    assert read.true_labels.tolist() == data.train.true_labels.tolist()
    assert read.class_names == tuple("0123456789")
    assert read_examples(tmp_path, 1) is None
    shown = record(Uniform(), n=20, steps=4).shown[:1]
    save_sheets(tmp_path, data.train, shown)
    path = RunFolder(tmp_path).sheet(1, 0)
    with Image.open(path) as sheet:
        assert sheet.size == (16 * 8, 2 * 8)  # twenty digits of 8 x 8, 16 a row
        pixels = np.asarray(sheet.convert("RGB"))
    eighteenth = data.train.images.load(int(data.train.rows[17]))
    assert np.array_equal(pixels[8:, 8:16], np.asarray(eighteenth))
    before = path.stat().st_mtime_ns
    save_sheets(tmp_path, data.train, shown)
    assert path.stat().st_mtime_ns == before
