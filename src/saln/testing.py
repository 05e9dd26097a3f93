"""Tests for any selector, ours or yours: name it, and pytest runs them all.

::

    from saln.testing import SelectorConformance

    class TestMine(SelectorConformance):
        make = staticmethod(lambda: MySelector())

They check the contract of :class:`saln.Selector`: what it keeps, what it refuses, where its
randomness comes from, what it remembers. They say nothing about whether it chooses well: for
that, write down its definition, slowly and apart, and compare.

Without pytest: ``check_selector(lambda: MySelector())``; in a script below
``if __name__ == "__main__":``, as one test starts a new process that imports it.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import functools
import importlib.util
import inspect
import io
import multiprocessing
import pickle
import random
import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection.candidates import WHOLE_NUMBERS, Candidates, PairEmbeddings, Selection
from saln.selection.contract import Selector, parameters_of

__all__ = ["SelectorConformance", "check_selector", "example_candidates"]

# Draws that tell a fair choice from an unfair one, and how unlikely a difference must be
# to count. Seeds are fixed: a right selector passes always, or never by a chance of 1e-4.
_DRAWS = 300
_CHANCE = 1e-4

# A batch of a scenario: the indices that were kept, and their loss weights.
_Kept = tuple[list[int], list[float] | None]


def example_candidates(
    n: int = 12, *, seed: int = 0, dtype: torch.dtype = torch.float32, classes: int = 3
) -> Candidates:
    """Candidates with every field, without ties, indices 100 to ``99 + n``.

    Args:
        n: How many.
        seed: Decides the values.
        dtype: Of all floating fields.
        classes: Of labels and outputs.
    """
    generator = derive_generator("example candidates", seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return Candidates(
        indices=torch.arange(100, 100 + n),
        features=draw(n, 8).abs(),
        labels=torch.randint(0, classes, (n,), generator=generator),
        learner_outputs=draw(n, classes),
        reference_outputs=draw(n, classes),
        learner_losses=draw(n).abs(),
        reference_losses=draw(n).abs(),
        label_confidence=torch.rand(n, generator=generator).to(dtype),
        learner_embeddings=PairEmbeddings(draw(n, 4), draw(n, 4), scale=2.0, bias=-1.0),
        reference_embeddings=PairEmbeddings(draw(n, 4), draw(n, 4), scale=3.0, bias=-2.0),
        believed=torch.randint(0, classes, (n,), generator=generator),
        difficulty=draw(n).abs(),
        teacher_losses=draw(n).abs(),
        teacher_outputs=draw(n, classes),
        neighbors=torch.randint(100, 100 + n, (n, 5), generator=generator),
    )


def _without(candidates: Candidates, names: set[str]) -> Candidates:
    changes: dict[str, Any] = dict.fromkeys(names)
    return replace(candidates, **changes)


def _loss(indices: Tensor) -> Tensor:
    """What a training loop might report: one number for each index, all different."""
    return 2 + torch.sin(indices.float() * 2.4)


def _ready(selector: Selector, candidates: Candidates) -> Selector:
    """The selector after an epoch in which it observed the loss of every candidate."""
    selector.begin_epoch(1)
    selector.observe(candidates.indices, _loss(candidates.indices))
    selector.begin_epoch(2)
    return selector


def _batches(
    selector: Selector,
    pool: Candidates,
    *,
    first: tuple[int, int] = (0, 0),
    losses_last: bool = False,
) -> Iterator[_Kept]:
    """A small training run: 3 steps an epoch, each keeping 4 of a third of the pool.

    It begins with the ``first`` (epoch, step). With ``losses_last`` all choices of an epoch are
    made before the selector observes the first loss.
    """
    size = len(pool) // 3
    for epoch in range(first[0], 4):
        order = torch.randperm(len(pool), generator=derive_generator(0, "order", epoch))
        selector.begin_epoch(epoch)
        later: list[Tensor] = []
        for step in range(first[1] if epoch == first[0] else 0, 3):
            candidates = pool.at(order[step * size : (step + 1) * size])
            generator = derive_generator(0, "select", epoch, step)
            selection = selector(candidates, 4, generator=generator)
            indices = candidates.indices[selection.positions]
            weights = selection.weights
            yield indices.tolist(), None if weights is None else weights.tolist()
            later.append(indices)
            if step == 2 or not losses_last:
                for indices in later:
                    selector.observe(indices, _loss(indices) / (epoch + 1))
                later = []


def _global_states() -> tuple[Any, ...]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    return (
        torch.get_rng_state().tolist(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
        random.getstate(),
    )


def _fail_unless(holds: bool, message: str) -> None:
    if not holds:  # no `assert`: pytest rewrites those of tests only, and -O drops them
        raise AssertionError(message)


def _fail_unless_refused(words: str, what: str, call: Callable[..., object], *given: Any) -> None:
    try:
        call(*given)
    except InputError as error:
        _fail_unless(words in str(error), f"{what}: the error does not say {words!r}: {error}")
    else:
        raise AssertionError(f"{what} was not refused")


def _elsewhere(path: str | None, module: str, search: list[str], pickled: bytes) -> list[_Kept]:
    """Unpickles a selector and the pool in another process, and runs them there."""
    sys.path[:] = search
    if path is not None and module not in sys.modules:
        try:
            importlib.import_module(module)
        except ImportError:  # a test file that pytest imported by its path
            spec = importlib.util.spec_from_file_location(module, path)
            if spec is None or spec.loader is None:
                raise
            parts = module.split(".")[:-1]
            for end in range(1, len(parts) + 1):  # packages that exist for pytest alone
                package = ".".join(parts[:end])
                sys.modules.setdefault(package, types.ModuleType(package))
            sys.modules[module] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[module])
    # Its class is importable now, under the name that the pickle holds.
    selector, pool = pickle.loads(pickled)
    return list(_batches(selector, pool))


@functools.cache
def _other_process() -> concurrent.futures.ProcessPoolExecutor:
    """One new interpreter for all tests: it takes seconds to import torch."""
    context = multiprocessing.get_context("spawn")
    executor = concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context)
    atexit.register(executor.shutdown)  # before the interpreter takes its modules away
    return executor


class SelectorConformance:
    """Derive a class whose name pytest collects, and say how the selector is made.

    Attributes:
        make: Makes a fresh selector, with no arguments.
        deterministic: Whether it never draws; None finds out by trying.
    """

    make: Callable[[], Selector]
    deterministic: ClassVar[bool | None] = None

    def candidates(
        self, n: int = 12, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> Candidates:
        """What it chooses from; override it where yours needs other values."""
        return example_candidates(n, seed=seed, dtype=dtype)

    def _choose(
        self, candidates: Candidates, k: int, seed: int = 0, observed: Candidates | None = None
    ) -> Selection:
        selector = _ready(self.make(), candidates if observed is None else observed)
        return selector(candidates, k, generator=derive_generator("conformance", seed))

    def _kept(self, candidates: Candidates, k: int, seed: int = 0) -> list[int]:
        return list(self._choose(candidates, k, seed).positions.tolist())

    def _draws(self) -> bool:
        """Whether the choice depends on the generator."""
        if self.deterministic is not None:
            return not self.deterministic
        candidates = self.candidates()
        return len({tuple(sorted(self._kept(candidates, 4, seed))) for seed in range(20)}) > 1

    def _check_kept(self, candidates: Candidates, k: int) -> None:
        kept, n = self._kept(candidates, k), len(candidates)
        _fail_unless(
            len(kept) == len(set(kept)) == k and set(kept) <= set(range(n)),
            f"expected {k} distinct positions in 0..{n - 1}, got {kept}",
        )

    def _floating(self) -> list[str]:
        return sorted(self.make().requires - WHOLE_NUMBERS)

    def test_describes_itself(self) -> None:
        """A summary of one line, and only requirements that candidates can meet."""
        selector = self.make()
        _fail_unless(bool(selector.summary), "the summary is empty")
        _fail_unless("\n" not in selector.summary, "the summary is longer than a line")
        unknown = selector.requires - {field.name for field in fields(Candidates)}
        _fail_unless(not unknown, f"requires what candidates do not have: {sorted(unknown)}")

    def test_names_its_hyperparameters(self) -> None:
        """``repr`` is all of them and nothing else: records and resumed runs know it by that.

        The base class's says what ``__init__`` took, where that is kept in attributes of the
        same names; a dataclass has its own.
        """
        selector = self.make()
        said = repr(selector)
        for name in parameters_of(type(selector)):
            value = re.search(rf"\b{re.escape(name)}=(.)", said)
            _fail_unless(
                value is not None and value[1] != "?",
                f"repr {said} does not say {name}; keep it in an attribute of that name",
            )
        for bad, why in ((" at 0x", "an address in memory"), ("...", "a value cut short")):
            _fail_unless(bad not in said, f"repr {said} holds {why}; it must be the same anywhere")
        _fail_unless(repr(self.make()) == said, f"two that are made alike have other reprs: {said}")
        # What it remembers must not become part of what it is called.
        list(_batches(selector, self.candidates(36)))
        _fail_unless(repr(selector) == said, f"repr {said} became {selector!r} by choosing")

    def test_keeps_k_distinct_positions(self) -> None:
        """For several k, one among them and all among them."""
        for n in (2, 7, 12, 40):
            for k in sorted({1, 2, n // 2, n - 1, n}):
                self._check_kept(self.candidates(n), k)

    def test_keeps_the_only_candidate(self) -> None:
        """One candidate is enough."""
        _fail_unless(self._kept(self.candidates(1), 1) == [0], "n = 1, k = 1 must keep position 0")

    def test_keeps_all_when_k_is_n(self) -> None:
        """Every candidate, and every seed."""
        for seed in range(3):
            kept = self._kept(self.candidates(9), 9, seed)
            _fail_unless(sorted(kept) == list(range(9)), f"k = n = 9 kept {kept}")

    def test_refuses_k_out_of_range(self) -> None:
        """0, below 0, above n."""
        for k in (0, -1, 13):
            what = f"k={k} with 12 candidates"
            words = f"k={k} is not allowed with 12 candidates"
            _fail_unless_refused(words, what, self._choose, self.candidates(12), k)

    def test_ties(self) -> None:
        """All candidates the same but for their index."""
        # Indices stay distinct: they are what tells the candidates apart.
        same = self.candidates(12).at(torch.zeros(12, dtype=torch.int64))
        same = replace(same, indices=torch.arange(12))
        for k in (1, 5, 12):
            self._check_kept(same, k)

    def test_duplicate_rows(self) -> None:
        """Each candidate twice."""
        twice = self.candidates(6).at(torch.arange(12) % 6)
        twice = replace(twice, indices=torch.arange(12))
        for k in (1, 5, 8, 12):
            self._check_kept(twice, k)

    def test_refuses_what_is_missing(self) -> None:
        """Each required field by itself."""
        for name in sorted(self.make().requires):
            lacking, what = _without(self.candidates(), {name}), f"candidates without {name}"
            _fail_unless_refused(f"lack {name}", what, self._choose, lacking, 2)

    def test_needs_no_more_than_it_requires(self) -> None:
        """Works with the required fields alone."""
        candidates, requires = self.candidates(), self.make().requires
        others = {field.name for field in fields(candidates)} - {"indices", *requires}
        self._check_kept(_without(candidates, others), 4)

    def test_refuses_nan_and_names_the_row(self) -> None:
        """NaN and infinity in each required floating field."""
        for name in self._floating():
            for number in range(len(self.candidates().tensors(name))):
                for bad in (float("nan"), float("inf")):
                    candidates = self.candidates()
                    candidates.tensors(name)[number][7] = bad
                    words = f"{name} of candidate 7 are NaN or infinite"
                    _fail_unless_refused(words, f"{bad} in {name}", self._choose, candidates, 2)

    def test_takes_every_floating_dtype(self) -> None:
        """Half precision of both kinds, and double."""
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            for k in (1, 5, 12):
                self._check_kept(self.candidates(dtype=dtype), k)

    def test_leaves_its_input_alone(self) -> None:
        """No field is changed in place."""
        candidates = self.candidates()
        before = candidates.at(torch.arange(12))
        self._choose(candidates, 5)
        for name in sorted({"indices", *self.make().requires}):
            for old, new in zip(before.tensors(name), candidates.tensors(name), strict=True):
                _fail_unless(torch.equal(old, new), f"{name} was changed in place")

    def test_weights_and_scores_are_finite(self) -> None:
        """Where it gives any."""
        for k in (1, 5, 12):
            selection = self._choose(self.candidates(), k)
            for name in ("weights", "scores"):
                value = getattr(selection, name)
                finite = value is None or bool(torch.isfinite(value).all())
                _fail_unless(finite, f"{name} are not finite: {value}")

    def test_same_seed_same_choice(self) -> None:
        """Two fresh selectors that observe the same choose the same in a run of 12 batches."""
        pool = self.candidates(36)
        first, second = (list(_batches(self.make(), pool)) for _ in range(2))
        _fail_unless(first == second, f"the same seed gave {first} and then {second}")

    def test_other_seed_other_choice(self) -> None:
        """Only for those that draw; the others must not depend on the seed."""
        candidates = self.candidates(30)
        sets = {tuple(sorted(self._kept(candidates, 10, seed))) for seed in range(10)}
        if self._draws():
            _fail_unless(len(sets) > 1, "ten seeds gave the same choice")
        else:
            _fail_unless(len(sets) == 1, f"nothing is random, but ten seeds gave {len(sets)} sets")

    def test_other_process_same_choice(self) -> None:
        """A new interpreter, to which it travels by pickle, chooses the same."""
        pool, selector = self.candidates(36), self.make()
        home = inspect.getmodule(type(selector))
        path = getattr(home, "__file__", None) if isinstance(home, types.ModuleType) else None
        there = _other_process().submit(
            _elsewhere, path, type(selector).__module__, sys.path, pickle.dumps((selector, pool))
        )
        here = list(_batches(selector, pool))
        _fail_unless(there.result(timeout=120) == here, "another process chose otherwise")

    def test_touches_no_global_randomness(self) -> None:
        """Neither torch's nor NumPy's nor Python's global generator moves."""
        before = _global_states()
        list(_batches(self.make(), self.candidates(36)))
        _fail_unless(_global_states() == before, "a global random generator was used")

    def test_the_order_of_candidates_says_nothing(self) -> None:
        """Permuted candidates: the same set where nothing is random, else the same chances.

        Fisher's exact test for each candidate's chance to be kept, Bonferroni over them.
        """
        candidates = self.candidates(10)
        order = torch.randperm(10, generator=derive_generator("permutation"))
        permuted = candidates.at(order)
        if not self._draws():
            kept = {int(order[position]) for position in self._kept(permuted, 4)}
            direct = set(self._kept(candidates, 4))
            _fail_unless(kept == direct, f"kept {direct}, and {kept} after a permutation")
            return
        counts = torch.zeros(2, 10, dtype=torch.int64)
        for seed in range(_DRAWS):
            counts[0, self._choose(candidates, 4, seed).positions] += 1
            selection = self._choose(permuted, 4, _DRAWS + seed, observed=candidates)
            counts[1, order[selection.positions]] += 1
        from scipy import stats  # takes half a second, for the one test that counts

        # One test a candidate, so the chance of a false alarm is shared among them.
        for position, (a, b) in enumerate(counts.T.tolist()):
            table = [[a, _DRAWS - a], [b, _DRAWS - b]]
            _fail_unless(
                stats.fisher_exact(table).pvalue > _CHANCE / 10,
                f"candidate {position} was kept {a} times of {_DRAWS}, but {b} times "
                "where the candidates stood in another order",
            )

    def test_choosing_ahead_changes_nothing(self) -> None:
        """Losses observed within an epoch are used from the next one on."""
        pool = self.candidates(36)
        now, later = (list(_batches(self.make(), pool, losses_last=last)) for last in (False, True))
        _fail_unless(now == later, "choosing an epoch's batches before its losses changed them")

    def test_beginning_an_epoch_again_changes_nothing(self) -> None:
        """As after a resume in the middle of an epoch."""
        candidates = self.candidates()
        selector = _ready(self.make(), candidates)
        kept = []
        for _ in range(2):
            selector.begin_epoch(2)
            selection = selector(candidates, 5, generator=derive_generator("again"))
            selector.observe(candidates.indices, 1 / _loss(candidates.indices))
            kept.append(selection.positions.tolist())
        _fail_unless(kept[0] == kept[1], f"epoch 2 kept {kept[0]}, and begun again {kept[1]}")

    def test_state_goes_on_where_it_was_saved(self) -> None:
        """Saved to a file in mid-epoch; a fresh selector gives the identical rest."""
        pool = self.candidates(36)
        selector = self.make()
        run = _batches(selector, pool)
        for _ in range(3 + 2):
            next(run)
        # The losses of the last batch are not observed yet: it is chosen again.
        file = io.BytesIO()
        torch.save(selector.state_dict(), file)
        file.seek(0)
        fresh = self.make()
        fresh.load_state_dict(torch.load(file, weights_only=True))
        whole = list(_batches(self.make(), pool))
        # Four batches were observed: three of the first epoch and one of the second.
        rest = list(_batches(fresh, pool, first=(1, 1)))
        _fail_unless(rest == whole[4:], f"expected {whole[4:]} after loading, got {rest}")

    def test_refuses_the_state_of_another(self) -> None:
        """With an error, in the place of going on wrongly."""
        state, load = {"of something else": 1}, self.make().load_state_dict
        _fail_unless_refused("saved by another selector", "a state with other names", load, state)


def check_selector(make: Callable[[], Selector]) -> None:
    """Runs every test on the selector that ``make`` makes.

    Raises:
        AssertionError: At the first test that fails, with the reason.
    """
    tests = SelectorConformance()
    tests.make = make
    for name in dir(tests):
        if name.startswith("test_"):
            getattr(tests, name)()
