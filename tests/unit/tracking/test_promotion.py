"""Promotion against a real SQLite registry: who becomes champion, who is refused, and what the version says."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from mlflow import MlflowClient
from PIL import Image
from processes import run_at_once
from torch import nn

from pipeline.data.evaluation import EvaluationPair
from pipeline.inference.evaluate import evaluate_image
from pipeline.inference.named_model import open_model
from pipeline.inference.promotion import Rule, decide, measure, parse_rule, promote
from pipeline.losses import ADVERSARIAL_LOSSES, GeneratorLosses, ImageTerm, L1Loss
from pipeline.metrics import METRICS
from pipeline.metrics.comparison import compare
from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.generators import SRVGGNetCompact, save_generator
from pipeline.runtime.trainable import DdpTrainable
from pipeline.tracking import registry
from pipeline.train.gan_step import Adversary, Gan, Turn, gan_step
from pipeline.train.micro_batches import StepInput
from shards.degradation.bicubic import downscale
from shards.errors import InputError

NAME = "sr"
SPECTRUM = parse_rule("spectrum", "psnr_y=-0.5")
BY_PSNR = parse_rule("psnr_y", "psnr_y=0")
NUM_PROCESSES = 8


def crops(photo: np.ndarray, side_px: int, stride_px: int) -> list[np.ndarray]:
    height_px, width_px = photo.shape[:2]
    corners = [
        (top, left)
        for top in range(0, height_px - side_px + 1, stride_px)
        for left in range(0, width_px - side_px + 1, stride_px)
    ]
    return [np.ascontiguousarray(photo[top : top + side_px, left : left + side_px]) for top, left in corners]


def to_batch(images: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def fit(generator: nn.Module, discriminator: nn.Module | None, num_steps: int, learning_rate: float) -> None:
    """Train on crops of the demo's training photos, as `gan_step` does it."""
    photos = (skimage.data.astronaut(), skimage.data.coffee())
    images = [crop for photo in photos for crop in crops(photo, 64, 48) if crop.std() > 25]
    hr, lq = to_batch(images), to_batch([downscale(crop, 4) for crop in images])
    networks = [
        DdpTrainable(net, net, torch.optim.Adam(net.parameters(), lr=1.0, betas=(0.9, 0.99), fused=True), 0.0)
        for net in (generator, *((discriminator,) if discriminator is not None else ()))
    ]
    losses = GeneratorLosses(
        (ImageTerm("pixel", 1.0, L1Loss(), in_pixel_stage=True),), ADVERSARIAL_LOSSES["vanilla"], 0.06
    )
    gan = Gan(networks[0], tuple(map(Adversary, networks[1:])), losses, generator, contextlib.nullcontext)
    turn, random = Turn(learning_rate, learning_rate if len(networks) > 1 else None), np.random.default_rng(1)
    for _ in range(num_steps):
        rows = random.integers(len(hr), size=6)
        gan_step(gan, StepInput(lq[rows], hr[rows], hr[rows], None), turn)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A generator trained on pixels; the same one trained further with a discriminator; and further on pixels."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    pixel = SRVGGNetCompact(16, 2, 4)
    discriminator = PatchDiscriminator(16)
    fit(pixel, None, 500, 1e-3)
    gan = copy.deepcopy(pixel)
    pairs = [EvaluationPair("", downscale(crop, 4), crop) for crop in crops(skimage.data.chelsea(), 96, 96)[:12]]

    def quality(network: nn.Module) -> dict[str, list[float]]:
        found = [evaluate_image([network.eval()], pair, 4, SPECTRUM.metrics)[0].metrics for pair in pairs]
        return {name: [values[name] for values in found] for name in found[0]}

    start = quality(pixel)
    for _ in range(12):  # as a run with keep_best would stop
        fit(gan, discriminator, 25, 1.5e-4)
        now = quality(gan)
        is_better = compare(METRICS["spectrum"], now["spectrum"], start["spectrum"]).is_better
        if is_better and np.mean(now["psnr_y"]) < np.mean(start["psnr_y"]) - 0.03:
            break
    longer = copy.deepcopy(pixel)
    fit(longer, None, 150, 5e-4)
    networks = {"pixel": pixel, "gan": gan, "longer": longer}
    for name, network in networks.items():
        save_generator(folder / f"{name}.safetensors", network.eval())
    return {name: str(folder / f"{name}.safetensors") for name in networks}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve crops of the demo's held-out photo as an evaluation set."""
    folder = tmp_path_factory.mktemp("sets") / "chelsea"
    (folder / "HR").mkdir(parents=True)
    for number, crop in enumerate(crops(skimage.data.chelsea(), 96, 96)[:12]):
        Image.fromarray(crop).save(folder / "HR" / f"{number:02d}.png")
    return folder


def aliases(store: str) -> dict[str, str]:
    """The aliases that a comparison decides."""
    return {name: version for name, version in all_aliases(store).items() if not name.startswith(registry.BEST)}


def all_aliases(store: str) -> dict[str, str]:
    return {name: str(version) for name, version in MlflowClient(store).get_registered_model(NAME).aliases.items()}


def num_versions(store: str) -> int:
    return len(MlflowClient(store).search_model_versions(f"name='{NAME}'"))


def scaled(generator: str, factor: float, path: Path, scale: int = 4) -> str:
    """The generator with its last layer scaled: 0 repeats pixels."""
    network = SRVGGNetCompact(16, 2, scale) if scale != 4 else open_model(generator).generator
    with torch.no_grad():
        last = list(network.parameters())[-2:]
        for parameter in last:
            parameter.mul_(factor)
    save_generator(path, network.eval())
    return str(path)


def test_champion_is_the_model_that_looks_better_not_the_one_of_higher_psnr(
    store: str, models: dict[str, str], photos: Path
) -> None:
    assert "is champion, the first of its name" in promote(models["pixel"], NAME, [photos], SPECTRUM)
    assert "is champion: it is proven better than version 1" in promote(models["gan"], NAME, [photos], SPECTRUM)
    text = promote(models["longer"], NAME, [photos], SPECTRUM)
    assert "is challenger, and version 2 stays champion: the new one is worse" in text
    assert aliases(store) == {"champion": "2", "challenger": "3"}
    psnr = {
        str(version.version): float(version.tags["psnr_y"])
        for version in MlflowClient(store).search_model_versions(f"name='{NAME}'")
    }
    assert psnr["2"] < psnr["1"] < psnr["3"]
    best = {"best-spectrum": "2", "best-psnr_y": "3", "best-ssim_y": "3"}
    assert all_aliases(store) == {"champion": "2", "challenger": "3"} | best
    assert text.endswith("best version by psnr_y, ssim_y")
    card = MlflowClient(store).get_model_version(NAME, "3").description
    assert "Version 3 is challenger, and version 2 stays champion: the new one is worse" in card


def test_models_that_cannot_be_compared_are_refused_and_nothing_is_registered(
    store: str, models: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    repeats = scaled(models["pixel"], 0.0, tmp_path / "repeats.safetensors")
    with pytest.raises(InputError, match=r"below bicubic upscaling: PSNR-Y .* dB, bicubic .* nothing was registered"):
        promote(repeats, NAME, [photos], SPECTRUM)
    assert MlflowClient(store).search_registered_models() == []
    promote(models["pixel"], NAME, [photos], SPECTRUM)
    twice = scaled(models["pixel"], 0.0, tmp_path / "twice.safetensors", scale=2)
    for force in (False, True):
        with pytest.raises(InputError, match="sr holds models for x4, and this one is for x2"):
            promote(twice, NAME, [photos], SPECTRUM, force=force)
    other = tmp_path / "other"
    other.symlink_to(photos)
    with pytest.raises(InputError, match=r"version 1, was measured on chelsea, and --sets names other; .*--force"):
        promote(models["gan"], NAME, [other], SPECTRUM)
    with pytest.raises(InputError, match="names no evaluation set"):
        promote(models["gan"], NAME, [], SPECTRUM)
    MlflowClient(store).set_model_version_tag(NAME, "1", "set_names", '{"chelsea": 1}')
    with pytest.raises(InputError, match=r"(?s)tag set_names of the champion, version 1, is no list .*--force"):
        promote(models["gan"], NAME, [photos], SPECTRUM)
    assert num_versions(store) == 1
    assert promote(repeats, NAME, [other], SPECTRUM, force=True).startswith("sr version 2 is champion by --force")
    assert aliases(store) == {"champion": "2"}
    assert all_aliases(store)["best-psnr_y"] == "1"
    assert MlflowClient(store).get_model_version(NAME, "2").tags["verdict"] == "forced"


def test_ties_and_tiny_sets_win_nothing_and_say_so(
    store: str, models: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    promote(models["pixel"], NAME, [photos], SPECTRUM)
    same = scaled(models["pixel"], 1 + 1e-6, tmp_path / "same.safetensors")
    assert "version 1 stays champion: the new one ties with it" in promote(same, NAME, [photos], SPECTRUM)
    tiny = tmp_path / "chelsea"
    (tiny / "HR").mkdir(parents=True)
    for name in ("00.png", "05.png"):
        (tiny / "HR" / name).symlink_to(photos / "HR" / name)
    text = promote(models["gan"], NAME, [tiny], SPECTRUM)
    assert "stays champion: the new one is not proven better" in text
    assert "over 2 images, too few to prove anything: give at least 5" in text
    assert aliases(store) == {"champion": "1", "challenger": "3"}


def test_version_that_cannot_be_completed_is_deleted(
    store: str, models: dict[str, str], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(models["pixel"], NAME, [photos], SPECTRUM)

    def fail(*_: object) -> None:
        raise OSError("the store is full")

    monkeypatch.setattr(registry, "check_stored", fail)
    with pytest.raises(InputError, match="the store is full"):
        promote(models["gan"], NAME, [photos], SPECTRUM)
    assert num_versions(store) == 1
    assert aliases(store) == {"champion": "1"}


def results(**values: list[float]) -> dict[str, list[float]]:
    return dict(values)


@pytest.mark.parametrize(
    ("spectrum", "psnr", "wins", "words"),
    [
        ([1.0] * 6, [29.6] * 6, True, "is proven better"),
        ([1.0] * 6, [29.4] * 6, False, "is better, but below the floor psnr_y=-0.5"),
        ([3.0] * 6, [35.0] * 6, False, "is worse"),
        ([math.nan, *[1.0] * 5], [31.0] * 6, False, "is not proven better"),
        ([1.0] * 6, [math.nan, *[31.0] * 5], False, "below the floor"),
        ([1.0] * 6, [math.inf] * 6, True, "is proven better"),
        ([math.nan] * 6, [31.0] * 6, False, "is worse"),
    ],
)
def test_decision_has_a_rule_for_every_value(spectrum: list[float], psnr: list[float], wins: bool, words: str) -> None:
    theirs = results(spectrum=[2.0] * 6, psnr_y=[30.0] * 6)
    decision = decide(SPECTRUM, results(spectrum=spectrum, psnr_y=psnr), theirs, "1")
    assert decision.wins is wins
    assert words in decision.text


@pytest.mark.parametrize(
    ("metric", "floor", "message"),
    [
        ("lpip", "psnr_y=-0.5", "no metric is named 'lpip'"),
        ("", "psnr_y", "'psnr_y' is not NAME=LARGEST_LOSS"),
        ("", "psnr_y=0.5", "is not NAME=LARGEST_LOSS"),
        ("", "psnr_y=nan", "is not NAME=LARGEST_LOSS"),
        ("", "gmsd=-0.1", "where lower is better a loss is above 0"),
    ],
)
def test_rule_that_cannot_decide_is_refused(metric: str, floor: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_rule(metric, floor)


def test_default_rule_is_perceptual() -> None:
    rule = parse_rule("", "psnr_y=-0.5")
    assert isinstance(rule, Rule)
    assert rule.metric.kind == "perceptual"
    assert METRICS["psnr_y"] == rule.floor


def challenge(source: str, photos: str) -> None:
    promote(source, NAME, [Path(photos)], BY_PSNR)


@pytest.mark.slow
def test_concurrent_promotions_leave_one_champion_the_best(
    store: str, models: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    sources = [
        scaled(models["pixel"], 0.86 + 0.02 * rank, tmp_path / f"{rank}.safetensors") for rank in range(NUM_PROCESSES)
    ]
    psnr = [np.mean(measure(open_model(one), [photos], "", BY_PSNR.metrics)["psnr_y"]) for one in sources]
    best = int(np.argmax(psnr))
    order = [3, 7, 0, 5, 1, 6, 2, 4]
    run_at_once(challenge, [(sources[rank], str(photos)) for rank in order], ["test_promotion", "mlflow.pyfunc"])
    champion = registry.champion(NAME)
    assert champion is not None
    assert champion.tags["source"] == sources[best]
    assert num_versions(store) == NUM_PROCESSES
    verdicts = [version.tags["verdict"] for version in MlflowClient(store).search_model_versions(f"name='{NAME}'")]
    assert verdicts.count("first") == 1
    assert set(verdicts) <= {"first", "champion", "challenger"}
