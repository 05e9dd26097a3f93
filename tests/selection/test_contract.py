"""What every selector must do, run for each that is registered."""

from __future__ import annotations

import pytest
import torch

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import SELECTORS, Candidates, Selection, Selector

N = 12
NAMES = sorted(SELECTORS)


def full_candidates(n: int = N, seed: int = 0, dtype: torch.dtype = torch.float32) -> Candidates:
    generator = derive_generator("candidates", seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    return Candidates(
        indices=torch.arange(100, 100 + n),
        features=draw(n, 5).abs(),
        labels=torch.randint(0, 3, (n,), generator=generator),
        learner_outputs=draw(n, 3),
        reference_outputs=draw(n, 3),
        learner_losses=draw(n).abs(),
        reference_losses=draw(n).abs(),
        label_confidence=draw(n).abs(),
    )


def choose(name: str, candidates: Candidates, k: int, seed: int = 0) -> Selection:
    return SELECTORS[name]()(candidates, k, generator=derive_generator("choice", seed))


@pytest.mark.parametrize("k", [1, 2, 5, N])
@pytest.mark.parametrize("name", NAMES)
def test_keeps_k_distinct_positions(name, k):
    kept = choose(name, full_candidates(), k).positions
    assert kept.dtype == torch.int64
    assert kept.shape == (k,)
    assert len(set(kept.tolist())) == k
    assert set(kept.tolist()) <= set(range(N))


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_choice(name):
    first, second = (choose(name, full_candidates(), 4).positions for _ in range(2))
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_takes_every_floating_dtype(name, dtype):
    assert choose(name, full_candidates(dtype=dtype), 4).positions.shape == (4,)


@pytest.mark.parametrize("k", [0, -1, N + 1])
@pytest.mark.parametrize("name", NAMES)
def test_refuses_k_out_of_range(name, k):
    with pytest.raises(InputError, match=f"k={k} is not allowed with {N} candidates"):
        choose(name, full_candidates(), k)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_what_it_requires_and_lacks(name):
    for field in SELECTORS[name].requires:
        lacking = Candidates(
            **{
                other: getattr(full_candidates(), other)
                for other in ("indices", *SELECTORS[name].requires)
                if other != field
            }
        )
        with pytest.raises(InputError, match=f"lack {field}"):
            choose(name, lacking, 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_names_the_row_that_is_not_finite(name, bad):
    for field in SELECTORS[name].requires - {"labels"}:
        candidates = full_candidates()
        getattr(candidates, field)[7] = bad
        with pytest.raises(InputError, match=f"{field} of candidate 7 are NaN or infinite"):
            choose(name, candidates, 2)


@pytest.mark.parametrize("name", NAMES)
def test_explains_itself_in_a_line(name):
    assert SELECTORS[name].summary
    assert "\n" not in SELECTORS[name].summary


def test_a_selector_that_breaks_the_contract_is_caught():
    class Twice(Selector):
        def choose(self, candidates, k, generator):
            return Selection(torch.zeros(k, dtype=torch.int64))

    with pytest.raises(InputError, match=r"Twice.choose .* expected 2 distinct"):
        Twice()(full_candidates(), 2, generator=derive_generator(0))


def test_labels_must_be_int64():
    candidates = full_candidates()
    floats = Candidates(
        indices=candidates.indices,
        labels=candidates.labels.float(),
        learner_outputs=candidates.learner_outputs,
        reference_outputs=candidates.reference_outputs,
    )
    with pytest.raises(InputError, match="needs int64 labels"):
        choose("jest", floats, 2)
