"""Metrics on learned weights against their authors' packages, with random weights in the real layouts and on photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lpips
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from harness import photo
from spoiled_photos import blurred, noisy
from torch import Tensor, nn
from torchvision.models import alexnet, vgg16

from pipeline.errors import CheckpointError
from pipeline.metrics import METRICS, Metric
from pipeline.metrics.choice import find_metric
from pipeline.metrics.tensors import to_tensor
from pipeline.pretrained.efficientnet import VARIANTS, read_package
from shards.errors import InputError


def random_backbone(build: Callable[[], nn.Module], path: Path) -> dict[str, Tensor]:
    """Write weights in torchvision's layout, scaled so that activations neither die nor explode."""
    state = {name: tensor for name, tensor in build().state_dict().items() if name.startswith("features.")}
    torch.manual_seed(11)
    for name, tensor in state.items():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(tensor, nonlinearity="relu")
    # torchvision's files hold the classifier too; the metrics do not read it.
    torch.save({**state, "classifier.1.weight": torch.zeros(3)}, path)
    return {name.removeprefix("features."): tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def alex(folder: Path) -> dict[str, Tensor]:
    return random_backbone(alexnet, folder / "alex.pth")


@pytest.fixture(scope="module")
def vgg(folder: Path) -> dict[str, Tensor]:
    return random_backbone(vgg16, folder / "vgg.pth")


@pytest.fixture(scope="module")
def learned(folder: Path, alex: dict[str, Tensor], vgg: dict[str, Tensor]) -> dict[str, Metric]:
    files = {"lpips": "alex.pth", "lpips-vgg": "vgg.pth", "dists": "vgg.pth"}
    found = {name: find_metric(f"{name}:{folder / file}") for name, file in files.items()}
    assert all(metric.missing() is None for metric in found.values())
    return {**found, "features-efficientnet": METRICS["features-efficientnet"]}


@pytest.fixture(scope="module")
def gt() -> np.ndarray:
    return photo(3, 96, 120)


@pytest.mark.parametrize(("name", "net"), [("lpips", "alex"), ("lpips-vgg", "vgg")])
def test_lpips_equals_its_authors_package(
    name: str, net: str, learned: dict[str, Metric], gt: np.ndarray, request: pytest.FixtureRequest
) -> None:
    theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    state = request.getfixturevalue(net)
    for key, tensor in theirs.net.state_dict().items():
        tensor.copy_(state[key.partition(".")[2]])
    for sr in (noisy(gt, 8), blurred(gt, 1.0)):
        with torch.inference_mode():
            expected = float(theirs(to_tensor(sr).cpu(), to_tensor(gt).cpu(), normalize=True))
        assert expected > 1e-4
        assert learned[name](sr, gt, 4) == pytest.approx(expected, abs=1e-5, rel=1e-5)


def dists_by_definition(sr: Tensor, gt: Tensor, state: dict[str, Tensor]) -> float:
    """Equations 5 to 7 of the paper, with the published weights per channel."""
    from torchmetrics.functional.image import dists

    published = torch.load(dists._PATH_WEIGHT_DISTS, weights_only=True)
    alpha, beta = (published[key].double() for key in ("alpha", "beta"))
    window = torch.tensor([0.5, 1.0, 0.5]).outer(torch.tensor([0.5, 1.0, 0.5])).double() / 4

    def stages(image: Tensor) -> list[Tensor]:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        maps, current = [image], (image - mean) / std
        for layer in range(30):
            if layer in (4, 9, 16, 23):
                kernel = window.expand(current.shape[1], 1, 3, 3)
                current = F.conv2d(current**2, kernel, stride=2, padding=1, groups=current.shape[1]).add(1e-12).sqrt()
            elif f"{layer}.weight" in state:
                weight, bias = state[f"{layer}.weight"].double(), state[f"{layer}.bias"].double()
                current = F.conv2d(current, weight, bias, padding=1)
            else:
                current = current.relu()
            if layer in (3, 8, 15, 22, 29):
                maps.append(current)
        return maps

    texture, structure = [], []
    for x, y in zip(stages(sr), stages(gt), strict=True):
        mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
        covariance = (x * y).mean((2, 3)) - mean_x * mean_y
        variances = x.var((2, 3), correction=0) + y.var((2, 3), correction=0)
        texture.append((2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6))
        structure.append((2 * covariance + 1e-6) / (variances + 1e-6))
    weighted = alpha.flatten() @ torch.cat(texture, 1)[0] + beta.flatten() @ torch.cat(structure, 1)[0]
    return float(1 - weighted / (alpha.sum() + beta.sum()))


def test_dists_equals_its_definition_in_double(
    learned: dict[str, Metric], gt: np.ndarray, vgg: dict[str, Tensor]
) -> None:
    for sr in (noisy(gt, 8), blurred(gt, 1.0)):
        expected = dists_by_definition(to_tensor(sr).cpu().double(), to_tensor(gt).cpu().double(), vgg)
        assert expected > 1e-3
        assert learned["dists"](sr, gt, 4) == pytest.approx(expected, abs=1e-5)


def test_dists_equals_the_librarys_own_value(
    folder: Path, learned: dict[str, Metric], gt: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.functional.image import dists

    network = vgg16()
    network.load_state_dict(torch.load(folder / "vgg.pth", weights_only=True), strict=False)
    monkeypatch.setattr(dists, "vgg16", lambda **_: network)
    sr = noisy(gt, 8)
    expected = float(dists.deep_image_structure_and_texture_similarity(to_tensor(sr).cpu(), to_tensor(gt).cpu()))
    assert learned["dists"](sr, gt, 4) == pytest.approx(expected, abs=1e-5)


def test_features_efficientnet_equal_those_of_timm_with_the_real_weights(gt: np.ndarray) -> None:
    network = timm.create_model("tf_efficientnet_lite2").eval()
    published = list(read_package(VARIANTS["efficientnet-lite2"]).values())
    network.load_state_dict(dict(zip(network.state_dict(), published, strict=True)))
    sr = blurred(gt, 1.0)

    def layers(image: np.ndarray) -> list[Tensor]:
        normalised = (torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() - 127) / 128
        maps = network.forward_intermediates(normalised, indices=[0, 1, 2, 3], intermediates_only=True)
        return [layer / layer.norm(dim=1, keepdim=True) for layer in maps]

    with torch.inference_mode():
        pairs = zip(layers(sr), layers(gt), strict=True)
        expected = np.mean([float(((ours - theirs) ** 2).sum(1).mean()) for ours, theirs in pairs])
    assert METRICS["features-efficientnet"](sr, gt, 4) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["lpips", "lpips-vgg", "dists", "features-efficientnet"])
def test_learned_metric_is_zero_on_equal_images_symmetric_and_grows(
    name: str, learned: dict[str, Metric], gt: np.ndarray
) -> None:
    metric = learned[name]
    assert metric(gt, gt, 4) == pytest.approx(0, abs=1e-6)
    sr = noisy(blurred(gt, 1.0), 6)
    assert metric(sr, gt, 4) == pytest.approx(metric(gt, sr, 4), rel=1e-5)
    for spoil, strengths in ((blurred, (0.5, 1.0, 2.0)), (noisy, (4, 12, 36))):
        values = [metric(spoil(gt, strength), gt, 4) for strength in strengths]
        assert 0 < values[0] < values[1] < values[2]


def test_learned_metric_leaves_the_global_generator_alone(learned: dict[str, Metric], gt: np.ndarray) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for metric in learned.values():
        metric.measure(gt, gt, 4)
    assert torch.equal(torch.rand(3), expected)


def test_protocol_names_weights_that_are_not_the_published_ones(learned: dict[str, Metric]) -> None:
    assert "which are not torchvision's" in learned["lpips"].protocol
    assert METRICS["lpips"].protocol.endswith("alexnet of torchvision")


def test_weights_of_another_network_or_none_are_refused(folder: Path, vgg: dict[str, Tensor], gt: np.ndarray) -> None:
    with pytest.raises(CheckpointError, match=r"vgg\.pth is not alexnet of torchvision"):
        find_metric(f"lpips:{folder / 'vgg.pth'}")(gt, gt, 4)
    with pytest.raises(InputError, match=r"no such file: .*none\.pth; give the path of alexnet-owt"):
        find_metric(f"lpips:{folder / 'none.pth'}")


def test_metric_without_its_weights_says_which_file_from_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    missing = METRICS["lpips"].missing()
    assert missing is not None
    assert missing.startswith("alexnet-owt-7be5be79.pth from https://download.pytorch.org/models/alexnet-owt-7be5be79")
    cached = tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"
    cached.parent.mkdir()
    cached.write_bytes(b"half a download")
    assert METRICS["lpips"].missing() is None
    with pytest.raises(CheckpointError, match="damaged: its SHA-256 does not begin with 7be5be79"):
        METRICS["lpips"](photo(3, 48, 48), photo(3, 48, 48), 4)
