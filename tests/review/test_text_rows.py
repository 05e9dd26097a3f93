"""Features of texts are kept by what the texts say, and computed once."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from saln.errors import InputError
from saln.review import text_rows as module
from saln.review.table_items import text_key
from saln.review.text_rows import NO_TEXT, text_rows


class Letters:
    """Counts letters; remembers what it was asked, and ends after so many calls."""

    name, identity = "letters", "0" * 32

    def __init__(self, by_itself=True, calls=100):
        self.by_itself, self.calls = by_itself, calls
        self.asked = []

    def encode(self, texts, progress=None):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        self.asked += texts
        return np.array([self.of(text) for text in texts], dtype=np.float32)

    @staticmethod
    def of(text):
        return [text.count(letter) for letter in "abc"]


def rows_of(texts, encoder, folder):
    found = text_rows(texts, [text_key(text) for text in texts], encoder, folder)
    for text, row, problem in zip(texts, found.features, found.problems, strict=True):
        if text.strip():
            assert row.tolist() == Letters.of(text)
            assert problem == ""
        else:
            assert np.isnan(row).all()
            assert problem == NO_TEXT
    assert found.computed == len(encoder.asked)
    return encoder.asked


def test_each_text_is_computed_once_wherever_it_stands(tmp_path):
    assert rows_of(["ab", "c", "ab", " "], Letters(), tmp_path) == ["ab", "c"]
    assert rows_of(["c", "", "ab"], Letters(), tmp_path) == []
    assert rows_of(["bb", "ab"], Letters(), tmp_path) == ["bb"]


def test_all_together_are_computed_again_when_one_changes(tmp_path):
    assert rows_of(["ab", "c", "ab"], Letters(by_itself=False), tmp_path) == ["ab", "c", "ab"]
    assert rows_of(["ab", "c", "ab"], Letters(by_itself=False), tmp_path) == []
    assert rows_of(["ab", "cc", "ab"], Letters(by_itself=False), tmp_path) == ["ab", "cc", "ab"]


def test_parts_that_were_done_stay_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_TEXTS", 3)
    texts = [f"{'a' * number}b" for number in range(8)]
    with pytest.raises(KeyboardInterrupt):
        rows_of(texts, Letters(calls=2), tmp_path)
    assert rows_of(texts, Letters(), tmp_path) == texts[6:]


@pytest.mark.parametrize("by_itself", [True, False])
def test_what_is_damaged_is_made_again(by_itself, tmp_path):
    texts = ["ab", "c"]
    rows_of(texts, Letters(by_itself), tmp_path)
    (part,) = tmp_path.rglob("*.npz")
    part.write_bytes(part.read_bytes()[:-40])
    assert rows_of(texts, Letters(by_itself), tmp_path) == texts
    assert rows_of(texts, Letters(by_itself), tmp_path) == []


def test_encoders_do_not_share_rows(tmp_path):
    rows_of(["ab"], Letters(), tmp_path)
    other = Letters()
    other.identity = hashlib.blake2b(b"other", digest_size=16).hexdigest()
    assert rows_of(["ab"], other, tmp_path) == ["ab"]


def test_texts_that_all_say_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="no text in any of 2 rows"):
        rows_of(["", " \n"], Letters(), tmp_path)
