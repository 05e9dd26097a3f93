"""That the conformance tests catch what is wrong, and run where none of our fixtures are."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch

from saln.selection import Selection, Selector, Uniform
from saln.selection.epoch_memory import EpochMemory
from saln.testing import SelectorConformance, check_selector


class Broken(Selector):
    """Right but for what a subclass breaks."""

    requires = frozenset({"learner_losses"})
    summary = "highest losses"

    def choose(self, candidates, k, generator):
        losses = candidates.learner_losses.float()
        return Selection(losses.argsort(descending=True, stable=True)[:k])


class FirstOnes(Broken):
    def choose(self, candidates, k, generator):
        return Selection(torch.arange(k))


class MostlyFirstOnes(Broken):
    """Random, but early positions are twice as likely."""

    def choose(self, candidates, k, generator):
        weights = torch.linspace(2, 1, len(candidates))
        return Selection(torch.multinomial(weights, k, generator=generator))


class GlobalRandomness(Broken):
    def choose(self, candidates, k, generator):
        random.random()
        return super().choose(candidates, k, generator)


class UnseededChoice(Broken):
    def choose(self, candidates, k, generator):
        free = torch.Generator()
        free.seed()
        return Selection(torch.randperm(len(candidates), generator=free)[:k])


class HashOrder(Broken):
    """Depends on how this process hashes text."""

    def choose(self, candidates, k, generator):
        names = sorted(map(str, candidates.indices.tolist()), key=hash)
        place = {index: names.index(str(index)) for index in candidates.indices.tolist()}
        return Selection(
            torch.tensor([place[i] for i in candidates.indices.tolist()]).argsort()[:k]
        )


class ChangesInput(Broken):
    def choose(self, candidates, k, generator):
        candidates.learner_losses.neg_()
        return super().choose(candidates, k, generator)


class TopAboveMean(Broken):
    """Finds too few where all are the same."""

    def choose(self, candidates, k, generator):
        losses = candidates.learner_losses.float()
        above = (losses > losses.min()).nonzero().flatten()
        return Selection(torch.cat([above, losses.argmin()[None]])[-k:])


class NoHalf(Broken):
    def choose(self, candidates, k, generator):
        if candidates.learner_losses.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for BFloat16")
        return super().choose(candidates, k, generator)


class ReadsMore(Broken):
    def choose(self, candidates, k, generator):
        return Selection(candidates.need("reference_losses").argsort()[:k])


class BatchAtOnce(Broken):
    """Uses losses in the epoch in which it is told them."""

    observes_losses = True

    def __init__(self):
        self.last = 0.0

    def observe(self, indices, losses):
        self.last = float(losses.sum())

    def choose(self, candidates, k, generator):
        noise = torch.rand(len(candidates), generator=generator) + self.last
        return Selection((noise - noise.floor()).argsort()[:k])


class ForgetsOnResume(Broken):
    """Keeps least-kept first, but saves nothing."""

    def __init__(self):
        self.memory = EpochMemory(unknown=0.0)

    def begin_epoch(self, epoch):
        self.memory.begin_epoch(epoch)

    def choose(self, candidates, k, generator):
        kept = self.memory.get(candidates.indices)
        noise = torch.rand(len(candidates), generator=generator)
        positions = (kept + noise).argsort()[:k]
        self.memory.put(candidates.indices[positions], kept[positions] + 1)
        return Selection(positions)


class IgnoresTheSeed(Uniform):
    """Says that it draws, and never does otherwise."""

    def choose(self, candidates, k, generator):
        return Selection(torch.arange(len(candidates))[:k])


class KeepsNoName(Broken):
    def __init__(self, strength=2.0):
        self.factor = 1 / strength


class SaysOneOfTwo(Broken):
    def __init__(self, strength=2.0, rounds=3):
        self.strength, self.rounds = strength, rounds

    def __repr__(self):
        return f"{type(self).__name__}(strength={self.strength})"


class SaysAnAddress(Broken):
    def __init__(self, rule=len):
        self.rule = lambda: rule


class SaysNothing(Broken):
    __repr__ = object.__repr__


class SaysItsState(Broken):
    chosen = 0

    def __repr__(self):
        return f"SaysItsState() after {self.chosen}"

    def choose(self, candidates, k, generator):
        self.chosen += 1
        return super().choose(candidates, k, generator)


@pytest.mark.parametrize(
    ("selector", "test", "reason"),
    [
        (KeepsNoName, "test_names_its_hyperparameters", "does not say strength"),
        (SaysOneOfTwo, "test_names_its_hyperparameters", "does not say rounds"),
        (SaysAnAddress, "test_names_its_hyperparameters", "an address in memory"),
        (SaysNothing, "test_names_its_hyperparameters", "an address in memory"),
        (SaysItsState, "test_names_its_hyperparameters", "by choosing"),
        (FirstOnes, "test_the_order_of_candidates_says_nothing", "after a permutation"),
        (MostlyFirstOnes, "test_the_order_of_candidates_says_nothing", "in another order"),
        (GlobalRandomness, "test_touches_no_global_randomness", "global random generator"),
        (UnseededChoice, "test_same_seed_same_choice", "the same seed gave"),
        (HashOrder, "test_other_process_same_choice", "another process chose otherwise"),
        (ChangesInput, "test_leaves_its_input_alone", "learner_losses was changed in place"),
        (TopAboveMean, "test_ties", r"expected 5 distinct|gave torch.int64"),
        (NoHalf, "test_takes_every_floating_dtype", "BFloat16"),
        (ReadsMore, "test_needs_no_more_than_it_requires", "lack reference_losses"),
        (BatchAtOnce, "test_choosing_ahead_changes_nothing", "before its losses"),
        (ForgetsOnResume, "test_state_goes_on_where_it_was_saved", "after loading"),
    ],
)
def test_catches(selector, test, reason):
    class Conformance(SelectorConformance):
        make = selector

    # What is wrong shows in that test, as itself or as the error that it leads to.
    with pytest.raises((AssertionError, ValueError, RuntimeError), match=reason):
        getattr(Conformance(), test)()


def test_catches_a_draw_that_was_promised():
    class Conformance(SelectorConformance):
        make = IgnoresTheSeed
        deterministic = False

    with pytest.raises(AssertionError, match="ten seeds gave the same choice"):
        Conformance().test_other_seed_other_choice()


def test_without_pytest():
    check_selector(Uniform)
    with pytest.raises(AssertionError):
        check_selector(FirstOnes)


MINE = """
import torch
import saln
from saln.testing import SelectorConformance


class Mine(saln.Selector):
    requires = frozenset({"features"})
    summary = "the longest rows; costs cached features"

    def choose(self, candidates, k, generator):
        lengths = candidates.need("features").float().norm(dim=1)
        return saln.Selection(lengths.argsort(descending=True, stable=True)[:k])


class TestMine(SelectorConformance):
    make = staticmethod(lambda: Mine())


class Worse(Mine):
    def choose(self, candidates, k, generator):
        return saln.Selection(torch.arange(k))


class TestWorse(SelectorConformance):
    make = Worse
"""


def test_in_a_project_of_ones_own(tmp_path):
    (tmp_path / "test_mine.py").write_text(MINE)
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    count = sum(name.startswith("test_") for name in dir(SelectorConformance))
    assert count >= 20
    assert f"1 failed, {2 * count - 1} passed" in found.stdout, found.stdout
    assert "TestWorse::test_the_order_of_candidates_says_nothing" in found.stdout
    assert found.stderr == ""
