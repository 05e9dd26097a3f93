"""In which order a stream comes, in every epoch and after a stop."""

from __future__ import annotations

import copy
import time
import warnings

import pytest
from helpers.stream_examples import FEATURES, KEYS, RATIO, SIZE, N, Source, stream
from torch.utils.data import DataLoader

import saln


@pytest.mark.parametrize("buffer", [0, 20])
def test_a_hugging_face_stream_that_shuffles_is_gone_on_with(buffer):
    """Its own state loses what its shuffle buffer held."""
    datasets = pytest.importorskip("datasets")

    def made():
        rows = datasets.Dataset.from_dict({"id": KEYS, "n": list(range(N))})
        source = rows.to_iterable_dataset(num_shards=2).shuffle(seed=5, buffer_size=50)
        one = stream(source, key_field="id", shuffle_buffer=buffer, decode=None)
        one.set_epoch(2)
        return one

    whole = [batch.keys for batch in made()]
    stopped = iter(one := made())
    first = [next(stopped).keys for _ in range(5)]
    state = copy.deepcopy(one.state_dict())
    again = made()
    again.load_state_dict(state)
    assert first + [batch.keys for batch in again] == whole


def test_one_order_in_every_epoch_is_mixed_unless_it_is_asked_for():
    """Without a buffer a selector without chance drops the same half in every epoch."""

    def trained(**changes):
        one = saln.SelectedStream(
            Source(),
            features=FEATURES,
            keys=KEYS,
            selector=saln.SALN(),
            batch_size=SIZE,
            filter_ratio=RATIO,
            seed=3,
            **changes,
        )
        rows = []
        for epoch in range(4):
            one.set_epoch(epoch)
            rows.append({row for batch in one for row in batch.indices.tolist()})
        return rows

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed = trained()
    assert len(set.union(*mixed)) > 2 * len(mixed[0])
    with pytest.warns(UserWarning, match="SALN drops the same examples for ever"):
        fixed = trained(shuffle_buffer=0)
    assert fixed[0] == fixed[1] == fixed[3]


def test_workers_that_tell_a_hugging_face_stream_the_epoch_at_once_agree(monkeypatch):
    """Its ``set_epoch`` adds to a shared number; here both read before either adds."""
    datasets = pytest.importorskip("datasets")

    def slow(source, epoch):
        difference = epoch - source._epoch
        time.sleep(0.3)
        source._epoch += difference

    def epochs():
        table = datasets.Dataset.from_dict({"id": KEYS, "n": list(range(N))})
        one = saln.SelectedStream(
            table.to_iterable_dataset(num_shards=4), selector=saln.Uniform(), key_field="id",
            batch_size=1, filter_ratio=0.0, seed=0, shuffle_buffer=0,
        )  # fmt: skip
        loader = DataLoader(one, batch_size=None, num_workers=2, generator=one.generator)
        for epoch in range(1, 3):
            one.set_epoch(epoch)
            yield [key for batch in loader for key in batch.keys]

    undisturbed = list(epochs())
    monkeypatch.setattr(datasets.IterableDataset, "set_epoch", slow)
    assert list(epochs()) == undisturbed
    for keys in undisturbed:
        assert sorted(keys) == sorted(KEYS)
