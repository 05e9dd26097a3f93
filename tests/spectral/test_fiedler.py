"""The listing's set, against the dense float64 oracle, and every answer that is defined."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from helpers.spectral_examples import Array, feature_sets, low_rank, outliers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import dense_fiedler as oracle

from saln.errors import ConvergenceError, InputError
from saln.spectral import FiedlerResult, fiedler, similarity_graph
from saln.spectral import graph as graph_module
from saln.spectral.davidson import lowest_pairs

# The module, which the package's function of the same name hides.
fiedler_module = importlib.import_module("saln.spectral.fiedler")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def positions(result: FiedlerResult, k: int) -> frozenset[int]:
    return frozenset(result.ranking()[:k].tolist())


def assert_valid(result: FiedlerResult, features: Array) -> None:
    """What holds of every answer: a ranking, a unit eigenvector, the listing's eigenvalue."""
    n = len(features)
    assert sorted(result.ranking().tolist()) == list(range(n))
    vector = result.vector.cpu().numpy()
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-12)
    matrix = oracle.laplacian(features)
    scale = max(1.0, np.abs(np.diag(matrix)).max())
    assert np.linalg.norm(matrix @ vector - result.value * vector) <= 1e-11 * scale * n**0.5
    if n > 1:
        assert result.value == pytest.approx(oracle.spectrum(features)[0][1], abs=1e-10 * scale)
    assert 1.0 - 1e-9 <= result.participation_ratio <= n * (1 + 1e-9)


@settings(
    max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(feature_sets())
def test_the_set_is_the_oracles_wherever_the_oracle_is_stable(
    case: tuple[Array, int, str],
) -> None:
    features, k, solver = case
    tensor = torch.from_numpy(features)
    try:
        result = fiedler(tensor, solver=solver)
    except ConvergenceError:
        # Refusing is right only where no solver is left to fall back on.
        assert solver == "davidson"
        result = fiedler(tensor)
    assert_valid(result, features)
    again = fiedler(tensor, solver=solver if result.solver == solver else "auto")
    assert torch.equal(result.vector, again.vector)
    expected = oracle.stable_choice(features, k)
    if expected is None:
        assert not result.determined(k)
    else:
        assert positions(result, k) == expected


@settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(257, 420),
    d=st.integers(2, 300),
    kind=st.sampled_from(["nonnegative", "outliers", "signed"]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    share=st.floats(0.02, 0.98),
)
def test_the_iteration_gives_the_oracles_set_in_every_dtype(seed, n, d, kind, dtype, share):
    if kind == "outliers":
        features = outliers(n, d, seed)
    else:
        features = low_rank(n, d, 6, seed, signed=kind == "signed")
    tensor = torch.from_numpy(features).to(dtype)
    given_values = tensor.double().numpy()
    result = fiedler(tensor)
    assert_valid(result, given_values)
    k = max(1, int(share * n))
    expected = oracle.stable_choice(given_values, k, trials=2)
    if expected is None:
        assert not result.determined(k)
    else:
        assert positions(result, k) == expected


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("wide", [False, True])
def test_features_like_those_of_images_need_no_fallback(device, wide):
    features = outliers(400, 700 if wide else 150, 5)
    result = fiedler(torch.from_numpy(features).float().to(device))
    assert (result.solver, result.certificate, result.fallback) == ("davidson", "probes", None)
    assert result.vector.device.type == device
    values, vectors = oracle.spectrum(features.astype(np.float32))
    assert result.value == pytest.approx(values[1], rel=1e-12)
    assert values[2] - values[1] <= result.gap * (1 + 1e-9)
    assert result.gap == pytest.approx(values[2] - values[1], rel=0.25)
    assert result.residual <= 1e-11 * np.abs(values).max()
    assert result.accuracy < 1e-10
    difference = np.abs(result.vector.cpu().numpy()) - np.abs(vectors[:, 1])
    assert np.abs(difference).max() <= result.accuracy + 1e-12
    expected = 1.0 / (vectors[:, 1] ** 4).sum()
    assert result.participation_ratio == pytest.approx(expected, rel=1e-9)
    for k in (1, 40, 80, 200, 399):
        assert positions(result, k) == oracle.chosen(features.astype(np.float32), k)


# Second smallest, not third


@pytest.mark.parametrize("n", [64, 290])
@pytest.mark.parametrize("trap", [2, 3, 10])
@pytest.mark.parametrize("signed", [False, True])
def test_a_start_at_higher_eigenvectors_is_left(n, trap, signed):
    features = low_rank(n, 40, 6, 3, signed=True) if signed else outliers(n, 40, 3)
    graph = similarity_graph(torch.from_numpy(features))
    values, vectors = oracle.spectrum(features)
    start = torch.from_numpy(vectors[:, trap : trap + 2].T.copy())[None]
    image = graph.diagonal[:, None] * start - graph.similarity(start)
    # It is a trap: the residual alone says that all is well.
    there = torch.from_numpy(values[trap : trap + 2])[:, None]
    assert torch.linalg.vector_norm(image - there * start) < 1e-11 * n
    beside = np.delete(values, np.argmin(np.abs(values)))  # the kernel's 0 is no pair of these
    pairs = lowest_pairs(graph, 1, start=start)
    assert bool(pairs.certified)
    assert bool(pairs.converged)
    assert float(pairs.values[0, 0]) == pytest.approx(beside[0], rel=1e-10)


def test_a_wrong_pair_is_not_certified():
    # Without a single float64 or float32 round to leave the trap, the probes must refuse.
    features = outliers(80, 40, 3)
    graph = similarity_graph(torch.from_numpy(features))
    third = torch.from_numpy(oracle.spectrum(features)[1][:, 2:4].T.copy())[None]
    search = importlib.import_module("saln.spectral.davidson")._Search(graph, 1, third)
    search.rayleigh_ritz()
    search.expand(60)
    assert not bool(search.certified)
    search.rayleigh_ritz()
    # and what refused it is a direction towards the lower one, now in the basis
    assert float(search.values[0, 0]) < oracle.spectrum(features)[0][2] - 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_two_nearly_equal_lowest_values_are_told_apart_or_handed_over(seed):
    generator = np.random.default_rng(seed)
    features = outliers(260, 90, seed)
    # Two far outliers whose degrees differ in the sixth digit.
    features[10] = features[10] * 0 + 1e-3
    features[10, :3] = 1.0
    features[200] = features[10][::-1] * (1 + 1e-6 * generator.random(90))
    result = fiedler(torch.from_numpy(features))
    values, _ = oracle.spectrum(features)
    assert result.value == pytest.approx(values[1], rel=1e-10)
    for k in (1, 2, 50):
        expected = oracle.stable_choice(features, k)
        if expected is not None:
            assert positions(result, k) == expected
        else:
            assert not result.determined(k)


def test_zero_may_lie_anywhere_in_the_spectrum():
    generator = np.random.default_rng(0)
    seen = set()
    for n in (5, 12, 40, 270):
        for lean in (0.0, 0.1, 0.3, 1.0):
            for d in (2, 3, 60):
                features = generator.standard_normal((n, d)) + lean
                values, vectors = oracle.spectrum(features)
                seen.add(min(int((values < -1e-9).sum()), 3))
                result = fiedler(torch.from_numpy(features))
                assert result.value == pytest.approx(values[1], abs=1e-10 * n)
                if np.diff(values[:3]).min() > 1e-6:
                    overlap = abs(float(result.vector.numpy() @ vectors[:, 1]))
                    assert overlap == pytest.approx(1.0, abs=1e-9)
    assert seen == {0, 1, 2, 3}  # 0 first, second, third and later


def test_when_the_constant_vector_is_the_answer_position_decides():
    # Two opposite crowds: one negative eigenvalue, then 0.
    features = np.array([[1.0, 0.1]] * 4 + [[-1.0, 0.12]] * 4)
    features[:, 1] += np.arange(8) * 0.01
    values, _ = oracle.spectrum(features)
    if not values[0] < -1e-9 < 1e-9 < values[2]:
        features = np.random.default_rng(1).standard_normal((8, 2)) @ np.diag([3.0, 0.2])
    for seed in range(200):
        values, _ = oracle.spectrum(features)
        if values[0] < -1e-6 and abs(values[1]) < 1e-9 and values[2] > 1e-6:
            break
        features = np.random.default_rng(seed).standard_normal((6, 3)) + 0.2
    else:
        pytest.fail("no such features were drawn")
    result = fiedler(torch.from_numpy(features))
    n = len(features)
    assert result.ranking().tolist() == list(range(n))
    assert result.participation_ratio == pytest.approx(n)
    assert not result.determined(1)


# Degenerate input


def test_one_example():
    result = fiedler(torch.tensor([[3.0, 4.0]]))
    assert (result.value, result.vector.tolist()) == (0.0, [1.0])
    assert result.ranking().tolist() == [0]
    assert result.determined(1)


@pytest.mark.parametrize("rows", [[[1.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [-1.0, 1.0]]])
def test_two_examples_tie(rows):
    result = fiedler(torch.tensor(rows))
    assert result.ranking().tolist() == [0, 1]
    assert not result.determined(1)
    assert result.determined(2)


@pytest.mark.parametrize("n", [3, 50, 300, 4097])
@pytest.mark.parametrize("row", [0.0, 0.3])
def test_rows_that_are_all_the_same_are_ranked_by_position(n, row):
    result = fiedler(torch.full((n, 7), row))
    assert result.degenerate
    assert result.gap == 0.0
    assert result.value == pytest.approx(n if row else 0.0, rel=1e-9)
    assert result.ranking().tolist() == list(range(n))


@pytest.mark.parametrize("n", [24, 300])
def test_duplicate_rows_tie_and_go_by_position(n):
    features = outliers(n // 2, 30, 8)
    features = np.concatenate([features, features])
    result = fiedler(torch.from_numpy(features))
    ranking = result.ranking().tolist()
    half = n // 2
    for first, second in zip(ranking[::2], ranking[1::2], strict=True):
        assert second == first + half
    assert_valid(result, features)


@pytest.mark.parametrize("sizes", [(5, 9), (120, 180)])
def test_two_groups_without_similarity(sizes):
    small, large = sizes
    features = torch.zeros(small + large, 8)
    features[::2][:small, :4] = torch.rand(small, 4, generator=torch.Generator().manual_seed(1))
    rest = features.sum(1) == 0
    features[rest, 4:] = torch.rand(large, 4, generator=torch.Generator().manual_seed(2))
    result = fiedler(features)
    assert result.degenerate
    assert result.value == pytest.approx(0.0, abs=1e-9)
    # The smaller group first, each in order.
    first = (~rest).nonzero().flatten().tolist()
    second = rest.nonzero().flatten().tolist()
    assert result.ranking().tolist() == first + second


@pytest.mark.parametrize("n", [6, 260])
def test_many_groups_fall_back_and_are_marked(n):
    features = torch.eye(6).repeat(n // 6 + 1, 1)[:n]
    result = fiedler(features)
    assert result.degenerate
    assert result.solver == "dense"
    assert torch.equal(result.vector, fiedler(features).vector)
    if n > 256:
        assert "repeated" in result.fallback


def test_above_the_dense_limit_many_groups_are_refused_with_the_residual(monkeypatch):
    monkeypatch.setattr(fiedler_module, "DENSE_LIMIT", 200)
    features = torch.eye(20).repeat(13, 1)
    with pytest.raises(ConvergenceError, match=r"260 candidates .*residual .*allowed up to 200"):
        fiedler(features)


def test_above_the_dense_limit_a_few_groups_are_solved_whole(monkeypatch):
    features = torch.eye(4).repeat(70, 1)
    whole = fiedler(features)
    monkeypatch.setattr(fiedler_module, "DENSE_LIMIT", 200)
    result = fiedler(features)
    assert result.degenerate
    assert result.ranking()[:70].tolist() == whole.ranking()[:70].tolist()


def test_a_crowded_spectrum_falls_back_and_says_so():
    features = low_rank(270, 4, 2, 11, signed=True)
    features[:100] = features[0]
    result = fiedler(torch.from_numpy(features))
    assert_valid(result, features)
    assert (result.solver == "davidson") == (result.fallback is None)


@pytest.mark.parametrize("n", [9, 270])
def test_a_zero_row_is_alone(n):
    features = torch.from_numpy(outliers(n, 12, 1))
    features[4] = 0.0
    result = fiedler(features)
    assert result.degenerate
    assert result.value == 0.0
    assert result.ranking().tolist() == [4, *[i for i in range(n) if i != 4]]
    assert_valid(result, features.numpy())


@pytest.mark.parametrize("n", [40, 260])
def test_one_huge_norm_changes_nothing(n):
    features = torch.from_numpy(outliers(n, 12, 2))
    huge = features.clone()
    huge[7] *= 1e30
    assert fiedler(huge).ranking().tolist() == fiedler(features).ranking().tolist()
    small = features.float()
    small[7] *= 1e30
    assert fiedler(small).ranking()[:5].tolist() == fiedler(features).ranking()[:5].tolist()


def test_k_is_checked():
    result = fiedler(torch.rand(5, 3, generator=torch.Generator().manual_seed(0)))
    for k in (0, 6):
        with pytest.raises(InputError, match=f"k={k} with 5 examples"):
            result.determined(k)


def test_strides_and_halves_do_not_matter():
    features = torch.from_numpy(outliers(266, 60, 3)).half()
    expected = fiedler(features.float()).ranking()
    assert torch.equal(fiedler(features).ranking(), expected)
    assert torch.equal(fiedler(features.T.contiguous().T).ranking(), expected)
    assert torch.equal(fiedler(features.double()).ranking(), expected)


def test_neither_is_the_input_changed_nor_a_gradient_kept():
    features = torch.from_numpy(outliers(266, 30, 3)).float().requires_grad_()
    before = features.detach().clone()
    result = fiedler(features, centered=True)
    assert torch.equal(features.detach(), before)
    assert not result.vector.requires_grad


# Several batches, options, errors


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [30, 260])
def test_several_batches_at_once(device, n):
    items = [outliers(n, 40, 1), low_rank(n, 40, 5, 2), np.ones((n, 40)), outliers(n, 40, 4)]
    items[3][2] = 0.0
    stacked = torch.from_numpy(np.stack(items)).to(device)
    result = fiedler(stacked)
    assert result.vector.shape == (4, n)
    assert result.value.shape == result.gap.shape == (4,)
    assert result.degenerate.tolist() == [False, False, True, True]
    rankings = result.ranking()
    assert rankings.dtype == torch.int64
    for i, item in enumerate(items):
        alone = fiedler(torch.from_numpy(item))
        one = result[i]
        assert one.value == pytest.approx(alone.value, rel=1e-12, abs=1e-10)
        assert (one.solver, one.degenerate) == (alone.solver, alone.degenerate)
        assert torch.equal(one.ranking().cpu(), alone.ranking())
        assert torch.equal(rankings[i], one.ranking())
        assert bool(result.determined(3)[i]) == one.determined(3)
    with pytest.raises(InputError, match="one batch"):
        alone[0]


def test_signs_may_differ_between_batches():
    items = [outliers(290, 40, 1), low_rank(290, 40, 5, 2, signed=True)]
    result = fiedler(torch.from_numpy(np.stack(items)))
    for i, item in enumerate(items):
        assert float(result.value[i]) == pytest.approx(oracle.second(item)[0], rel=1e-9)


@pytest.mark.parametrize("n", [60, 280])
@pytest.mark.parametrize(
    "options",
    [
        {"centered": True},
        {"nonnegative": True},
        {"nonnegative": True, "centered": True},
        {"nonnegative": True, "neighbors": 8},
        {"neighbors": 8, "nonnegative": True, "normalization": "symmetric"},
        {"nonnegative": True, "normalization": "random-walk"},
    ],
    ids=str,
)
def test_options_beyond_the_paper(n, options):
    features = torch.from_numpy(low_rank(n, 20, 5, 6, signed=True)) + 0.4
    result = fiedler(features, **options)
    kind = options.get("normalization")
    plain = {name: value for name, value in options.items() if name != "normalization"}
    similarity = similarity_graph(features, **plain).dense()[0].numpy()
    degrees = similarity.sum(1)
    matrix = np.diag(degrees) - similarity
    if kind == "symmetric":
        matrix = matrix / np.sqrt(degrees[:, None] * degrees)
    elif kind == "random-walk":
        matrix = matrix / degrees[:, None]
    values = np.sort(np.linalg.eigvals(matrix).real)
    assert result.value == pytest.approx(values[1], abs=1e-9 * max(1.0, values[-1]))
    vector = result.vector.numpy()
    assert np.linalg.norm(matrix @ vector - result.value * vector) < 1e-8 * max(1.0, values[-1])


def test_a_tiled_graph_is_solved_without_a_matrix(monkeypatch):
    features = torch.from_numpy(outliers(300, 30, 6)) - 0.9
    expected = fiedler(features, nonnegative=True, solver="dense")
    monkeypatch.setattr(graph_module, "DENSE_LIMIT", 290)
    monkeypatch.setattr(fiedler_module, "DENSE_LIMIT", 290)
    result = fiedler(features, nonnegative=True)
    assert result.solver == "davidson"
    assert result.value == pytest.approx(expected.value, rel=1e-10)
    assert positions(result, 60) == positions(expected, 60)


@pytest.mark.parametrize("solver", ["dense", "davidson"])
def test_either_solver_can_be_asked_for(solver):
    features = torch.from_numpy(outliers(120, 30, 6))
    result = fiedler(features, solver=solver)
    assert result.solver == solver
    assert positions(result, 24) == oracle.chosen(features.numpy(), 24)


def test_what_is_not_allowed_says_so():
    features = torch.ones(4, 2)
    with pytest.raises(InputError, match="solver='lanczos'; allowed are 'auto'"):
        fiedler(features, solver="lanczos")
    with pytest.raises(InputError, match="4097 examples; allowed is up to 4096"):
        fiedler(torch.ones(4097, 2), solver="dense")
    features[2, 1] = torch.nan
    with pytest.raises(InputError, match="nan in row 2, column 1"):
        fiedler(features)


def test_real_features_of_images(data_root, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    real = importlib.import_module("real_features")
    features = real.real_features(data_root, "pets", 320, tmp_path)
    for n in (64, 200, 320):
        given_values = features[:n].astype(np.float64)
        result = fiedler(torch.from_numpy(features[:n]), solver="davidson")
        assert result.participation_ratio < 3.0
        for k in (1, n // 5, n // 2):
            assert positions(result, k) == oracle.chosen(given_values, k)


@pytest.mark.parametrize("n", [23, 45, 300, 391])
@pytest.mark.parametrize("seed", range(6))
def test_parallel_rows_never_give_the_constant_vector(n, seed):
    """All similarities are 1: every vector beside the constant one belongs to eigenvalue n."""
    random = np.random.default_rng(seed)
    features = torch.from_numpy(np.outer(random.random(n) + 0.1, random.random(5)))
    result = fiedler(features)
    assert result.value == pytest.approx(n)
    assert abs(float(result.vector.sum())) < 1e-6
    try:
        result = fiedler(features, solver="davidson")
    except ConvergenceError:
        return  # it may give up, but not be wrong
    assert result.value == pytest.approx(n)
