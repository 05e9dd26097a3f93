"""Features of texts: by their words alone, and by encoders of transformers."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from helpers.small_models import save_text_encoder

from saln.errors import InputError, WeightsError
from saln.features import text_features
from saln.features.text_encoders import TEXT_ENCODERS, TfidfEncoder, text_encoder
from saln.randomness import seeded_globally

SUBJECTS = {
    "sea": ["ship", "sailor", "harbor", "wave", "anchor", "storm", "island", "tide", "sail"],
    "kitchen": ["oven", "flour", "butter", "recipe", "dough", "sugar", "spoon", "salt", "bake"],
    "court": ["judge", "lawyer", "verdict", "trial", "witness", "appeal", "crime", "jury", "law"],
}


def sentences(count, seed=0):
    """Sentences of five words of a subject among words of all, with their subject's number."""
    random = np.random.Generator(np.random.PCG64(seed))
    everywhere = ["the", "a", "was", "with", "from", "before", "after", "again", "under", "near"]
    numbers = random.integers(0, len(SUBJECTS), size=count)
    texts = []
    for number in numbers:
        own = list(SUBJECTS.values())[number]
        words = [*random.choice(own, 5), *random.choice(everywhere, 6)]
        texts.append(" ".join(random.permutation(words)))
    return texts, numbers


def tfidf_by_hand(texts):
    """Of single words, by the definition: sublinear counts, smooth inverse frequencies."""
    counts = [Counter(text.split()) for text in texts]
    texts_with = Counter(word for count in counts for word in count)
    words = [word for word, number in sorted(texts_with.items()) if number > 1]
    table = np.zeros((len(texts), len(words)))
    for row, count in enumerate(counts):
        for column, word in enumerate(words):
            if count[word]:
                rarity = math.log((1 + len(texts)) / (1 + texts_with[word])) + 1
                table[row, column] = (1 + math.log(count[word])) * rarity
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def test_without_truncation_similarities_are_those_of_the_counts(monkeypatch):
    """Cosines of the rows are cosines of TF-IDF, where no dimension is cut off."""
    from saln.features import text_encoders

    weighted = text_encoders._weighted

    def words_alone(texts, analyzer, lengths):
        found = weighted(texts, "word", (1, 1))
        return found if analyzer == "word" else found * 0

    monkeypatch.setattr(text_encoders, "_weighted", words_alone)
    texts, _ = sentences(60)
    rows = text_features(texts)
    expected = tfidf_by_hand(texts)
    np.testing.assert_allclose(rows @ rows.T, expected @ expected.T, atol=1e-5)


def test_the_nearest_text_is_of_the_same_subject():
    texts, subjects = sentences(300)
    rows = text_features(texts)
    assert rows.dtype == np.float32
    assert rows.shape == (300, 300)
    similar = rows @ rows.T
    np.fill_diagonal(similar, -1)
    assert np.mean(subjects[similar.argmax(axis=1)] == subjects) > 0.98
    few = TfidfEncoder(width=8).encode(texts)
    assert few.shape == (300, 8)
    assert np.array_equal(rows, text_features(texts))
    assert not np.array_equal(few, TfidfEncoder(seed=1, width=8).encode(texts))
    np.testing.assert_allclose(np.linalg.norm(few, axis=1), 1, rtol=1e-5)


def test_other_forms_of_a_word_and_languages_without_spaces_are_near():
    texts = ["the connection failed", "connecting fails", "猫が好きです", "犬が好きです", "zzz"]
    rows = text_features(texts)
    similar = rows @ rows.T
    assert similar[0, 1] > 0.1 > abs(similar[0, 2])
    assert similar[2, 3] > 0.5
    assert not rows[4].any()  # it shares nothing with another


@pytest.mark.parametrize(
    "texts",
    [[""], ["", "  "], ["one"], ["same", "same"], ["?!", "..."], ["a b", "", "b c"], ["x" * 10**5]],
)
def test_few_empty_and_odd_texts_have_finite_rows(texts):
    rows = text_features(texts)
    assert rows.shape[0] == len(texts)
    assert rows.shape[1] >= 1
    assert np.isfinite(rows).all()
    for row, text in zip(rows, texts, strict=True):
        assert text.strip() or not row.any()


def test_progress_ends_with_all_texts():
    seen = []
    text_features(["a b", "b c"], progress=seen.append)
    assert [(now.rows_done, now.rows) for now in seen] == [(0, 2), (2, 2)]


def test_what_cannot_be_encoded_is_refused():
    with pytest.raises(InputError, match="no texts to encode"):
        text_features([])
    with pytest.raises(InputError, match="text 1 is NoneType, not text"):
        text_features(["a", None])
    with pytest.raises(
        InputError, match=r"unknown text encoder 'word2vec'; choose one of tfidf, hf:"
    ):
        text_features(["a"], "word2vec")
    with pytest.raises(InputError, match="batch_size"):
        text_features(["a"], batch_size=0)
    assert list(TEXT_ENCODERS.help()) == ["tfidf", "hf:MODEL"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A small BERT with a tokenizer of the subjects' words, in a folder."""
    words = [word for subject in SUBJECTS.values() for word in subject]
    return save_text_encoder(tmp_path_factory.mktemp("bert"), words)


def by_hand(folder, texts, first=False):
    """One text after the other, without padding."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            tokens = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
            states = model(**tokens).last_hidden_state[0]
            rows.append(states[0] if first else states.mean(0))
    return torch.stack(rows).numpy()


def test_an_encoders_rows_are_the_mean_over_a_texts_tokens(bert):
    texts = ["ship", "", *sentences(9)[0], "sail " * 60]
    expected = by_hand(bert, texts)
    assert np.abs(expected - expected[0]).max() > 0.1
    seen = []
    for size in (None, 1, 4):
        rows = text_features(texts, f"hf:{bert}", batch_size=size, progress=seen.append)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert [now.rows_done for now in seen[-4:]] == [0, 4, 8, 12]


def test_the_first_token_where_the_folder_says_so(bert, tmp_path):
    folder = save_text_encoder(tmp_path / "cls", SUBJECTS["sea"])
    mean = text_encoder(f"hf:{folder}").identity
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    np.testing.assert_allclose(
        text_features(["ship sail", "tide"], f"hf:{folder}"),
        by_hand(folder, ["ship sail", "tide"], first=True),
        atol=1e-5,
    )
    assert text_encoder(f"hf:{folder}").identity != mean


def test_the_identity_follows_weights_words_and_settings(bert, tmp_path):
    words = [word for subject in SUBJECTS.values() for word in subject]
    same = save_text_encoder(tmp_path / "same", words)
    other = save_text_encoder(tmp_path / "other", words, seed=1)
    less = save_text_encoder(tmp_path / "less", [*words[:-1], "other"])
    found = [text_encoder(f"hf:{folder}").identity for folder in (bert, same, other, less)]
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert text_encoder(f"hf:{bert}").by_itself
    assert not text_encoder("tfidf").by_itself
    assert text_encoder("tfidf").identity != text_encoder("tfidf", seed=1).identity


@pytest.mark.parametrize("kind", ["clip", "t5", "gpt2", "roberta"])
def test_other_kinds_of_models_give_a_row_a_text(kind, tmp_path):
    folder = save_text_encoder(tmp_path / kind, SUBJECTS["sea"], kind=kind)
    texts = ["ship sail", "", "tide " * 100]
    rows = text_features(texts, f"hf:{folder}", batch_size=2)
    assert rows.shape == (3, 16)
    alone = np.concatenate([text_features([text], f"hf:{folder}") for text in texts])
    np.testing.assert_allclose(rows, alone, atol=1e-5)
    assert len(np.unique(rows.round(4), axis=0)) == 3


def test_an_encoder_that_was_published_without_its_decoder(tmp_path):
    from transformers import T5EncoderModel

    folder = save_text_encoder(tmp_path / "t5", SUBJECTS["sea"], kind="t5")
    expected = text_features(["ship sail"], f"hf:{folder}")
    with seeded_globally("what it draws before weights are loaded"):
        alone = T5EncoderModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    alone.save_pretrained(tmp_path / "alone")
    shutil.copy(tmp_path / "alone" / "model.safetensors", folder)
    np.testing.assert_allclose(text_features(["ship sail"], f"hf:{folder}"), expected, atol=1e-6)


def test_models_that_are_not_there_say_the_cure(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"cannot be loaded from the folder .*save_pretrained"):
        text_features(["a"], f"hf:{tmp_path / 'empty'}")
    with pytest.raises(WeightsError, match="cannot be loaded from the folder"):
        text_features(["a"], f"hf:{tmp_path / 'none'}")


def test_nothing_is_asked_of_the_network_where_files_are_there(bert, requests):
    assert len(text_features(["ship"], f"hf:{bert}")) == 1
    assert not requests
    with pytest.raises(WeightsError, match="is not on this machine and cannot be downloaded"):
        text_features(["ship"], "hf:some/encoder")
    assert 1 <= len(requests) <= 2


def test_the_default_loads_no_transformers(warm, tmp_path):
    (tmp_path / "script.py").write_text(
        "import sys; from saln.features import text_features; text_features(['a b', 'b c']); "
        "print('transformers' in sys.modules)"
    )
    done = warm.run([], tmp_path, script=tmp_path / "script.py")
    assert done.stdout == "False\n", done.stderr
