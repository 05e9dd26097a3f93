"""One lookup of candidates: every kind of features, in all four that choose by them."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pandas
import pyarrow.parquet
import pytest
import torch
from helpers.feature_examples import ROWS as PICTURES
from helpers.feature_examples import Pictures, extract
from helpers.rank_processes import network
from torch.utils.data import DataLoader, TensorDataset

import saln
from saln.curation.array_source import ArraySource
from saln.errors import InputError
from saln.loading import mmap_rows
from saln.loading.candidate_fields import CandidateFields
from saln.randomness import derive_generator
from saln.selection.neighbor_beliefs import store_beliefs
from saln.selection.registry import read_selector

N, WIDTH, K, CANDIDATES, SEED = 60, 5, 4, 8, 3
# Eighths: float16 and bfloat16 hold them exactly, so every kind means the same numbers.
ROWS = np.round(8 * np.random.default_rng(2).standard_normal((N, WIDTH))).astype(np.float32) / 8
LABELS = np.arange(N) % 3
SETTINGS = {"batch_size": K, "seed": SEED}


class Keyed:
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return ((str(row), row) for row in range(self.n))


def by_batches(features, selector, folder, n=N, **options):
    return list(
        saln.SelectedBatches(features, selector=selector, filter_ratio=0.5, **SETTINGS, **options)
    )


def by_stream(features, selector, folder, n=N, **options):
    keys = [str(row) for row in range(n)]
    stream = saln.SelectedStream(
        Keyed(n), features=features, keys=keys, selector=selector, filter_ratio=0.5,
        shuffle_buffer=0, **SETTINGS, **options,
    )  # fmt: skip
    return [batch.indices.tolist() for batch in stream]


def by_learner(features, selector, folder, n=N, **options):
    data = TensorDataset(torch.zeros(n, 5), torch.arange(n) % 3, torch.arange(n))
    loader = DataLoader(data, CANDIDATES, drop_last=True, generator=torch.Generator())
    selected = saln.LearnerSelected(
        loader, selector=selector, learner=network(0), indices=2, features=features,
        **SETTINGS, **options,
    )  # fmt: skip
    return [kept.indices.tolist() for kept in selected]


def by_select(features, selector, folder, n=N):
    out = folder / "kept.parquet"
    saln.select(
        features, selector=selector, filter_ratio=0.5, candidates=CANDIDATES, out=out, seed=SEED
    )
    ids, batches = (pyarrow.parquet.read_table(out)[name].to_numpy() for name in ("id", "batch"))
    whole = range(len(ids) // K)  # a batch of left-over rows is chosen from here, too
    return [ids[batches == number].tolist() for number in whole]


OWNERS = {"batches": by_batches, "stream": by_stream, "learner": by_learner, "select": by_select}


def order_of(owner, rows):
    """In which order each looks at the rows."""
    keys = {"batches": (SEED, "order", 0), "select": (SEED, "order")}.get(owner)
    return (
        rows if keys is None else rows[torch.randperm(len(rows), generator=derive_generator(*keys))]
    )


def chosen_directly(owner, rows=None):
    """The choice of :class:`saln.SALN` among rows that were looked up by hand."""
    order = order_of(owner, torch.arange(N) if rows is None else rows)
    batches = []
    for indices in order.split(CANDIDATES):
        if len(indices) == CANDIDATES:
            candidates = saln.Candidates(indices=indices, features=torch.from_numpy(ROWS)[indices])
            selection = saln.SALN()(candidates, K, generator=torch.Generator())
            batches.append(indices[selection.positions].tolist())
    return batches


def mapped(folder):
    np.save(folder / "rows.npy", ROWS)
    return np.load(folder / "rows.npy", mmap_mode="r")


KINDS = {
    "store": lambda folder: saln.write_store(folder / "store", ROWS, LABELS),
    "array": lambda folder: ROWS,
    "float16": lambda folder: ROWS.astype(np.float16),
    "mapped": mapped,
    "tensor": lambda folder: torch.from_numpy(ROWS).requires_grad_(),
    "bfloat16": lambda folder: torch.from_numpy(ROWS).bfloat16(),
    "list": lambda folder: ROWS.tolist(),
    "list of tensors": lambda folder: list(torch.from_numpy(ROWS)),
    "data frame": lambda folder: pandas.DataFrame(ROWS),
    "GPU": lambda folder: torch.from_numpy(ROWS).cuda(),
}


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_features_is_taken_by_all_that_choose(kind, owner, tmp_path):
    if kind == "GPU" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    chosen = OWNERS[owner](KINDS[kind](tmp_path), saln.SALN(), tmp_path)
    assert len(chosen) == N // CANDIDATES
    assert [sorted(batch) for batch in chosen] == [sorted(b) for b in chosen_directly(owner)]


@pytest.mark.parametrize("owner", OWNERS)
def test_whole_numbers_are_features_and_their_number_is_enough_for_a_selector_without(
    owner, tmp_path
):
    choose = OWNERS[owner]
    folders = [tmp_path / str(number) for number in range(5)]
    for folder in folders:
        folder.mkdir()
    whole = (8 * ROWS).astype(np.int16)
    by_whole = choose(whole, saln.SALN(), folders[0])
    assert by_whole == choose(whole.astype(np.float32), saln.SALN(), folders[1])
    by_number = choose(N, saln.Uniform(), folders[2])
    assert by_number == choose(ROWS, saln.Uniform(), folders[3])
    assert len(by_number) == N // CANDIDATES
    with pytest.raises(InputError, match="SALN requires features; give them"):
        choose(N, saln.SALN(), folders[4])


BROKEN = (5, 20, 21, 22, 23, 45)


def broken_pictures():
    def read(index):
        if index in BROKEN:
            raise OSError("cut short")

    return Pictures(read=read)


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("selector", [saln.Uniform, saln.SALN])
def test_nobody_names_rows_that_a_store_skipped(owner, selector, tmp_path):
    store = extract(tmp_path, broken_pictures(), unreadable="skip")
    chosen = OWNERS[owner](store, selector(), tmp_path, n=PICTURES)
    assert all(len(batch) == len(set(batch)) == K for batch in chosen)
    readable = PICTURES - len(BROKEN)
    # The loader of a learner gives whole batches, of which what is skipped is left out.
    assert len(chosen) == (PICTURES if owner == "learner" else readable) // CANDIDATES
    assert not set(BROKEN) & {row for batch in chosen for row in batch}


@pytest.mark.parametrize("owner", ["batches", "stream", "learner"])
@pytest.mark.parametrize(
    "selector",
    ["balanced-curriculum:epochs=2", "curriculum:epochs=2", "reducible", "herding(balance=true)"],
)
def test_nobody_names_what_a_teacher_had_no_features_of(owner, selector, tmp_path):
    """The rows that are chosen by now are other ones, all of which were read."""
    given = np.arange(PICTURES) % 3
    store = extract(tmp_path, broken_pictures(), unreadable="skip")
    teacher = saln.features_as_teacher(store, given)
    assert sorted(BROKEN) == (teacher.believed < 0).nonzero()[:, 0].tolist()
    rows = np.random.default_rng(0).standard_normal((PICTURES, 3))
    chosen = OWNERS[owner](rows, read_selector(selector), tmp_path, n=PICTURES, teacher=teacher)
    assert chosen
    assert not set(BROKEN) & {row for batch in chosen for row in batch}


def test_a_learners_batch_is_chosen_among_its_readable_candidates(tmp_path):
    store = extract(tmp_path, broken_pictures(), unreadable="skip")
    rows = torch.from_numpy(np.array(store.features))
    chosen = by_learner(store, saln.SALN(), tmp_path, n=PICTURES)
    for step, batch in enumerate(chosen):
        given = torch.arange(step * CANDIDATES, (step + 1) * CANDIDATES)
        left = torch.tensor([row for row in given.tolist() if row not in BROKEN])
        if len(left) == K:
            expected = left
        else:
            candidates = saln.Candidates(indices=left, features=rows[left])
            selection = saln.SALN()(candidates, K, generator=torch.Generator())
            expected = left[selection.positions]
        assert sorted(batch) == sorted(expected.tolist())


def content(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def labeled(folder):
    """A store whose features tell of the labels, one of which is wrong."""
    rows = ROWS + 4 * np.eye(WIDTH)[LABELS]
    given = np.where(np.arange(N) == 7, (LABELS + 1) % 3, LABELS)
    return saln.write_store(folder / "labeled", rows, given)


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("asked", ["default", "selector", "neighbors", "labels"])
def test_judging_labels_writes_nothing_beside_the_store(owner, asked, tmp_path, monkeypatch):
    if owner == "select" and asked in ("neighbors", "labels"):
        pytest.skip("its selector alone says who judges")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = labeled(tmp_path)
    saln.FeatureStore.open(store.path)
    before = content(store.path)
    options = {"label_confidence": asked} if asked in ("neighbors", "labels") else {}
    selector = saln.Coherence(judge="labels") if asked == "selector" else saln.Coherence()
    chosen = OWNERS[owner](store, selector, tmp_path, **options)
    assert len(chosen) == N // CANDIDATES
    assert content(store.path) == before
    assert not (tmp_path / "cache").exists()


def confidence_of(features, judge="neighbors", **options):
    selector = saln.Coherence(judge=judge)
    fields = CandidateFields(features, selector=selector, owner="a test", **options)
    return fields.candidates(torch.arange(N)).label_confidence.double()


def test_label_confidence_is_taken_from_whatever_says_it(tmp_path):
    store = labeled(tmp_path)
    judged, near = saln.judge_labels(store), store_beliefs(store, keep=False)
    assert int(near.confidence.argmin()) == int(judged.confidence.argmin()) == 7
    for given in (near, "neighbors", None, near.confidence, near.confidence.tolist()):
        assert torch.equal(confidence_of(store, label_confidence=given), near.confidence)
    columns = judged.confidence.numpy(), pandas.Series(judged.confidence)
    for given in (judged, "judge", "labels", *columns):
        assert torch.equal(confidence_of(store, label_confidence=given), judged.confidence)
    # The selector's own judge is asked where nothing is given, and nowhere else.
    assert not torch.equal(judged.confidence, near.confidence)
    assert torch.equal(confidence_of(store, "labels"), judged.confidence)
    assert torch.equal(confidence_of(store, "labels", label_confidence=near), near.confidence)
    by_name = confidence_of(store, "labels", label_confidence="neighbors")
    assert torch.equal(by_name, near.confidence)
    array, labels = np.array(store.features), store.labels
    by_array = confidence_of(array, labels=labels, label_confidence="judge")
    torch.testing.assert_close(by_array, judged.confidence)


def test_what_has_no_label_is_believed_least(tmp_path):
    labels = np.where(np.arange(N) == 3, -1, LABELS)
    beliefs = saln.judge_labels(ROWS + 4 * np.eye(WIDTH)[LABELS], labels)
    confidence = confidence_of(N, label_confidence=beliefs)
    assert float(confidence[3]) == 0.0
    assert float(confidence.sum()) == pytest.approx(float(beliefs.confidence.nansum()))


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (ROWS, {"label_confidence": "neighbours"}, "'neighbours' is not allowed; give 'labels'"),
        (ROWS, {"label_confidence": "judge"}, "judges labels by features; give both"),
        (N, {"labels": LABELS, "label_confidence": "neighbors"}, "give both"),
        (ROWS, {"label_confidence": np.ones(N - 1)}, "60 rows of features but 59 label_conf"),
        (ROWS, {}, "Coherence requires label_confidence; .*or labels, of which it is made"),
    ],
)
def test_a_judge_that_cannot_judge_is_refused(features, options, message):
    with pytest.raises(InputError, match=message):
        confidence_of(features, **options)


def test_candidates_that_are_not_there_are_refused():
    fields = CandidateFields(ROWS, selector=saln.SALN(), owner="a test")
    assert len(fields) == N
    with pytest.raises(InputError, match="are examples 59 to 60, but there are 60 rows"):
        fields.candidates(torch.tensor([60, 59]))
    named = fields.candidates(torch.tensor([1, 0]), indices=torch.tensor([7, 9]))
    assert named.indices.tolist() == [7, 9]
    assert named.features.tolist() == ROWS[[1, 0]].tolist()


def test_a_mapped_store_is_never_copied_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(mmap_rows, "_RESIDENT", 1000)
    rows, width = 20_000, 512
    features = np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32)
    store = saln.write_store(tmp_path / "store", features, np.arange(rows) % 3)
    out = tmp_path / "kept.parquet"

    def learn():
        data = TensorDataset(torch.zeros(rows, 5), torch.arange(rows) % 3, torch.arange(rows))
        selected = saln.LearnerSelected(
            DataLoader(data, 64, generator=torch.Generator()), selector=saln.SALN(), batch_size=32,
            learner=network(0), seed=0, indices=2, features=store,
        )  # fmt: skip
        assert len(next(iter(selected)).indices) == 32

    def select():
        saln.select(store, selector="saln", filter_ratio=0.5, candidates=64, out=out,
                    partition_rows=640)  # fmt: skip

    for work in (learn, select):
        tracemalloc.start()
        try:
            work()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < store.features.nbytes / 2


def test_offline_labels_in_memory(tmp_path):
    rows, names = ROWS + 4 * np.eye(WIDTH)[LABELS], np.array(["ant", "bee", "cat"])
    source = ArraySource(rows, names[LABELS])
    assert by_select(source, saln.BatchCoherence(), tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "kept.parquet")
    assert table["label"].to_pylist() == names[LABELS][table["id"].to_numpy()].tolist()
    out = tmp_path / "coherence.parquet"
    saln.select(source, selector="coherence", filter_ratio=0.5, candidates=CANDIDATES, out=out)
    assert set(pyarrow.parquet.read_table(out)["believed_label"].to_pylist()) <= set(names)


@pytest.mark.parametrize(
    ("kind", "keyword", "message"),
    [
        ("batches", "lables", "SelectedBatches takes no keyword 'lables'; did you mean labels"),
        ("batches", "worldsize", "did you mean world_size"),
        ("stream", "shuffle_bufer", "SelectedStream .* did you mean shuffle_buffer"),
        ("stream", "qqq", "SelectedStream takes no keyword 'qqq'; it takes labels, "),
        ("learner", "referense", "LearnerSelected .* did you mean reference or reference_outputs"),
    ],
)
def test_a_wrong_keyword_is_named_with_those_close_to_it(kind, keyword, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        OWNERS[kind](ROWS, saln.Uniform(), tmp_path, **{keyword: 1})


# Features that tell the classes apart.
CLEAR = ROWS + 4 * np.eye(WIDTH, dtype=np.float32)[LABELS]


class Taught(saln.Selector):
    requires = frozenset({"believed", "difficulty", "label_confidence"})
    summary = "all that a teacher knows"

    def choose(self, candidates, k, generator):
        return saln.Selection(torch.arange(k))


def taught(features, **options):
    fields = CandidateFields(features, selector=Taught(), owner="X", **options)
    return fields.candidates(torch.arange(5, 25))


def test_a_teacher_is_made_where_it_is_asked_for_or_taken_as_it_is():
    teacher = saln.features_as_teacher(CLEAR, LABELS)
    for found in (taught(CLEAR, labels=LABELS), taught(N, teacher=teacher)):
        assert torch.equal(found.believed, teacher.believed[5:25])
        assert torch.equal(found.difficulty, teacher.difficulty[5:25])
        assert torch.equal(found.label_confidence, teacher.beliefs.confidence[5:25])
    # What is said otherwise of the labels holds.
    given = np.linspace(0, 1, N)
    found = taught(N, teacher=teacher, label_confidence=given)
    assert found.label_confidence.tolist() == given[5:25].tolist()


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (CLEAR, {}, "Taught requires believed; .*or labels, of which it is made"),
        (N, {"labels": LABELS}, "Taught requires believed; give them to X"),
        (N, {"teacher": "features"}, "teacher='str' is not allowed; give what saln"),
        (N + 1, {"teacher": True}, "61 examples but 60 examples that the teacher knows"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(features, options, message):
    if options.get("teacher") is True:
        options = {"teacher": saln.features_as_teacher(CLEAR, LABELS)}
    with pytest.raises(InputError, match=message):
        taught(features, **options)


def test_a_teacher_that_knows_little_says_so():
    noise = np.random.default_rng(0).normal(size=(N, 3))
    with pytest.warns(UserWarning, match="the teacher knows little: these features"):
        taught(noise, labels=np.arange(N) % 3)
