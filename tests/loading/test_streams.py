"""A stream's batches are those of an oracle that reads it whole; a dropped sample stays encoded."""

from __future__ import annotations

import io
import pickle
import tarfile
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.stream_examples import (
    CANDIDATES,
    FEATURES,
    KEYS,
    ORDER,
    SIZE,
    STEPS,
    N,
    Source,
    SplitByWorker,
    Stateful,
    decode,
    given,
    oracle,
    stream,
)
from PIL import Image
from torch.utils.data import DataLoader

import saln
from saln.errors import DataError, InputError
from saln.loading import stream_pass
from saln.loading.mmap_rows import MmapRows

pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata 0.11
    pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker:UserWarning"),
    # One order in every epoch makes the expected batches easy to tell.
    pytest.mark.filterwarnings("ignore:the source gives the same order:UserWarning"),
]


@pytest.fixture
def in_worker(monkeypatch):
    """As in a loader's first worker; a real one that raises takes torch 5 s to end."""
    worker = SimpleNamespace(id=0, num_workers=2)
    return lambda: monkeypatch.setattr(stream_pass, "get_worker_info", lambda: worker)


@pytest.mark.parametrize("selector", [saln.SALN, saln.Uniform, saln.KCenter])
def test_the_batches_are_those_of_the_sampler_for_the_same_candidates(selector):
    chosen = stream(selector=selector())
    for epoch in (0, 1):
        chosen.set_epoch(epoch)
        batches = list(chosen)
        assert given(batches) == oracle(epoch=epoch, selector=selector())
        assert len(batches) == STEPS  # the last 11 samples are too few
        for batch in batches:
            assert batch.indices.tolist() == batch.samples
            assert batch.keys == [KEYS[row] for row in batch.samples]


def test_dropped_samples_are_never_decoded():
    decoded = []
    source = Source()
    list(stream(source, decode=decoded.append))
    assert len(decoded) == STEPS * SIZE
    assert source.read == N


def test_a_stream_is_not_read_further_than_a_step_needs():
    source = Source()
    iterator = iter(stream(source, shuffle_buffer=20))
    next(iterator)
    assert source.read == 20 + CANDIDATES - 1


def test_memory_is_bounded():
    class Large:
        def __iter__(self):
            for row in ORDER:
                yield KEYS[row], bytes(2**18)

    chosen = stream(Large(), decode=len, shuffle_buffer=16)
    tracemalloc.start()
    try:
        assert all(batch.samples == [2**18] * SIZE for batch in chosen)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The block before is let go only when the next one is whole.
    assert peak < (2 * CANDIDATES + 16 + 4) * 2**18 < N * 2**18 / 2


def test_shuffling_gives_every_candidate_once_and_another_order_each_epoch():
    orders = []
    for epoch in (0, 0, 1):
        chosen = stream(selector=saln.Uniform(), filter_ratio=0, shuffle_buffer=50)
        chosen.set_epoch(epoch)
        orders.append([row for batch in chosen for row in batch.samples])
    assert orders[0] == orders[1] != orders[2]
    for order in orders:
        assert len(set(order)) == len(order) == N - N % SIZE
        assert order != ORDER[: len(order)].tolist()
        places = np.argsort(ORDER)[order]  # nothing is given before the buffer can hold it
        assert (places < np.arange(len(order)) + 50).all()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_no_batch(workers):
    loader = DataLoader(stream(), batch_size=None, num_workers=workers, generator=torch.Generator())
    assert given(loader) == oracle()


def test_workers_that_outlive_an_epoch_see_the_next():
    chosen = stream(selector=saln.Uniform())
    loader = DataLoader(
        chosen, batch_size=None, num_workers=2, persistent_workers=True, generator=torch.Generator()
    )
    for epoch in (0, 1):
        chosen.set_epoch(epoch)
        assert given(loader) == oracle(epoch=epoch, selector=saln.Uniform())


def test_a_source_that_shares_itself_out_is_not_shared_out_again(in_worker):
    chosen = stream(SplitByWorker(), already_split=["workers"], filter_ratio=0)
    loader = DataLoader(chosen, batch_size=None, num_workers=2, generator=torch.Generator())
    rows = [row for samples in given(loader) for row in samples]
    assert len(set(rows)) == len(rows) >= N - 2 * (SIZE - 1)
    assert given(stream(SplitByWorker())) == oracle()  # alone it has nothing to share
    in_worker()
    with pytest.raises(InputError, match="already_split"):
        list(stream(SplitByWorker()))


def test_ranks_share_the_global_batch():
    ranks = [list(stream(rank=rank, world_size=2)) for rank in (0, 1)]
    joined = [one.samples + two.samples for one, two in zip(*ranks, strict=True)]
    assert joined == oracle()


def test_ranks_of_a_source_that_is_split_keep_their_part():
    ranks = [
        given(stream(Source(ORDER[rank::2]), rank=rank, world_size=2, already_split=["ranks"]))
        for rank in (0, 1)
    ]
    rows = [row for rank in ranks for samples in rank for row in samples]
    assert {len(samples) for rank in ranks for samples in rank} == {SIZE // 2}
    assert len(set(rows)) == len(rows)
    assert all(
        {row for samples in ranks[rank] for row in samples} <= set(ORDER[rank::2].tolist())
        for rank in (0, 1)
    )


@pytest.mark.parametrize("source", [Source, Stateful])
@pytest.mark.parametrize("buffer", [0, 30])
@pytest.mark.parametrize("stop", [0, 1, 5, STEPS])
def test_a_saved_position_gives_what_was_left(source, buffer, stop):
    settings = {"shuffle_buffer": buffer, "selector": saln.Uniform()}
    whole = []
    for epoch in (2, 3):
        chosen = stream(source(), **settings)
        chosen.set_epoch(epoch)
        whole += given(chosen)
    first = stream(source(), **settings)
    first.set_epoch(2)
    iterator = iter(first)
    seen = [next(iterator).samples for _ in range(stop)]
    state = pickle.loads(pickle.dumps(first.state_dict()))
    decoded = []
    again = stream(source(), **settings, decode=lambda raw: decoded.append(raw) or decode(raw))
    again.load_state_dict(state)
    again.set_epoch(2)
    assert seen + given(again) == whole[:STEPS]
    assert len(decoded) == (STEPS - stop) * SIZE
    if source is Stateful and 0 < stop < STEPS:
        assert again.source.read == N - state["reading"]["read"]
    again.set_epoch(3)
    assert given(again) == whole[STEPS:]


@pytest.mark.parametrize("source", [Source, Stateful])
def test_single_samples_and_a_stop_in_the_middle_of_a_batch(source):
    whole = [row for batch in oracle() for row in batch]
    assert list(stream(source(), as_batches=False)) == whole
    first = stream(source(), as_batches=False)
    iterator = iter(first)
    seen = [next(iterator) for _ in range(6)]
    state = pickle.loads(pickle.dumps(first.state_dict()))
    again = stream(source(), as_batches=False)
    again.load_state_dict(state)
    assert seen + list(again) == whole
    loader = DataLoader(
        stream(source(), as_batches=False), batch_size=SIZE, generator=torch.Generator()
    )
    assert [batch.tolist() for batch in loader] == oracle()


@pytest.mark.parametrize("workers", [0, 2])
def test_counted_steps_go_on_in_workers_in_the_same_order(workers):
    state = stream().state_dict(steps=3)
    again = stream()
    again.load_state_dict(state)
    assert (
        given(DataLoader(again, batch_size=None, num_workers=workers, generator=torch.Generator()))
        == oracle()[3:]
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", [False, True])
def test_a_stateful_loader_saves_and_goes_on(workers, split):
    from torchdata.stateful_dataloader import StatefulDataLoader

    def loader():
        source = SplitByWorker() if split else Source()
        asked = {"already_split": ["workers"]} if split else {}
        return StatefulDataLoader(
            stream(source, **asked),
            batch_size=None,
            num_workers=workers,
            generator=torch.Generator(),
        )

    whole = given(loader())
    first = loader()
    iterator = iter(first)
    seen = [next(iterator).samples for _ in range(5)]
    state = pickle.loads(pickle.dumps(first.state_dict()))
    del iterator
    again = loader()
    again.load_state_dict(state)
    assert seen + given(again) == whole
    assert len(whole) >= STEPS - 1


def tar_of_images(path, rows):
    """A shard as WebDataset has them: KEY.jpg and KEY.cls side by side."""
    with tarfile.open(path, "w") as tar:
        for row in rows:
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (int(row), 0, 0)).save(picture, "png")
            for kind, content in (("jpg", picture.getvalue()), ("cls", str(row).encode())):
                info = tarfile.TarInfo(f"{KEYS[row]}.{kind}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


class Tar:
    """Reads such a shard with Python's own tarfile, undecoded."""

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        with tarfile.open(self.path) as tar:
            sample = {}
            for member in tar:
                key, kind = member.name.split(".")
                if sample and sample["__key__"] != key:
                    yield sample
                    sample = {}
                sample |= {"__key__": key, kind: tar.extractfile(member).read()}
            yield sample


def decode_image(sample):
    with Image.open(io.BytesIO(sample["jpg"])) as picture:
        assert picture.getpixel((0, 0))[0] == int(sample["cls"])
    return int(sample["cls"])


def test_a_tar_of_images(tmp_path):
    shard = tar_of_images(tmp_path / "shard.tar", ORDER)
    decoded = []

    def counted(sample):
        decoded.append(sample["__key__"])
        return decode_image(sample)

    assert given(stream(Tar(shard), decode=counted)) == oracle()
    assert len(decoded) == STEPS * SIZE


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to Python
def test_webdataset_shards_are_shared_by_webdataset_alone(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    for shard, rows in enumerate(np.split(ORDER[:200], 4)):
        tar_of_images(tmp_path / f"{shard}.tar", rows)
    urls = [str(tmp_path / f"{shard}.tar") for shard in range(4)]

    def chosen(**changes):
        source = webdataset.WebDataset(urls, shardshuffle=False)
        return stream(source, decode=decode_image, **changes)

    assert chosen().split == {"workers"}
    assert given(chosen()) == oracle(ORDER[:200])
    loader = DataLoader(
        chosen(filter_ratio=0), batch_size=None, num_workers=2, generator=torch.Generator()
    )
    rows = [row for samples in given(loader) for row in samples]
    assert sorted(rows) == sorted(ORDER[:200])
    nodes = webdataset.WebDataset(urls, shardshuffle=False, nodesplitter=webdataset.split_by_node)
    assert stream(nodes, rank=0, world_size=2).split == {"workers", "ranks"}


def test_a_hugging_face_stream_is_put_back_by_its_own_state():
    datasets = pytest.importorskip("datasets")

    def chosen():
        table = {"name": [KEYS[row] for row in ORDER], "raw": [f"raw {row}" for row in ORDER]}
        source = datasets.Dataset.from_dict(table).to_iterable_dataset()
        return stream(source, key_field="name", decode=lambda sample: decode(sample["raw"]))

    assert chosen().split == {"workers"}
    first = chosen()
    iterator = iter(first)
    seen = [next(iterator).samples for _ in range(4)]
    state = first.state_dict()
    assert state["reading"]["source"]
    again = chosen()
    again.load_state_dict(state)
    assert seen + given(again) == oracle()


def test_labels_and_confidences_are_found_by_key():
    seen = []

    class Told(saln.Selector):
        requires = frozenset({"features", "labels", "label_confidence"})

        def choose(self, candidates, k, generator):
            seen.append(candidates)
            return saln.Selection(torch.arange(k), weights=torch.arange(k) + 0.5)

    labels, confidence = np.arange(N), np.linspace(0, 1, N)
    batches = list(stream(selector=Told(), labels=labels, label_confidence=confidence))
    rows = ORDER[:CANDIDATES]
    assert np.array_equal(seen[0].features, FEATURES[rows])
    assert seen[0].labels.tolist() == rows.tolist()
    assert np.array_equal(seen[0].label_confidence, confidence[rows])
    assert batches[0].weights.tolist() == [0.5, 1.5, 2.5, 3.5]
    told = {"selector": Told(), "labels": labels, "label_confidence": confidence}
    two = [next(iter(stream(**told, rank=rank, world_size=2))) for rank in (0, 1)]
    assert [batch.weights.tolist() for batch in two] == [[0.5, 1.5], [2.5, 3.5]]
    with pytest.raises(InputError, match="as_batches"):
        list(stream(**told, as_batches=False))


def test_without_features_the_positions_count():
    chosen = stream(selector=saln.Uniform(), features=None, keys=None)
    for batch in chosen:
        assert [ORDER[place] for place in batch.indices] == batch.samples


def test_a_key_without_features():
    keys = {key: row for row, key in enumerate(KEYS) if row % 3}
    with pytest.raises(InputError, match=r"'k\d+' has no features: .*skip_unknown=True"):
        list(stream(keys=keys))
    kept = given(stream(keys=keys, skip_unknown=True))
    assert kept == oracle(ORDER[ORDER % 3 > 0])
    with pytest.raises(InputError, match="none of the 203 samples"):
        list(stream(keys={"other": 0}, skip_unknown=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": None}, "features without keys"),
        ({"keys": KEYS[:-1]}, "203 rows of features but 202 keys"),
        ({"keys": KEYS[:-1] + KEYS[:1]}, "'k000' names more than one row"),
        ({"features": None}, "SALN requires features"),
        ({"labels": np.arange(5)}, "203 rows of features but 5 labels"),
        ({"selector": saln.TopLoss()}, "saln.LearnerSelected"),
        ({"shuffle_buffer": -1}, "shuffle_buffer=-1"),
        ({"already_split": ["nodes"]}, "already_split"),
        ({"rank": 0, "world_size": 3}, "cannot be shared equally"),
        ({"filter_ratio": 1.0}, r"\[0, 1\)"),
        ({"features": np.full((N, 2), np.nan)}, "features of example 0 are NaN"),
    ],
)
def test_what_cannot_work_is_said_at_once(changes, message):
    with pytest.raises(InputError, match=message):
        stream(**changes)


@pytest.mark.parametrize(
    ("source", "message"),
    [([1], "is a int"), ([("a", b"", b"")], "is a tuple"), ([{"jpg": b""}], "no '__key__'")],
)
def test_samples_without_a_key(source, message):
    with pytest.raises(InputError, match=message):
        list(stream(source))


def test_errors_while_reading():
    wrong = oracle()[1][0]
    broken = (f"x {row}" if row == wrong else f"raw {row}" for row in ORDER)
    chosen = stream([(KEYS[row], raw) for row, raw in zip(ORDER, broken, strict=True)],
                    decode=lambda raw: [raw][{"raw": 0}[raw.split()[0]]])  # fmt: skip
    with pytest.raises(DataError, match=f"{KEYS[wrong]}' cannot be decoded .KeyError"):
        list(chosen)
    with pytest.raises(InputError, match="keys name row 999"):
        list(stream(keys=dict.fromkeys(KEYS, 999)))
    once = stream(iter(Source()))
    assert given(once) == oracle()
    with pytest.raises(InputError, match="used up"):
        list(once)


def test_a_selector_that_remembers_is_refused_in_workers(in_worker):
    assert len(list(stream(selector=saln.RS2()))) == STEPS
    in_worker()
    with pytest.raises(InputError, match="RS2 remembers"):
        list(stream(selector=saln.RS2()))


def test_states_that_would_lead_elsewhere(in_worker):
    first = stream()
    next(iter(first))
    state = first.state_dict()
    for changes, message in (
        ({"seed": 4}, "seed 3, here it is 4"),
        ({"batch_size": 8}, "batch_size 4, here it is 8"),
        ({"shuffle_buffer": 9}, "shuffle_buffer 0, here it is 9"),
        ({"selector": saln.Uniform()}, "selector SALN"),
    ):
        with pytest.raises(InputError, match=message):
            stream(**changes).load_state_dict(state)
    with pytest.raises(InputError, match="the state holds epoch"):
        stream().load_state_dict({"epoch": 0})
    other = stream(Source(ORDER[::-1]))
    other.load_state_dict(state)
    with pytest.raises(DataError, match="seed its own shuffling"):
        list(other)
    short = stream(Source(ORDER[:10]))
    short.load_state_dict(state)
    with pytest.raises(DataError, match="ended after 10 samples, but 16"):
        list(short)
    counted = stream(SplitByWorker(), already_split=["workers"])
    counted.load_state_dict(counted.state_dict(steps=2))
    in_worker()
    with pytest.raises(InputError, match="StatefulDataLoader"):
        list(counted)


def test_a_mapped_file_is_sent_to_workers_by_name(tmp_path):
    np.save(tmp_path / "rows.npy", np.tile(FEATURES, (200, 1)))
    rows = MmapRows(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    sent = pickle.dumps(rows)
    assert len(sent) < 2000
    wanted = torch.tensor([5, 2, 40_000])
    assert torch.equal(pickle.loads(sent)[wanted], rows[wanted])
