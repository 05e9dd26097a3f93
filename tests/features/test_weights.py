"""Weights that people have: wrapped, inside checkpoints, as safetensors; others are refused."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pytest
import torch
from torch import nn

from saln.errors import InputError, MissingExtraError
from saln.features.backbone_weights import fit_weights, read_weights
from saln.features.backbones import build_backbone, build_network
from saln.features.extraction import extract_features
from saln.randomness import seeded_globally
from saln.training.learner_networks import build_head, build_learner


@pytest.fixture(scope="module")
def state():
    """Of a small-cnn with five classes."""
    return build_learner("small-cnn", 5, image_size=16, pretrained=False, seed=7)[0].state_dict()


def body_of(state):
    return {key: value for key, value in state.items() if not key.startswith("1.")}


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


WRAPPED = {
    "plain": lambda state: state,
    "DDP": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled DDP": lambda state: prefixed(state, "_orig_mod.module."),
    "DDP of a compiled one": lambda state: prefixed(state, "module._orig_mod."),
    "DDP of DDP": lambda state: prefixed(state, "module.module."),
    "a compiled part": lambda state: {
        key.replace("0.", "0._orig_mod.", 1): value for key, value in state.items()
    },
    "an average": lambda state: {
        "n_averaged": torch.tensor(3), **prefixed(state, "module.")
    },
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model_state_dict": lambda state: {"model_state_dict": prefixed(state, "module.")},
    "model": lambda state: {"optimizer": {"lr": 0.1}, "model": state},
    "a model's state_dict": lambda state: {"model": {"state_dict": state}, "epoch": 1},
    "Lightning": lambda state: {"state_dict": prefixed(state, "network."), "epoch": 2},
    "half precision": lambda state: {key: value.half() for key, value in state.items()},
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_networks_own_weights_are_found(kind, state, tmp_path):
    torch.save(WRAPPED[kind](state), tmp_path / "weights.pt")
    learner, _ = build_learner(
        "small-cnn", 3, image_size=16, pretrained=False, weights=tmp_path / "weights.pt"
    )
    found = learner.state_dict()
    assert found["1.weight"].shape == (3, 128)
    for key, value in body_of(state).items():
        value = value.half().to(value.dtype) if kind == "half precision" else value
        assert torch.equal(found[key], value), key


def test_the_same_everywhere_that_takes_weights(state, tmp_path):
    torch.save(prefixed(state, "module."), tmp_path / "weights.pt")
    options = {"image_size": 16, "weights": tmp_path / "weights.pt"}
    expected = body_of(state)
    backbone = build_backbone("small-cnn", **options).body.state_dict()
    _, frozen = build_head("small-cnn", 3, pretrained=False, **options)
    for found in (backbone, frozen.network.body.state_dict()):
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    images = [(np.full((16, 16, 3), i, np.uint8), 0) for i in range(3)]
    store = extract_features(
        images, "small-cnn", cache_dir=tmp_path, image_size=16, weights=str(tmp_path / "weights.pt")
    )
    assert store.manifest["weights"] == build_backbone("small-cnn", **options).identity()


def test_safetensors(state, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({f"module.{key}": value.contiguous() for key, value in state.items()}, path)
    network = build_network("small-cnn", image_size=16, pretrained=False, weights=path)
    found = network.body.state_dict()
    assert all(torch.equal(found[key], value) for key, value in body_of(state).items())
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"weights.safetensors cannot be read .*save_file"):
        read_weights(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'saln\[safetensors\]'"):
        read_weights(path)


def test_a_networks_own_module_is_no_wrapper():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.utils.skip_init(nn.Linear, 2, 2)

    network = Own()
    value = {"module.weight": torch.eye(2), "module.bias": torch.ones(2)}
    fit_weights(network, ("head",), value, "they")
    assert torch.equal(network.module.weight, torch.eye(2))


def test_what_does_not_fit_is_told(state, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({f"encoder.{key}": value for key, value in list(state.items())[:2]}, path)
    with pytest.raises(InputError) as caught:
        build_learner("small-cnn", 3, image_size=16, pretrained=False, weights=path)
    assert f"{path} does not fit the network: 16 of its 18 tensors are missing" in str(caught.value)
    assert "(0.1.bias, 0.1.running_mean, 0.1.running_var, ...)" in str(caught.value)
    assert "others" not in str(caught.value)  # nothing is said of what there is none of
    torch.save({**state, "extra": torch.zeros(1), "0.0.weight": torch.zeros(32, 3, 5, 5)}, path)
    with pytest.raises(InputError) as caught:
        build_learner("small-cnn", 3, image_size=16, pretrained=False, weights=path)
    assert "1 others are there (extra)" in str(caught.value)
    assert "1 have another shape (0.0.weight: (32, 3, 5, 5) for (32, 3, 3, 3))" in str(caught.value)
    assert "last layer alone may have another number of classes" in str(caught.value)
    assert "missing" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "0 of|18 of its 18 tensors are missing"),
        ({"epoch": 3}, r"no state dict .* but a dict with epoch; give"),
        ([torch.zeros(1)], "no state dict .* but a list; give"),
        (torch.zeros(1), "no state dict .* but a Tensor; give"),
        ({"state_dict": {"a": 1, "b": 2}}, "no state dict .* but a dict with state_dict; give"),
        ({"args": argparse.Namespace(lr=1), "model": {}}, r"holds Python objects \(argparse.Name"),
    ],
)
def test_files_of_something_else_are_refused(content, message, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=message):
        build_network("small-cnn", image_size=16, pretrained=False, weights=path)


def test_a_whole_model_is_refused_with_the_cure(tmp_path):
    path = tmp_path / "model.pt"
    with seeded_globally("whole"):
        torch.save(nn.Sequential(nn.Linear(2, 2)), path)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert "beside tensors it holds Python objects (torch.nn.modules." in str(caught.value)
    assert "open it yourself and give a state dict saved by torch.save" in str(caught.value)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match="is a folder; give a file"):
        read_weights(tmp_path)
    with pytest.raises(InputError, match="weights=5 is no path"):
        build_network("small-cnn", image_size=16, pretrained=False, weights=5)
    (tmp_path / "empty.pt").touch()
    with pytest.raises(InputError, match=r"empty.pt cannot be read \(EOFError\); give a state"):
        read_weights(tmp_path / "empty.pt")
