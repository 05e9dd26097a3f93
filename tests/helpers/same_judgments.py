"""What a judge of labels learned of some evidence, given again for the same evidence.

Tests that damage files, or that run the same again and again, have the same few labels judged a
hundred times. What is right about a judgment is the business of tests/labels/.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from saln.labels import judge


@contextmanager
def learned_once() -> Iterator[None]:
    """Within it the noise and the joint are fitted once for the same bytes of evidence."""
    learn, known = judge.learn, {}

    def remembered(*arguments):
        asked = pickle.dumps(arguments)
        if asked not in known:
            known[asked] = learn(*arguments)
        return copy.deepcopy(known[asked])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "learn", remembered)
        yield
