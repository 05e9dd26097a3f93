"""Quotas by believed class, for any selector."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from oracles.quotas_by_class import possible_quotas

import saln
from saln.errors import InputError
from saln.selection import SELECTORS, Curriculum, FacilityLocation, TopLoss, Uniform
from saln.selection.candidates import Candidates
from saln.testing import SelectorConformance, example_candidates

# One of each kind: drawn, joint, remembering, weighing, observing, by what the learner says.
NAMES = (
    *("uniform", "saln", "rs2", "infobatch", "facility-location", "k-center", "coherence"),
    *("cleanlab-pruned", "remembered-loss", "curriculum", "herding", "jest", "top-loss"),
)


class TestByClass(SelectorConformance):
    # Not those for which of a class with two candidates both are alike: they take the first.
    @pytest.fixture(
        autouse=True, params=sorted({*NAMES} - {"saln", "k-center", "facility-location"})
    )
    def _named(self, request):
        self.make = lambda: SELECTORS[request.param]().by_class()


def chosen(selector, candidates: Candidates, k: int, seed: int = 0):
    return selector(candidates, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3, 8, 13, 30])
@pytest.mark.parametrize("name", NAMES)
def test_classes_are_parted_as_equally_as_they_allow(name, k):
    """Five of one class, two of another, 23 of a third; every way to part them is drawn."""
    candidates = example_candidates(30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    believed = torch.tensor([7] * 5 + [0] * 2 + [3] * 23)[order]
    candidates = Candidates(**(vars(candidates) | {"believed": believed}))
    allowed = possible_quotas(believed.tolist(), k)
    seen = set()
    for seed in range(40):
        kept = believed[chosen(SELECTORS[name]().by_class(), candidates, k, seed).positions]
        counts = dict.fromkeys(believed.tolist(), 0) | Counter(kept.tolist())
        seen.add(tuple(sorted(counts.items())))
    assert seen == allowed


def test_inside_of_a_class_the_selector_chooses_as_if_there_were_no_other():
    candidates = example_candidates(30)
    for selector in (FacilityLocation(), TopLoss()):
        selection = chosen(selector.by_class(), candidates, 12)
        for label in range(3):
            inside = (candidates.believed == label).nonzero()[:, 0]
            mine = [at for at in selection.positions.tolist() if candidates.believed[at] == label]
            alone = chosen(selector, candidates.at(inside), len(mine))
            assert mine == inside[alone.positions].tolist()
            assert torch.equal(selection.scores[inside], alone.scores)


class Weighs(saln.Selector):
    """Keeps the first, each with its index as its weight."""

    def choose(self, candidates, k, generator):
        return saln.Selection(torch.arange(k), weights=candidates.indices[:k].float())


def test_weights_are_those_of_the_kept():
    candidates = example_candidates(40)
    selection = chosen(Weighs().by_class(), candidates, 24)
    assert selection.weights.tolist() == candidates.indices[selection.positions].tolist()
    assert selection.scores is None


def test_a_balance_of_its_own_is_taken_in_full_or_left_as_it_was_asked_for():
    assert Curriculum(epochs=3).by_class().balance == 1.0
    assert SELECTORS["herding"]().by_class().balance is True
    for asked in (Curriculum(balance=0.5), SELECTORS["balanced-curriculum"]()):
        assert asked.by_class() is asked
    given = Uniform()
    assert given.by_class() is not given
    assert "believed" not in given.requires


def test_batches_keep_as_many_of_each_class_on_request():
    labels = torch.arange(300) % 3
    noise = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    rows = 8 * torch.eye(4)[labels] + noise  # believed is what is given
    options = {"batch_size": 12, "filter_ratio": 0.6, "seed": 0, "labels": labels}
    for selector in ("uniform", "facility-location", "coherence(judge=neighbors)"):
        batches = saln.SelectedBatches(rows, selector=selector, balance=True, **options)
        plain = saln.SelectedBatches(rows, selector=selector, **options)
        even = Counter({0: 4, 1: 4, 2: 4})
        assert all(Counter(labels[kept].tolist()) == even for kept in batches)
        assert any(Counter(labels[kept].tolist()) != even for kept in plain)
        with pytest.raises(InputError, match=r"saved with selector .*, by class, here it is"):
            plain.load_state_dict(batches.state_dict())
    with pytest.raises(InputError, match="Uniform requires believed; give them to Selected"):
        saln.SelectedBatches(300, selector="uniform", balance=True, **options)
