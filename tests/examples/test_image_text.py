from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "examples" / "image_text.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("image_text", PATH)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "image_text", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Features of the second run are those of the first."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_the_example_runs(example, data_root, cache, capsys, loss):
    accuracies = example.main(
        ["--data-root", str(data_root), "--limit", "200", "--steps", "20", "--seeds", "1",
         "--loss", loss, "--cache-dir", str(cache)]
    )  # fmt: skip
    assert set(accuracies) == {"reference", "uniform", "jest"}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["reference", "uniform", "jest"]
    assert lines[-3].split()[-2] == "0.0%"  # the reference's captions are all right


def test_jest_avoids_wrong_captions(example):
    """The example's own parts, on made-up features that name their class."""
    labels = torch.arange(600) % 6
    images = torch.nn.functional.one_hot(labels, 6).float()
    words = torch.nn.functional.one_hot(labels, 6).float()
    words[:240] = words[1:241].clone()  # their captions are their neighbors'
    is_wrong = torch.arange(600) < 240
    pairs = example.Pairs(images, words, is_wrong)
    right = pairs[torch.arange(300, 600)]
    options = {"loss": "sigmoid", "steps": 40, "seed": 0}
    reference, share = example.train(right, arm="uniform", reference=None, **options)
    assert share == 0
    _, uniform = example.train(pairs, arm="uniform", reference=None, **options)
    _, jest = example.train(pairs, arm="jest", reference=reference, **options)
    assert uniform == pytest.approx(0.4, abs=0.05)
    assert jest < 0.3
