"""CutBlur, MixUp and CutMix: the same for any number of ranks, after any resume; what they do; what is refused."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import changed, write_shards
from run_steps import assert_same_steps, step_inputs, steps_of
from sessions import assert_same_end, run_session

import pipeline.run.record
from pipeline.config.data import AugmentationConfig
from pipeline.config.schema import Preset
from pipeline.data.augmentation import DrawnAugmentation, draw_augmentation, stack_augmentations
from pipeline.data.datasets import open_datasets
from pipeline.data.samples import RankBatches, TrainingSamples, batches
from pipeline.degrade import Augmentation, TrainingImages, augment
from pipeline.errors import ConfigError
from pipeline.models.semantics.extractor import SemanticExtractor
from pipeline.run import checks
from pipeline.run.checks import check_settings, check_shards
from pipeline.run.dry_run import describe
from pipeline.run.inputs import SemanticSource
from pipeline.tracking import Trackers
from shards.degradation.bicubic import downscale
from shards.degradation.draws import position_seed, variant_seed

ALL = AugmentationConfig(cutblur_probability=0.3, mixup_probability=0.3, cutmix_probability=0.3)
BATCH, STEPS = 8, 3


@pytest.fixture(scope="module")
def realworld(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Preset:
    """A preset whose shards are of the real-world task, with every kind of augmentation."""
    output = tmp_path_factory.mktemp("realworld") / "shards"
    write_shards(dataclasses.replace(preset.shards, degradation="realworld", output=output))
    data = dataclasses.replace(
        preset.train.data, shards=output, crop_px=32, canvas_px=48, batch_size=BATCH, augmentation=ALL
    )
    report = dataclasses.replace(
        preset.train.report, every_images=8, validate_every_images=24, checkpoint_every_images=8, validation_sets=()
    )
    return changed(preset, data=data, report=report)


@pytest.mark.parametrize("world_size", [2, 4])
def test_mixed_samples_are_the_same_for_any_number_of_ranks(realworld: Preset, world_size: int) -> None:
    data, seed = realworld.train.data, realworld.train.seed
    expected = steps_of(data, seed, range(STEPS), 1)
    assert_same_steps(steps_of(data, seed, range(STEPS), world_size), expected)
    assert_same_steps(steps_of(data, seed, range(2, STEPS), world_size), expected[2:])
    unmixed = steps_of(dataclasses.replace(data, augmentation=AugmentationConfig()), seed, range(STEPS), 1)
    changes = [
        not torch.equal(a, b)
        for step, other in zip(expected, unmixed, strict=True)
        for a, b in zip(step.lq, other.lq, strict=True)
    ]
    assert 0.7 < np.mean(changes) <= 1


def test_draws_follow_run_seed_and_position_and_their_probabilities() -> None:
    drawn = [draw_augmentation(ALL, 1, position, 12) for position in range(2000)]
    assert drawn == [draw_augmentation(ALL, 1, position, 12) for position in range(2000)]
    assert drawn[:50] != [draw_augmentation(ALL, 2, position, 12) for position in range(50)]
    shares = Counter(one.kind for one in drawn)
    assert [shares[kind] / 2000 for kind in Augmentation] == pytest.approx([0.1, 0.3, 0.3, 0.3], abs=0.04)
    for one in drawn:
        top, bottom, left, right = one.box_px
        if one.kind in (Augmentation.CUTBLUR, Augmentation.CUTMIX):
            assert 0 <= top < bottom <= 12
            assert 0 <= left < right <= 12
    weights = [one.weight for one in drawn if one.kind is Augmentation.MIXUP]
    assert 0.4 < np.mean(weights) < 0.6
    assert {one.is_outside for one in drawn if one.kind is Augmentation.CUTBLUR} == {True, False}
    assert position_seed(1, 2) != variant_seed(1, "2", 0)
    # Pinned: a resumed run must draw what it drew.
    assert drawn[1:3] == [
        DrawnAugmentation(Augmentation.CUTBLUR, box_px=(3, 11, 7, 10), is_outside=True),
        DrawnAugmentation(Augmentation.MIXUP, weight=0.14357481255378768),
    ]


def images_of(scale: int, num: int = 4) -> TrainingImages:
    generator = torch.Generator().manual_seed(0)
    gt = torch.randint(0, 256, (num, 3, 8 * scale, 8 * scale), generator=generator) / 255
    lq = torch.randint(0, 256, (num, 3, 8, 8), generator=generator) / 255
    return TrainingImages(lq, gt, gt)


def mixed(images: TrainingImages, *drawn: DrawnAugmentation) -> TrainingImages:
    batch = stack_augmentations(drawn)
    assert batch is not None
    return augment(images, batch)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_each_kind_changes_what_it_should(scale: int) -> None:
    images = images_of(scale)
    lq, gt, target = mixed(
        images,
        DrawnAugmentation(Augmentation.CUTBLUR, box_px=(1, 4, 2, 7), is_outside=True),
        DrawnAugmentation(Augmentation.MIXUP, weight=0.25),
        DrawnAugmentation(Augmentation.CUTMIX, box_px=(0, 3, 5, 8)),
        DrawnAugmentation(),
    )
    assert target is gt
    # CutBlur: LQ is shrunk HR around the box; HR stays.
    pixels = (images.gt[0] * 255).round().byte().permute(1, 2, 0).numpy()
    clean = torch.from_numpy(downscale(pixels, scale)).permute(2, 0, 1) / 255
    clean[:, 1:4, 2:7] = images.lq[0, :, 1:4, 2:7]
    assert torch.equal(lq[0], clean)
    assert torch.equal(gt[0], images.gt[0])
    # MixUp, with the partner as it was before CutBlur.
    for ours, before in ((lq, images.lq), (gt, images.gt)):
        assert torch.allclose(ours[1], 0.25 * before[1] + 0.75 * before[0], atol=1e-6)
    # CutMix: the same place in both sizes.
    for ours, before, factor in ((lq, images.lq, 1), (gt, images.gt, scale)):
        expected = before[2].clone()
        expected[:, : 3 * factor, 5 * factor : 8 * factor] = before[3, :, : 3 * factor, 5 * factor : 8 * factor]
        assert torch.equal(ours[2], expected)
        assert torch.equal(ours[3], before[3])


def test_sharpened_target_is_mixed_as_hr_is() -> None:
    images = images_of(4)._replace(target=images_of(4).gt.flip(1))
    drawn = [
        DrawnAugmentation(Augmentation.CUTMIX, box_px=(0, 4, 0, 4)),
        DrawnAugmentation(Augmentation.MIXUP, weight=0.5),
        *[DrawnAugmentation()] * 2,
    ]
    _, gt, target = mixed(images, *drawn)
    assert torch.equal(target, gt.flip(1))


class Mean(SemanticExtractor):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(dim=(1, 2, 3))


def test_shuffled_semantics_are_those_of_the_neighbour(realworld: Preset) -> None:
    samples = TrainingSamples(realworld.train.data, realworld.train.seed)
    (batch,) = batches(samples, RankBatches(0, 1, BATCH, 0, 1), 0, pin_memory=False)
    own, shuffled = (
        step_inputs(SemanticSource(Mean(), 1, "0" * 64, "mean", is_shuffled))(batch, is_adversarial=True)
        for is_shuffled in (False, True)
    )
    assert torch.equal(own.gt, shuffled.gt)
    for first in range(0, BATCH, 2):
        assert torch.equal(shuffled.semantics[first : first + 2], own.semantics[first : first + 2].flip(0))
    assert len(own.semantics.unique()) == BATCH


def test_semantics_are_those_of_mixed_hr(realworld: Preset) -> None:
    samples = TrainingSamples(realworld.train.data, realworld.train.seed)
    (batch,) = batches(samples, RankBatches(0, 1, BATCH, 0, 1), 0, pin_memory=False)
    step = step_inputs(SemanticSource(Mean(), 1, "0" * 64, "mean"))(batch, is_adversarial=True)
    assert torch.equal(step.semantics, step.gt.mean(dim=(1, 2, 3)))
    kinds = {key.partition("+")[2] for key in batch.keys}
    assert kinds - {""} == {kind.name.lower() for kind in batch.augmentation.kinds}
    assert kinds & {"mixup", "cutmix"}


def test_run_with_augmentation_resumed_ends_with_the_same_bits(
    realworld: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    run_session(realworld, tmp_path / "straight")
    run_session(realworld, tmp_path / "resumed", stop_at=8)
    outcome, positions = run_session(realworld, tmp_path / "resumed")
    assert (outcome.is_finished, positions[0]) == (True, 8)
    assert_same_end(tmp_path / "resumed", tmp_path / "straight")


def with_augmentation(preset: Preset, **values: float) -> Preset:
    return changed(preset, data=dataclasses.replace(preset.train.data, augmentation=AugmentationConfig(**values)))


def test_cutblur_of_classical_shards_is_refused(preset: Preset) -> None:
    train = with_augmentation(preset, cutblur_probability=0.5).train
    with pytest.raises(ConfigError, match=r"LQ of the classical shards in .* is just that; set it to 0"):
        check_shards(train, open_datasets(train.data))


def test_partners_on_two_ranks_are_refused(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    train = with_augmentation(preset, mixup_probability=0.5).train
    check_settings(train)
    monkeypatch.setattr(checks, "launched_world_size", lambda: 4)
    with pytest.raises(ConfigError, match=r"data\.batch_size=4 over 4 process\(es\) is 1; change one of them"):
        check_settings(train)
    check_settings(with_augmentation(preset, cutblur_probability=0.5).train)
    shuffled = changed(preset, semantics=dataclasses.replace(preset.train.semantics, shuffled=True)).train
    with pytest.raises(
        ConfigError, match=r"shuffled exchanges .* change one of them, or set semantics\.shuffled=false"
    ):
        check_settings(shuffled)


def test_cached_semantics_of_mixed_hr_are_refused(preset: Preset) -> None:
    cached = changed(preset, semantics=dataclasses.replace(preset.train.semantics, source="cached"))
    with_augmentation(cached, cutblur_probability=1.0)
    for kind in ("mixup", "cutmix"):
        with pytest.raises(ConfigError, match="cached semantics are those of HR as it is; set it to"):
            with_augmentation(cached, **{f"{kind}_probability": 0.1})


def test_probabilities_out_of_range_are_refused() -> None:
    for values, text in (
        ({"mixup_probability": -0.1}, "must be 0 or above"),
        ({"mixup_probability": 0.7, "cutmix_probability": 0.6}, "= 1.3 must be at most 1"),
    ):
        with pytest.raises(ConfigError, match=text):
            AugmentationConfig(**values)


def test_dry_run_names_the_augmentation(preset: Preset) -> None:
    text = describe(with_augmentation(preset, mixup_probability=0.25))
    assert "augmentation     none 0.75, MixUp 0.25 of the samples" in text
    assert "data.augmentation.mixup_probability=0.25 (the paper: 0)" in text
    assert "augmentation  " not in describe(preset)


def test_probabilities_of_whole_percents_may_add_up_to_all_samples() -> None:
    whole = AugmentationConfig(cutblur_probability=0.33, mixup_probability=0.56, cutmix_probability=0.11)
    assert whole.probabilities[0] == 0
