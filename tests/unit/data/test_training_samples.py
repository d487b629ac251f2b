"""Which samples a run reads, in what order, and that LQ and truth of each show the same place."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import write_pairs, write_shards
from PIL import Image

from pipeline.config.schema import Preset
from pipeline.data.batch import Batch
from pipeline.data.feature_modes.mode import draw_sample_crop
from pipeline.data.samples import RankBatches, TrainingSamples, batches
from pipeline.degrade import degrade
from pipeline.run.inputs import StepInputs
from shards.degradation import bicubic
from shards.errors import InputError
from shards.format.manifest import Manifest, write_manifest
from shards.format.records import SampleRecord
from shards.format.settings import FeatureSettings
from shards.format.tars import publish_shard
from shards.read.order import SampleOrder
from shards.read.reader import ShardSet

BATCH = 24
WORLD_SIZES = [1, 2, 3, 4, 6, 8]


def samples_of(
    preset: Preset, features: Path | None = None, seed: int | None = None, **changes: object
) -> TrainingSamples:
    data = dataclasses.replace(preset.train.data, **changes)
    return TrainingSamples(data, preset.train.seed if seed is None else seed, features)


@pytest.fixture(scope="module")
def samples(preset: Preset) -> TrainingSamples:
    return samples_of(preset)


def steps_of(world_size: int, first_image: int, num_steps: int) -> list[list[int]]:
    """The positions of each step, the ranks' shares one after the other."""
    ranks = [list(RankBatches(first_image, num_steps, BATCH, rank, world_size)) for rank in range(world_size)]
    return [list(itertools.chain(*shares)) for shares in zip(*ranks, strict=True)]


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_ranks_when_together_take_each_position_exactly_once(world_size: int) -> None:
    assert list(itertools.chain(*steps_of(world_size, 0, 5))) == list(range(5 * BATCH))
    assert {len(RankBatches(0, 5, BATCH, rank, world_size)) for rank in range(world_size)} == {5}


def test_sequence_when_resumed_anywhere_at_another_world_size_is_unchanged() -> None:
    expected = steps_of(1, 0, 6)
    for stop in range(7):
        for world_size, resumed_size in itertools.product(WORLD_SIZES, repeat=2):
            before = steps_of(world_size, 0, stop)
            assert before + steps_of(resumed_size, stop * BATCH, 6 - stop) == expected
    sizes = [1, 3, 8, 2, 6, 4]
    assert [steps_of(size, step * BATCH, 1)[0] for step, size in enumerate(sizes)] == expected


def assert_same_item(first: object, second: object) -> None:
    assert first.key == second.key
    assert np.array_equal(first.hr, second.hr)
    assert np.array_equal(first.lq, second.lq)


def test_item_when_read_in_another_order_by_another_object_is_the_same(preset: Preset, samples: TrainingSamples):
    positions = [0, 1, 57, 400]
    again = samples_of(preset)
    other = {position: again[position] for position in reversed(positions)}
    for position in positions:
        assert_same_item(samples[position], other[position])


def test_items_when_seed_differs_come_in_another_order(preset: Preset, samples: TrainingSamples) -> None:
    others = samples_of(preset, seed=preset.train.seed + 1)
    assert [samples[p].key for p in range(8)] != [others[p].key for p in range(8)]


def test_epoch_when_complete_holds_each_sample_once_and_the_next_another_variant(
    preset: Preset, samples: TrainingSamples
) -> None:
    num_samples = len(ShardSet.open(preset.train.data.shards))
    first, second = (
        [samples[epoch * num_samples + number].key.split("#") for number in range(num_samples)] for epoch in (0, 5)
    )
    names = [name for name, _ in first]
    assert len(set(names)) == num_samples
    assert sorted(names) == sorted(name for name, _ in second)
    assert {variant for _, variant in first} == {"0"}
    # Five is above the two recorded variants: the seeds go on by rule.
    assert {variant for _, variant in second} == {"5"}


def test_crop_when_variant_changes_moves_or_turns(preset: Preset) -> None:
    record = ShardSet.open(preset.train.data.shards).sample(0).record
    seeds = [record.seed(variant, preset.shards.seed) for variant in range(6)]
    assert len(set(seeds)) == 6
    assert tuple(seeds[: len(record.seeds)]) == record.seeds
    assert len({draw_sample_crop(record, seed, 32) for seed in seeds}) > 1


def whole_photo(preset: Preset, record: SampleRecord) -> tuple[np.ndarray, np.ndarray]:
    photo = np.asarray(Image.open(preset.shards.source[0] / Path(record.source).name))
    scale = preset.shards.scale
    height, width = (side - side % scale for side in photo.shape[:2])
    photo = photo[:height, :width]
    return photo, bicubic.downscale(photo, scale)


def test_item_when_classical_is_the_photo_and_its_whole_bicubic_cut_at_one_place(
    preset: Preset, samples: TrainingSamples
) -> None:
    shards, scale = ShardSet.open(preset.train.data.shards), preset.shards.scale
    order = SampleOrder(len(shards), preset.train.seed)
    dihedrals = set()
    for position in range(12):
        item, record = samples[position], shards.sample(order.index(position)).record
        crop = draw_sample_crop(record, record.seeds[0], preset.train.data.crop_px)
        top, left = record.position_px
        placed = dataclasses.replace(crop, top_px=top + crop.top_px, left_px=left + crop.left_px)
        photo, small = whole_photo(preset, record)
        assert np.array_equal(item.hr, placed.apply(photo))
        assert np.array_equal(item.lq, placed.scaled(scale).apply(small))
        dihedrals.add(crop.dihedral)
    assert len(dihedrals) > 3


def test_item_when_lq_is_given_is_cut_from_it_at_the_place_of_hr(preset: Preset, tmp_path: Path) -> None:
    photos = [np.random.default_rng(seed).integers(0, 256, (64, 80, 3), dtype=np.uint8) for seed in range(2)]
    config = write_pairs(preset.shards, tmp_path, photos)
    pairs = samples_of(preset, shards=config.output)
    items = [pairs[position] for position in range(12)]
    # The given LQ is made by no degradation; under its pixel (0, 0) of each 4x4 of HR it is that pixel's complement,
    # wherever the crop's symmetry puts that.
    for item in items:
        assert item.parameters is None
        assert item.lq.shape == (12, 12, 3)
        corners = [item.hr[row::4, column::4] for row in (0, 3) for column in (0, 3)]
        assert any(np.array_equal(item.lq, 255 - corner) for corner in corners)


def test_samples_when_the_crop_is_larger_than_the_sub_images_are_refused(preset: Preset) -> None:
    with pytest.raises(InputError, match=r"reads 80 px of HR, but .* have 64 px; lower --data\.crop-px"):
        samples_of(preset, crop_px=80, canvas_px=80)


def write_numbered_features(images: ShardSet, folder: Path) -> None:
    """A cache whose values are its sample's number and variant."""
    folder.mkdir()

    def members(shard: int):
        for index in images.range_of(shard):
            for variant in range(2):
                values = np.array([[[index]], [[variant]]], "<f2")
                yield f"{images.sample(index).key}.{variant:03d}.f16", values.tobytes()

    numbers = range(len(images.manifest.shards))
    entries = tuple(publish_shard(folder, f"features-{number:06d}", members(number), {}) for number in numbers)
    settings = FeatureSettings(images.manifest.digest, 48, 2, "numbers", "0" * 64, (2, 1, 1), "none")
    write_manifest(folder, Manifest("0" * 64, settings, entries))


def test_item_when_features_are_cached_takes_its_own_at_epoch_modulo_variants(preset: Preset, tmp_path: Path) -> None:
    images = ShardSet.open(preset.train.data.shards)
    write_numbered_features(images, tmp_path / "features")
    cached = samples_of(preset, tmp_path / "features")
    order = SampleOrder(len(images), preset.train.seed)
    for epoch in range(4):
        position = epoch * len(images) + 3
        item = cached[position]
        assert item.key == f"{images.sample(order.index(position)).key}#{epoch % 2}"
        assert item.semantics.ravel().tolist() == [order.index(position), epoch % 2]


def first_batch(samples: TrainingSamples, size: int = 4) -> Batch:
    return next(iter(batches(samples, RankBatches(0, 1, size, 0, 1), 0, pin_memory=False)))


def inputs() -> StepInputs:
    return StepInputs(None, contextlib.nullcontext, torch.contiguous_format)


def test_step_when_classical_has_the_batch_in_unit_range(samples: TrainingSamples) -> None:
    batch = first_batch(samples)
    assert batch.images[0].degradation is None
    step = inputs()(batch, is_adversarial=True)
    assert step.semantics is None
    assert step.target is step.gt
    assert torch.equal((step.gt * 255).round().byte(), batch.images[0].hr)
    assert torch.equal((step.lq * 255).round().byte(), batch.images[0].lq)


@pytest.fixture(scope="module")
def realworld(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> TrainingSamples:
    output = tmp_path_factory.mktemp("realworld") / "shards"
    write_shards(dataclasses.replace(preset.shards, degradation="realworld", output=output))
    return samples_of(preset, seed=1, shards=output, crop_px=32, canvas_px=64)


def test_step_when_shards_are_real_world_is_degraded_from_the_canvas(realworld: TrainingSamples) -> None:
    batch = first_batch(realworld)
    assert batch.images[0].lq is None
    assert batch.images[0].hr.shape == (4, 3, 64, 64)
    step = inputs()(batch, is_adversarial=False)
    assert step.lq.shape == (4, 3, 8, 8)
    assert step.gt.shape == step.target.shape == (4, 3, 32, 32)
    expected = degrade(batch.images[0].hr.float() / 255, batch.images[0].degradation)
    assert torch.equal(step.lq, expected.lq)
    assert torch.equal(step.gt, expected.gt)
    assert torch.equal(step.target, expected.target)
    assert not torch.equal(step.target, step.gt)


def test_samples_when_the_canvas_is_larger_than_the_sub_images_are_refused(
    realworld: TrainingSamples, preset: Preset
) -> None:
    folder = realworld.members[0].images.folder
    with pytest.raises(InputError, match="reads 96 px of HR"):
        samples_of(preset, shards=folder, crop_px=32, canvas_px=96)
