"""The similarity graph as an operator, against matrices written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from saln.errors import InputError
from saln.spectral import graph as graph_module
from saln.spectral import similarity_graph
from saln.spectral.graph import FactorGraph, MatrixGraph, TiledGraph


def draw(n: int = 30, d: int = 12, seed: int = 0, *, signed: bool = False) -> Tensor:
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n, d)) if signed else generator.random((n, d))
    return torch.from_numpy(features)


def vectors(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(9).standard_normal((1, 5, n))).to(dtype)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("p", [1, 2, 3, 5])
def test_operator_is_the_cosine_matrix(signed, p):
    features = draw(signed=signed) * 7.0
    features[4] = 0.0
    graph = similarity_graph(features)
    expected = cosine_similarity(features.numpy())
    assert isinstance(graph, FactorGraph)
    np.testing.assert_allclose(graph.degrees[0], expected.sum(1), atol=1e-13)
    rows = vectors(30)[:, :p]
    np.testing.assert_allclose(graph.similarity(rows)[0], rows[0].numpy() @ expected, atol=1e-13)
    np.testing.assert_allclose(graph.dense()[0], expected, atol=1e-14)
    assert graph.nonnegative is not signed
    assert float(graph.degrees[0, 4]) == 0.0
    at = torch.tensor([[3, 4, 11]])
    np.testing.assert_allclose(graph.corner(at)[0], expected[np.ix_(at[0], at[0])], atol=1e-14)


def test_float32_products_differ_by_float32_rounding_only():
    graph = similarity_graph(draw().float() * 3.0)
    low = graph.similarity(vectors(30, torch.float32))
    assert low.dtype == torch.float32
    np.testing.assert_allclose(low, graph.similarity(vectors(30)), rtol=1e-4, atol=1e-4)
    scale = torch.rand(1, 1, 30, generator=torch.Generator().manual_seed(0))
    rows = vectors(30, torch.float32)
    expected = graph.similarity(rows * scale) * scale
    np.testing.assert_allclose(graph.scaled_product(scale)(rows), expected, rtol=1e-4, atol=1e-4)


def test_centered_features():
    features = draw()
    expected = cosine_similarity(features.numpy() - features.numpy().mean(0))
    np.testing.assert_allclose(
        similarity_graph(features, centered=True).dense()[0], expected, atol=1e-13
    )


def test_centered_identical_rows_have_no_direction():
    graph = similarity_graph(torch.full((9, 5), 0.1, dtype=torch.float64), centered=True)
    assert float(graph.dense().abs().max()) == 0.0


@pytest.mark.parametrize("tiled", [False, True])
def test_similarities_cut_at_zero(tiled, monkeypatch):
    if tiled:
        monkeypatch.setattr(graph_module, "DENSE_LIMIT", 20)
        monkeypatch.setattr(graph_module, "_TILE", 7)
    features = draw(signed=True)
    graph = similarity_graph(features, nonnegative=True)
    assert isinstance(graph, TiledGraph if tiled else MatrixGraph)
    expected = cosine_similarity(features.numpy()).clip(min=0.0)
    rows = vectors(30)
    np.testing.assert_allclose(graph.degrees[0], expected.sum(1), atol=1e-13)
    np.testing.assert_allclose(graph.similarity(rows)[0], rows[0].numpy() @ expected, atol=1e-13)
    low = graph.similarity(rows.float())
    np.testing.assert_allclose(low[0], rows[0].numpy() @ expected, atol=1e-4)
    at = torch.tensor([[3, 4, 11]])
    np.testing.assert_allclose(graph.corner(at)[0], expected[np.ix_(at[0], at[0])], atol=1e-14)
    if tiled:
        with pytest.raises(InputError, match="dense 30 x 30"):
            graph.dense()


@pytest.mark.parametrize("cut", [False, True])
def test_nearest_neighbors(cut, monkeypatch):
    monkeypatch.setattr(graph_module, "_TILE", 7)
    features = draw(signed=True)
    features[5] = features[6]  # a tie: the lower position is kept
    full = cosine_similarity(features.numpy())
    keep = np.zeros((30, 30), dtype=bool)
    for i in range(30):
        others = [j for j in range(30) if j != i]
        keep[i, sorted(others, key=lambda j: (-full[i, j], j))[:3]] = True
    expected = np.where(keep | keep.T, full.clip(min=0.0) if cut else full, 0.0)
    graph = similarity_graph(features, neighbors=3, nonnegative=cut)
    np.testing.assert_allclose(graph.dense()[0], expected, atol=1e-12)
    np.testing.assert_allclose(graph.degrees[0], expected.sum(1), atol=1e-12)
    rows = vectors(30)
    np.testing.assert_allclose(graph.similarity(rows)[0], rows[0].numpy() @ expected, atol=1e-12)


@pytest.mark.parametrize("neighbors", [None, 4])
def test_normalized_operator_and_its_kernel(neighbors):
    features = draw()
    features[3] = 0.0
    plain = similarity_graph(features, neighbors=neighbors).dense()[0].numpy()
    degrees = plain.sum(1)
    root = np.where(degrees > 0, degrees, 1.0) ** -0.5
    graph = similarity_graph(features, neighbors=neighbors, normalization="symmetric")
    np.testing.assert_allclose(graph.dense()[0], plain * root[:, None] * root, atol=1e-12)
    kernel = graph.kernel
    image = graph.diagonal * kernel - graph.similarity(kernel[:, None])[:, 0]
    np.testing.assert_allclose(image[0], 0.0, atol=1e-13)
    np.testing.assert_allclose(torch.linalg.vector_norm(kernel), 1.0, atol=1e-14)


def test_rows_of_any_scale_have_a_cosine():
    features = draw()
    scaled = features * 10.0 ** torch.linspace(-200, 200, 30, dtype=torch.float64)[:, None]
    np.testing.assert_allclose(
        similarity_graph(scaled).dense(), similarity_graph(features).dense(), atol=1e-14
    )


def test_strides_do_not_matter():
    features = draw(24, 60)
    view = features[:, ::3]
    same = similarity_graph(view.contiguous()).degrees
    assert torch.equal(similarity_graph(view).degrees, same)
    assert torch.equal(similarity_graph(view.T.contiguous().T).degrees, same)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (torch.ones(3), {}, r"\(3,\); allowed is a tensor \(n, d\)"),
        (torch.ones(2, 2, 2, 2), {}, "allowed is a tensor"),
        (torch.ones(3, 2, dtype=torch.int64), {}, "int64; allowed is a floating dtype"),
        (torch.ones(0, 2), {}, "at least one example"),
        (torch.ones(3, 0), {}, "at least one example"),
        (torch.ones(4, 2), {"neighbors": 4}, "neighbors=4 with 4 examples"),
        (torch.ones(4, 2), {"neighbors": 0}, "neighbors=0"),
        (torch.ones(4, 2), {"normalization": "unit"}, "normalization='unit'; allowed"),
        (torch.ones(2, 4, 2), {"nonnegative": True}, "2 batches at once"),
        (torch.tensor([[1.0, 0.0], [-1.0, 0.1], [-1.0, 0.0]]), {"normalization": "symmetric"},
         "example 0 has degree"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_says_so(features, options, message):
    with pytest.raises(InputError, match=message):
        similarity_graph(features, **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("centered", [False, True])
def test_values_that_are_not_finite_are_refused_by_row(value, centered):
    features = draw().float()
    features[17, 3] = value
    with pytest.raises(InputError, match=f"{value} in row 17, column 3"):
        similarity_graph(features, centered=centered)
    with pytest.raises(InputError, match="row 17 of batch 1"):
        similarity_graph(torch.stack([draw().float(), features]), centered=centered)
