"""The public conformance tests, for every selector of ours."""

from __future__ import annotations

import pytest

from saln.selection import JEST, SELECTORS, ImageTextJEST, InfoBatch, TopLoss, coherence
from saln.testing import SelectorConformance

CASES = {
    **SELECTORS,
    "jest in 3 chunks": lambda: JEST(chunks=3),
    "jest easy-reference": lambda: JEST(variant="easy-reference"),
    "jest by the features": lambda: JEST(reference="features"),
    "jest hard-learner": lambda: JEST(variant="hard-learner"),
    "image-text jest": ImageTextJEST,
    "image-text jest softmax": lambda: ImageTextJEST(loss="softmax"),
    "top-loss by chance": lambda: TopLoss(beta=1.0),
    "balanced curriculum, in part": lambda: SELECTORS["balanced-curriculum"](balance=0.5, epochs=3),
    "remembered-loss by chance": lambda: SELECTORS["remembered-loss"](1.0, pool=0.7, balance=0.5),
    "reducible, balanced": lambda: SELECTORS["reducible"](balance=1.0),
    "reducible, smoothed": lambda: SELECTORS["reducible"](smoothing=0.5),
    "divbs greedy": lambda: SELECTORS["divbs"](greedy=True),
    # As it is by default, chance decides among few candidates or none, as their features have it.
    "feature-density": lambda: SELECTORS["feature-density"](randomness=1.0),
    "feature-density alone": lambda: SELECTORS["feature-density"](randomness=0.0),
    "herding, balanced": lambda: SELECTORS["herding"](balance=True),
    "rho-loss by the features": lambda: SELECTORS["rho-loss"](reference="features"),
    "infobatch at its end": lambda: InfoBatch(0.9, epochs=2, full_from=0.5),
}
NEVER_DRAW = {
    *("saln", "rho-loss", "top-loss", "k-center", "facility-location", "remembered-loss"),
    *("reducible", "reducible, smoothed", "herding", "small-loss", "rho-loss by the features"),
    *("divbs greedy", "feature-density alone"),
}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


class TestOurs(SelectorConformance):
    @pytest.fixture(autouse=True)
    def _named(self, case):
        self.make = CASES[case]

    def test_the_order_of_candidates_says_nothing(self, monkeypatch):
        """Of 600 draws from the same candidates in two orders, each order is judged once."""
        judge, known = coherence.beliefs_by_neighbors, {}

        def once(indices, similarities, labels, *rest, **options):
            key = (indices.tobytes(), similarities.tobytes(), labels.tobytes())
            if key not in known:
                known[key] = judge(indices, similarities, labels, *rest, **options)
            return known[key]

        monkeypatch.setattr(coherence, "beliefs_by_neighbors", once)
        super().test_the_order_of_candidates_says_nothing()

    def test_draws_or_not_as_said(self, case):
        assert self._draws() == (case not in NEVER_DRAW)
