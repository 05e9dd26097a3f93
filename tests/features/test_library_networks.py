"""Networks of timm, open_clip and transformers: their features are their own library's."""

from __future__ import annotations

import json
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from helpers.small_models import (
    save_image_model,
    save_open_clip,
    save_text_encoder,
    save_timm,
)
from PIL import Image
from sklearn.datasets import load_sample_images

import saln
from saln.data.transforms import Normalization
from saln.errors import InputError, MissingExtraError, WeightsError
from saln.features.backbones import build_backbone, build_network, feature_size
from saln.features.extraction import plan_extraction
from saln.randomness import seeded_globally
from saln.training.learner_networks import build_head, build_learner

KINDS = ("dinov2", "clip", "clip-vision", "siglip", "vit", "convnext")


@pytest.fixture(scope="module")
def photos():
    """Pieces of two photos, of several shapes."""
    pieces = []
    for number, photo in enumerate(load_sample_images().images):
        for height, width in ((90, 160), (210, 130), (64, 64)):
            pieces.append((Image.fromarray(photo[50 : 50 + height, 80 : 80 + width]), number))
    return pieces


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder a kind of model."""
    for package in ("transformers", "timm", "open_clip"):
        pytest.importorskip(package)
    root = tmp_path_factory.mktemp("models")
    return {kind: save_image_model(root / kind, kind) for kind in KINDS} | {
        "open_clip": save_open_clip(root / "open_clip"),
        "timm": save_timm(root / "timm", "resnet18"),
    }


def by_transformers(folder, images):
    """The library's own way: a batch of its processor, its model, its pooled output."""
    from transformers import AutoImageProcessor, AutoModel

    batch = AutoImageProcessor.from_pretrained(folder)(images=images, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if folder.name == "clip":
            return model.get_image_features(**batch).pooler_output
        output = model(**batch)
        return output.last_hidden_state[:, 0] if folder.name == "vit" else output.pooler_output


def by_open_clip(folder, images):
    import open_clip

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    with torch.no_grad():
        return model.eval().encode_image(torch.stack([transform(image) for image in images]))


def by_timm(folder, images):
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    facts = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**facts, is_training=False)
    with torch.no_grad():
        return model(torch.stack([transform(image) for image in images]))


LIBRARIES = {"open_clip": by_open_clip, "timm": by_timm}


def by_library(kind, folders, images):
    with seeded_globally("what they draw before weights are loaded"):
        return LIBRARIES.get(kind, by_transformers)(folders[kind], images)


def spec(folders, kind):
    prefix = kind if kind in LIBRARIES else "hf"
    return f"{prefix}:{folders[kind]}"


@pytest.mark.parametrize("kind", [*KINDS, *LIBRARIES])
def test_features_are_those_of_the_library_itself(kind, folders, photos, tmp_path):
    images = [image for image, _ in photos]
    expected = by_library(kind, folders, images)
    assert (expected - expected[0]).abs().max() > 1e-3
    network = build_backbone(spec(folders, kind))
    with torch.inference_mode():
        found = network.body(torch.stack([network.transform(image) for image in images]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert network.width == expected.shape[1]
    assert network.image_size == (224 if kind == "timm" else 32)
    assert not any(parameter.requires_grad for parameter in network.body.parameters())
    store = saln.extract_features(photos, spec(folders, kind), cache_dir=tmp_path)
    np.testing.assert_allclose(store.features, expected.half().numpy(), atol=2e-3, rtol=2e-3)
    assert store.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("kind", ["dinov2", "open_clip", "timm"])
def test_the_command_makes_the_same_rows(kind, folders, photos, tmp_path, capsys):
    from saln.cli import main

    for number, (image, label) in enumerate(photos):
        folder = tmp_path / "photos" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        for turn in range(4):
            image.rotate(90 * turn).save(folder / f"{number} {turn}.png")
    status = main([
        "features", "--dataset", f"folder:{tmp_path / 'photos'}", "--json",
        "--backbone", spec(folders, kind), "--cache-dir", str(tmp_path / "cache"),
    ])  # fmt: skip
    output = capsys.readouterr()
    assert status == 0, output.err
    store = saln.FeatureStore.open(json.loads(output.out)["path"])
    assert store.manifest["preprocessing"]["own"]["by"]
    from saln.data import load_dataset

    split = load_dataset(f"folder:{tmp_path / 'photos'}").train
    images = [split.images.load(int(row)) for row in split.rows]
    expected = by_library(kind, folders, images)
    np.testing.assert_allclose(store.features, expected.half().numpy(), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("kind", ["dinov2", "clip", "open_clip", "timm", "siglip", "convnext"])
def test_another_size_keeps_what_is_cut_off_the_same_share(kind, folders, photos):
    size = 64
    own = build_backbone(spec(folders, kind))
    network = build_backbone(spec(folders, kind), image_size=size)
    image = photos[0][0]
    assert network.transform(image).shape == (3, size, size)
    with torch.inference_mode():
        assert network.body(network.transform(image)[None]).shape == (1, own.width)
    # The same part of the picture: seen at one size, the two are alike.
    small = torch.nn.functional.interpolate(
        network.transform(image)[None], own.image_size, mode="area"
    )[0]
    assert np.corrcoef(small.flatten(), own.transform(image).flatten())[0, 1] > 0.95


def test_what_the_preprocessing_does_decides_about_the_store(folders, photos, tmp_path):
    def store_of(folder):
        return plan_extraction(photos, f"hf:{folder}", cache_dir="c").path.name

    before = store_of(folders["dinov2"])
    assert before.startswith("list-hf-dinov2-32px-")
    moved = shutil.copytree(folders["dinov2"], tmp_path / "moved" / "dinov2")
    assert store_of(moved) == before
    for change in (
        {"image_mean": [0.1, 0.2, 0.3]},
        {"resample": 2},
        {"size": {"shortest_edge": 34}},
    ):
        file = moved / "preprocessor_config.json"
        facts = json.loads((folders["dinov2"] / file.name).read_text())
        file.write_text(json.dumps(facts | change))
        assert store_of(moved) != before
    file.write_text(json.dumps(facts))
    save_image_model(moved, "dinov2", seed=1)  # other weights
    assert store_of(moved) != before


def test_rows_that_a_review_keeps_follow_the_preprocessing(folders, tmp_path):
    from saln.review.feature_cache import FeatureCache

    moved = shutil.copytree(folders["dinov2"], tmp_path / "moved" / "dinov2")
    file = moved / "preprocessor_config.json"
    kept = [FeatureCache(tmp_path, build_backbone(f"hf:{moved}")).folder]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"resample": 2}))
    kept.append(FeatureCache(tmp_path, build_backbone(f"hf:{moved}")).folder)
    assert kept[0] == FeatureCache(tmp_path, build_backbone(spec(folders, "dinov2"))).folder
    assert kept[0] != kept[1]


@pytest.mark.parametrize("kind", ["dinov2", "clip", "open_clip", "timm"])
def test_they_travel_to_other_processes(kind, folders, photos, tmp_path):
    network = build_backbone(spec(folders, kind))
    there = pickle.loads(pickle.dumps(network))
    image = there.transform(photos[0][0])
    assert torch.equal(image, network.transform(photos[0][0]))
    with torch.inference_mode():
        torch.testing.assert_close(there.body(image[None]), network.body(image[None]))
    if kind == "dinov2":
        alone = saln.extract_features(photos, network, cache_dir=tmp_path / "alone")
        helped = saln.extract_features(photos, network, cache_dir=tmp_path / "helped", workers=1)
        np.testing.assert_allclose(alone.features, helped.features, rtol=2e-3)


def test_stores_of_before_are_found_again():
    """As they were named when only size, mean and standard deviation were known of an image."""
    images = [(np.full((6, 5, 3), 40 * i, np.uint8), i % 2) for i in range(4)]
    module = torch.nn.Flatten()
    scale = Normalization((0.5,) * 3, (0.25,) * 3)
    found = [
        plan_extraction(images, backbone, cache_dir="c", name="four", **options).path.name
        for backbone, options in (
            ("pixels", {"image_size": 8}),
            ("efficientnet-lite0", {"image_size": 64}),
            (module, {"image_size": 8, "normalization": scale}),
        )
    ]
    assert found == [
        "four-pixels-8px-2c2370cbdd6e",
        "four-efficientnet-lite0-64px-5613ed946f7c",
        "four-Flatten-583a484f-8px-fd7a1111298b",
    ]


@pytest.mark.parametrize("kind", ["dinov2", "clip", "vit", "convnext", "open_clip", "timm"])
def test_they_learn_with_a_head_behind(kind, folders):
    size = {"convnext": 64, "timm": 64}.get(kind, 32)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    learner, normalization = build_learner(
        spec(folders, kind), 3, image_size=size, pretrained=True, seed=1
    )
    with torch.inference_mode():
        outputs = learner.eval()(images)
    assert outputs.shape == (4, 3)
    before = build_backbone(spec(folders, kind), image_size=size)
    assert normalization == before.normalization
    loss = torch.nn.functional.cross_entropy(learner.train()(images), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    moved = [name for name, part in learner.named_parameters() if part.grad is not None]
    assert len(moved) > 5
    head, body = build_head(spec(folders, kind), 3, image_size=size, pretrained=True, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(body(images), before.body(images))
        assert torch.equal(body.with_head(head).eval()(images), outputs)
    scratch = build_network(spec(folders, kind), image_size=size, pretrained=False)
    with torch.inference_mode():
        assert not torch.allclose(scratch.body.eval()(images), before.body(images), atol=1e-3)


@pytest.mark.parametrize("kind", ["open_clip", "timm"])
def test_weights_of_a_file_take_the_place_of_the_libraries(kind, folders, tmp_path):
    """A whole checkpoint: heads and text towers in it are passed over."""
    other = tmp_path / "other"
    if kind == "timm":
        save_timm(other, "resnet18", seed=5)
    else:
        save_open_clip(other, seed=5)
    (file,) = other.glob("*model.safetensors")
    expected = build_backbone(f"{kind}:{other}").body.state_dict()
    found = build_backbone(spec(folders, kind), weights=file).body.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    file = folders["dinov2"] / "model.safetensors"
    with pytest.raises(InputError, match="does not fit the network"):
        build_backbone(spec(folders, kind), weights=file)
    with pytest.raises(InputError, match=r"takes its weights from .*; leave backbone_weights out"):
        build_backbone(spec(folders, "dinov2"), weights=file)


def test_what_is_not_there_is_refused_with_the_cure(folders, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for name, error, message in (
        (f"hf:{tmp_path / 'empty'}", WeightsError, r"holds no preprocessor_config.*save_pre"),
        (f"hf:{tmp_path / 'none'}", WeightsError, "cannot be loaded from the folder"),
        (f"timm:{tmp_path / 'empty'}", WeightsError, r"cannot be loaded \(.*timm:FOLDER"),
        (f"timm:{tmp_path / 'none'}", InputError, "none is no folder"),
        ("timm:resnet19", InputError, r"timm knows no model 'resnet19' .*such as resnet1"),
        ("open_clip:ViT-B-33/openai", InputError, r"open_clip knows no model 'ViT-B-33'.*ViT-B-32"),
        ("open_clip:ViT-B-32", InputError, "open_clip:ViT-B-32/TAG with TAG one of openai, "),
        ("open_clip:ViT-B-32/mine", InputError, "names no published weights"),
        (f"open_clip:{tmp_path / 'empty'}", WeightsError, "open_clip_config.json"),
    ):
        with pytest.raises(error, match=message) as caught:
            build_backbone(name)
        assert "\n" not in str(caught.value)
    shutil.copytree(folders["open_clip"], tmp_path / "bare")
    (tmp_path / "bare" / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsError, match="bare cannot be loaded"):
        build_backbone(f"open_clip:{tmp_path / 'bare'}")
    texts = save_text_encoder(tmp_path / "bert", ["a"])
    with pytest.raises(WeightsError, match=r"hf:.*bert: the folder holds no preprocessor_config"):
        build_backbone(f"hf:{texts}")
    for module, extra in (("timm", "timm"), ("open_clip", "open-clip"), ("transformers",) * 2):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            prefix = "hf" if module == "transformers" else module
            with pytest.raises(MissingExtraError, match=rf"'saln\[{extra}\]'"):
                build_backbone(f"{prefix}:resnet18/x" if prefix != "timm" else "timm:resnet18")


def test_without_a_connection_the_error_says_what_to_do(requests, caplog):
    """And soon: nothing is tried again."""
    for name, folder in (
        ("hf:facebook/dinov2-none", "hf:FOLDER"),
        ("timm:resnet18", "timm:FOLDER"),
        ("open_clip:RN50/yfcc15m", "open_clip:FOLDER"),
    ):
        with pytest.raises(
            WeightsError, match=rf"^{name} .*not known.*; connect to the .* or give {folder}"
        ):
            build_backbone(name)
        assert 1 <= len(requests) <= 2, requests  # the client asks for more than it is asked
        requests.clear()
    assert not caplog.records


def test_a_library_that_logs_leaves_the_logging_of_the_process_as_it_was(folders, warm, tmp_path):
    """Without a handler of anybody's, in a process of its own."""
    (tmp_path / "script.py").write_text(
        "import logging, warnings; warnings.simplefilter('default', UserWarning); "
        "from saln.features import build_backbone; "
        f"build_backbone('open_clip:{folders['open_clip']}'); "
        "print(logging.getLogger().handlers, logging.root.manager.disable)"
    )
    done = warm.run([], tmp_path, script=tmp_path / "script.py")
    assert done.stdout == "[] 0\n"
    assert done.stderr == ""


@pytest.mark.parametrize("kind", ["dinov2", "open_clip", "timm"])
def test_nothing_is_asked_of_the_network_where_a_folder_is_there(kind, folders, requests):
    assert build_backbone(spec(folders, kind)).width > 0
    assert not requests


def test_a_copy_in_the_hubs_cache_is_taken_without_a_request(
    folders, tmp_path, monkeypatch, requests
):
    """As the hub's own client lays it out."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for model, folder in (
        ("some/dinov2", folders["dinov2"]),
        ("timm/resnet18.a1_in1k", save_timm(tmp_path / "timm", "resnet18.a1_in1k", classes=1000)),
    ):
        place = tmp_path / f"models--{model.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / "abc123")
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("abc123")
        name = "hf:some/dinov2" if model == "some/dinov2" else "timm:resnet18.a1_in1k"
        found = build_backbone(name)
        expected = build_backbone(f"{name.partition(':')[0]}:{folder}")
        for key, value in expected.body.state_dict().items():
            assert torch.equal(found.body.state_dict()[key], value)
        assert found.name == name
    assert not requests


def test_no_code_of_a_model_is_run(folders, tmp_path):
    """Neither code beside it, nor what a pickle would run; and safetensors come first."""
    written = tmp_path / "written"

    class Evil:
        def __reduce__(self):
            return (open, (str(written), "w"))

    folder = shutil.copytree(folders["dinov2"], tmp_path / "evil")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Evil()}))
    assert build_backbone(f"hf:{folder}").width == 16
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot be loaded from the folder"):
        build_backbone(f"hf:{folder}")
    state = build_backbone(f"hf:{folders['dinov2']}").body.model.state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    assert build_backbone(f"hf:{folder}").width == 16
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(written)!r}, 'w')\n")
    with pytest.raises(WeightsError, match="cannot be loaded from the folder"):
        build_backbone(f"hf:{folder}")
    assert not written.exists()


def test_lacking_weights_are_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders["dinov2"], tmp_path / "cut")
    state = load_file(folder / "model.safetensors")
    del state["embeddings.cls_token"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"cut lacks 1 of its weights, such as embeddings.cls"):
        build_backbone(f"hf:{folder}")


def test_processors_that_make_no_squares_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["vit"], tmp_path / "whole")
    file = folder / "preprocessor_config.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"size": {"shortest_edge": 32}}))
    with pytest.raises(InputError, match=r"whole makes \(3, 32, 48\) and \(3, 48, 32\) of two"):
        build_backbone(f"hf:{folder}")
    assert feature_size("hf:any", 32) is None
