from __future__ import annotations

import pytest
import torch
from torch import nn

from saln._torchvision import torchvision
from saln.errors import InputError, WeightsError
from saln.features.backbones import (
    _find_head,
    build_backbone,
    build_network,
    feature_size,
)
from saln.features.network_registry import (
    NETWORKS,
    BuiltNetwork,
    NetworkRequest,
    register_network,
)
from saln.randomness import derive_generator, seeded_globally
from saln.training.learner_networks import build_learner


def whole_network(name):
    """A network before its head is taken off."""
    kind, _ = NETWORKS.find(name)
    return kind.make(NetworkRequest(name, "", 64, False, "weights")).module


def test_pixels_are_the_flattened_input():
    network = build_backbone("pixels", image_size=8)
    images = torch.randn(2, 3, 8, 8, generator=derive_generator(0))
    assert network.width == 192
    assert torch.equal(network.body(images), images.flatten(1))


def test_every_torchvision_classifier_has_a_head_to_replace(monkeypatch):
    for drawing in ("normal_", "uniform_", "erfinv_", "__mul__"):  # slow without values
        monkeypatch.setattr(torch.Tensor, drawing, lambda tensor, *args, **options: tensor)
    names = torchvision.models.list_models(module=torchvision.models)
    # RegNets compute their widths with tensors, which the meta device has no values for.
    names = [name for name in names if not name.startswith("regnet")]
    assert len(names) > 50
    for name in names:
        with torch.device("meta"):
            module = whole_network(name)
        head = module.get_submodule(_find_head(module))
        outputs = head.out_features if isinstance(head, nn.Linear) else head.out_channels
        assert outputs == 1000, name


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "regnet_y_400mf", "googlenet"])
def test_features_are_the_input_of_the_head(name):
    """The features, put through the old head by hand, give the whole network's output."""
    with seeded_globally(0, "network"):
        whole = whole_network(name)
    whole.eval()
    head = whole.get_submodule(_find_head(whole))
    seen = []
    head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    images = torch.randn(2, 3, 64, 64, generator=derive_generator(1))
    with torch.inference_mode():
        whole(images)
        network = build_network(name, image_size=64, pretrained=False)
        network.body.eval()
        features = network.body(images)
    expected = seen[0]
    if expected.ndim == 4:  # SqueezeNet's head acts on a map; pooled, after a ReLU
        expected = expected.relu().mean(dim=(2, 3))
    assert features.shape == (2, network.width)
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_1", "pixels", "small-cnn", "small-resnet"]
)
def test_a_learner_has_one_output_a_class_and_is_seeded(name):
    learners = [
        build_learner(name, 7, image_size=64, pretrained=False, seed=seed)[0].eval()
        for seed in (0, 0, 1)
    ]
    images = torch.randn(2, 3, 64, 64, generator=derive_generator(1))
    with torch.inference_mode():
        outputs = [learner(images) for learner in learners]
    assert outputs[0].shape == (2, 7)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_weights_from_a_file_are_loaded_all_but_the_head(tmp_path):
    with seeded_globally("file"):
        donor = torchvision.models.resnet18(num_classes=5)
    torch.save(donor.state_dict(), tmp_path / "donor.pt")
    learner, _ = build_learner(
        "resnet18", 3, image_size=32, pretrained=True, weights=tmp_path / "donor.pt"
    )
    state = learner.state_dict()
    assert state["fc.weight"].shape == (3, 512)
    for key, value in donor.state_dict().items():
        if not key.startswith("fc."):
            assert torch.equal(state[key], value), key


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"nothing": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"does not fit the network: .* tensors are missing"):
        build_network("resnet18", image_size=32, pretrained=True, weights=path)
    with seeded_globally("other"):
        torch.save(torchvision.models.resnet50().state_dict(), path)
    with pytest.raises(InputError, match="does not fit the network"):
        build_network("resnet18", image_size=32, pretrained=True, weights=path)
    path.write_bytes(b"no state dict")
    with pytest.raises(InputError, match="cannot be read"):
        build_network("resnet18", image_size=32, pretrained=True, weights=path)
    with pytest.raises(InputError, match="does not exist"):
        build_network("resnet18", image_size=32, pretrained=True, weights=tmp_path / "none.pt")


def test_a_pickle_with_code_in_it_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    path = tmp_path / "evil.pt"
    torch.save({"x": Evil()}, path)
    with pytest.raises(InputError, match="cannot be read"):
        build_network("resnet18", image_size=32, pretrained=True, weights=path)
    assert not (tmp_path / "written").exists()


def test_without_a_connection_the_error_says_three_ways(monkeypatch):
    from urllib.error import URLError

    def unreachable(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nonexistent-hub-for-tests")
    monkeypatch.setattr("os.makedirs", lambda *args, **kwargs: None)
    with pytest.raises(WeightsError, match=r"with weights=FILE; or train .*pretrained=False"):
        build_network("resnet18", image_size=32, pretrained=True)
    with pytest.raises(WeightsError, match=r"backbone_weights=FILE; or .*'efficientnet-lite0'"):
        build_backbone("resnet18", image_size=32)


def test_an_image_size_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="vit_b_32 cannot take images of 96 pixels"):
        build_network("vit_b_32", image_size=96, pretrained=False)


def test_a_network_that_fails_without_a_word_is_refused_by_the_kind_of_error(monkeypatch):
    monkeypatch.setattr(NETWORKS, "_entries", dict(NETWORKS._entries))

    class Silent(nn.Module):
        def forward(self, images):
            raise RuntimeError

    register_network("silent", "raises an error without a text")(
        lambda request: BuiltNetwork(Silent(), head="")
    )
    with pytest.raises(InputError, match=r"silent cannot take images of 32 pixels \(RuntimeError"):
        build_network("silent", image_size=32, pretrained=False)


def test_names_are_checked():
    with pytest.raises(InputError, match="unknown network 'resnet19'"):
        build_network("resnet19", image_size=32, pretrained=False)
    with pytest.raises(InputError, match="small-cnn has no pretrained weights"):
        build_backbone("small-cnn", image_size=16)
    with pytest.raises(InputError, match="pixels has no weights"):
        build_network("pixels", image_size=8, pretrained=True, weights="x.pt")


def test_efficientnet_lite0_has_real_weights():
    """Trained weights separate two textures of the same mean color; random ones hardly do."""
    network = build_backbone("efficientnet-lite0", image_size=96)
    assert network.width == 1280
    assert network.normalization.mean == (127 / 255,) * 3
    images = torch.randn(4, 3, 96, 96, generator=derive_generator("texture"))
    images[2:] = torch.nn.functional.interpolate(images[2:, :, ::8, ::8], scale_factor=8)
    with torch.inference_mode():
        features = torch.nn.functional.normalize(network.body(images), dim=1)
    assert (features >= 0).all()
    similarity = features @ features.T
    assert similarity[0, 1] > similarity[0, 2] + 0.1
    assert not any(parameter.requires_grad for parameter in network.body.parameters())


def test_identity_follows_the_weights():
    first = build_network("small-cnn", image_size=16, pretrained=False)
    same = first.identity()
    assert first.identity() == same
    with torch.no_grad():
        next(first.body.parameters())[0, 0, 0, 0] += 1e-3
    assert first.identity() != same


def test_feature_size():
    assert feature_size("efficientnet-lite0", 32) == 96
    assert feature_size("resnet50", 224) == 224
    assert feature_size("pixels", 32) == 32


def test_a_network_of_somebody_elses_is_one_function(monkeypatch, tmp_path):
    monkeypatch.setattr(NETWORKS, "_entries", dict(NETWORKS._entries))
    requests = []

    @register_network("means:", "means of blocks of pixels", argument="BLOCKS", needs="nothing")
    def means(request):
        requests.append(request)
        blocks = int(request.argument)
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(blocks), nn.Flatten())
        return BuiltNetwork(pool, head="", width=3 * blocks**2)

    network = build_backbone("means:2", image_size=96)
    images = torch.randn(2, 3, 96, 96, generator=derive_generator(0))
    expected = images.reshape(2, 3, 2, 48, 2, 48).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(network.body(images), expected)
    assert (network.name, network.width) == ("means:2", 12)
    assert requests == [NetworkRequest("means:2", "2", 96, True, "backbone_weights")]
    learner, _ = build_learner("means:2", 5, image_size=96, pretrained=False)
    assert learner(images).shape == (2, 5)
    assert feature_size("means:2", 32) == 96
    assert NETWORKS.help()["means:BLOCKS"] == "means of blocks of pixels (nothing)"
    with pytest.raises(InputError, match=r"the prefix 'mean:' .*\(registered: .*, means:BLOCKS\)"):
        build_network("mean:2", image_size=96, pretrained=False)


def test_a_prefix_that_is_not_registered_says_which_are():
    with pytest.raises(
        InputError,
        match=r"unknown network 'time:vit'; choose one of pixels, small-cnn, small-resnet, "
        r"efficientnet-lite0, efficientnet-lite2, auto, timm:NAME, open_clip:MODEL/TAG, hf:MODEL "
        r"or a classifier of torchvision .*; the prefix 'time:' is not registered "
        r".registered: timm:NAME, open_clip:MODEL/TAG, hf:MODEL",
    ):
        build_network("time:vit", image_size=32, pretrained=False)
