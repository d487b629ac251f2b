"""The feature cache holds what the extractor gives for the very crops of training, and refuses to serve another run."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline.config.schema import Preset
from pipeline.data.datasets import Dataset, Datasets, image_manifest
from pipeline.data.feature_modes.mode import draw_sample_crop
from pipeline.data.features import FeatureStore, has_features
from pipeline.data.samples import RankBatches, TrainingSamples, batches
from pipeline.errors import ConfigError
from pipeline.inference.feature_batches import in_order
from pipeline.inference.features import (
    FeatureTask,
    feature_settings,
    fit_codec,
    plan_features,
    write_feature_dataset,
    write_features,
)
from pipeline.inference.semantics import build_extractor
from pipeline.run.inputs import open_semantics
from shards.degradation.crops import Crop
from shards.errors import InputError, ShardError
from shards.format.codecs import CODECS, DEFAULT_CODEC
from shards.format.documents import digest_of
from shards.format.feature_coding import STATE_FILE
from shards.format.manifest import Manifest, read_manifest, write_manifest
from shards.read.reader import ShardSet
from shards.write.execution import SERIAL

ANY_CROP = Crop(0, 0, 48, 0)


def write_cache(preset: Preset, output: Path, num_shards: int | None = None, codec: str = "fp16") -> Path:
    """Write the features of a dataset in this process; fewer shards than there are leave no manifest."""
    images = image_manifest(preset.train.data.shards)
    semantics = preset.train.semantics
    wanted = feature_settings(images, build_extractor(semantics), preset.train.data.crop_px).coded_by(codec)
    output.mkdir()
    entries = tuple(
        write_features(FeatureTask(preset.train.data.shards, entry, number, output, semantics, wanted))
        for number, entry in enumerate(images.shards[:num_shards])
    )
    if len(entries) == len(images.shards):
        write_manifest(output, Manifest(digest_of(wanted.to_plain()), wanted, entries))
    return output


@pytest.fixture(scope="module")
def cache(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(preset, tmp_path_factory.mktemp("cache") / "features")


def plan(preset: Preset, output: Path, codec: str | None = None) -> list[FeatureTask]:
    train = preset.train
    return plan_features(output, train.data, train.semantics, build_extractor(train.semantics), codec)


def with_cache(preset: Preset, cache: Path, **semantics: object) -> Preset:
    changed = dataclasses.replace(preset.train.semantics, source="cached", cache=cache, **semantics)
    return dataclasses.replace(preset, train=dataclasses.replace(preset.train, semantics=changed))


def open_cache(preset: Preset, images: Manifest | None = None) -> object:
    images = images or image_manifest(preset.train.data.shards)
    datasets = Datasets((Dataset(preset.train.data.shards, images),))
    return open_semantics(preset.train, datasets, torch.device("cpu"))


def test_features_when_cached_equal_the_online_extractor_on_the_batch_within_rounding(
    preset: Preset, cache: Path
) -> None:
    data = preset.train.data
    samples = TrainingSamples(data, preset.train.seed, cache)
    num_samples = len(ShardSet.open(data.shards))
    extractor = build_extractor(preset.train.semantics)
    for epoch in (0, 3):
        order = RankBatches(epoch * num_samples, 2, 4, 0, 1)
        for batch in batches(samples, order, 0, pin_memory=False):
            online = extractor(batch.images[0].hr.float() / 255)
            cached = batch.semantics.float()
            assert cached.shape == online.shape == (4, 256, 3, 3)
            # Half a unit in the last place of float16, and float32's own noise from other batch shapes.
            assert torch.allclose(cached, online, rtol=2**-10, atol=1e-5)
            assert not torch.allclose(cached, online.flip(0), rtol=0.1, atol=0.1)


def bound_of(codec: str, online: torch.Tensor) -> torch.Tensor:
    """The most that a value may move, beside float32's own noise from other batch shapes."""
    rounding = online.abs() * 2**-10 + 1e-5
    if codec.startswith("fp16"):
        return rounding
    ranges = online.amax((2, 3), keepdim=True).clamp(min=0) - online.amin((2, 3), keepdim=True).clamp(max=0)
    return rounding + ranges / 508 * (1 + 1e-3)


@pytest.mark.parametrize("codec", [name for name in CODECS.names if not CODECS[name].is_fitted])
def test_features_in_every_orientation_equal_online_ones_within_the_bound_of_their_codec(
    preset: Preset, tmp_path: Path, codec: str
) -> None:
    data = preset.train.data
    samples = TrainingSamples(data, preset.train.seed, write_cache(preset, tmp_path / "features", codec=codec))
    images, extractor = ShardSet.open(data.shards), build_extractor(preset.train.semantics)
    orientations = set()
    for position in range(2 * len(images)):
        item = samples[position]
        key, variant = item.key.split("#")
        record = next(one.record for one in map(images.sample, range(len(images))) if one.key == key)
        crop = draw_sample_crop(record, record.seed(int(variant), images.manifest.images.seed), data.crop_px)
        if crop.dihedral in orientations:
            continue
        orientations.add(crop.dihedral)
        online = extractor(torch.from_numpy(item.hr).permute(2, 0, 1)[None].float() / 255)
        cached = torch.tensor(item.semantics)[None].float()
        assert ((cached - online).abs() <= bound_of(codec, online)).all()
    assert orientations == set(range(8))


def test_results_of_threads_come_in_order_and_few_are_computed_early() -> None:
    started: list[int] = []

    def late_where_even(number: int) -> int:
        time.sleep(0.002 * (number % 2 == 0))
        return number

    with ThreadPoolExecutor(4) as pool:
        results = in_order(pool, late_where_even, (started.append(number) or number for number in range(40)), ahead=5)
        for expected, result in enumerate(results):
            assert result == expected
            assert len(started) <= expected + 6
    assert started == list(range(40))


def test_components_are_fitted_once_and_their_features_are_near_online_ones(preset: Preset, tmp_path: Path) -> None:
    output, extractor = tmp_path / "features", build_extractor(preset.train.semantics)
    output.mkdir()
    tasks = fit_codec(plan(preset, output, "pca128"), extractor)
    state = (output / STATE_FILE).read_bytes()
    write_features(tasks[0])  # and no more: the job is killed here
    again = fit_codec(plan(preset, output), extractor)
    assert again == tasks
    assert (output / STATE_FILE).read_bytes() == state
    write_feature_dataset(output, again, SERIAL, num_gpus=0)
    open_cache(with_cache(preset, output))
    item = TrainingSamples(preset.train.data, preset.train.seed, output)[0]
    online = extractor(torch.from_numpy(item.hr).permute(2, 0, 1)[None].float() / 255)[0]
    assert torch.nn.functional.cosine_similarity(online.flatten(), torch.tensor(item.semantics).flatten(), 0) > 0.98
    (output / STATE_FILE).unlink()
    with pytest.raises(ShardError, match=f"cannot read .*{STATE_FILE}, which codec pca128 needs"):
        open_cache(with_cache(preset, output))


def test_codec_is_that_of_what_is_begun_and_another_is_refused_with_both_names(
    preset: Preset, cache: Path, tmp_path: Path
) -> None:
    begun = write_cache(preset, tmp_path / "begun", num_shards=1)
    assert {task.settings.codec for task in plan(preset, tmp_path / "new")} == {DEFAULT_CODEC}
    for folder in (begun, cache):
        assert {task.settings.codec for task in plan(preset, folder)} == {"fp16"}
        with pytest.raises(ShardError, match="have the codec fp16, and uint8 is to be written; give another output"):
            plan(preset, folder, "uint8")


def test_cache_when_it_fits_leaves_the_extractor_out(preset: Preset, cache: Path) -> None:
    source = open_cache(with_cache(preset, cache))
    assert source.extractor is None
    assert source.channels == 256
    assert source.description.endswith(", cached")


def refused(preset: Preset, field: str, images: Manifest | None = None) -> str:
    with pytest.raises(ShardError, match=f"(?s)belong to something else:.*{field}: the cache has") as caught:
        open_cache(preset, images)
    assert "jobs/cache_features.py to another folder" in str(caught.value)
    return str(caught.value)


def test_cache_when_the_crop_differs_is_refused_with_both_values(preset: Preset, cache: Path) -> None:
    changed = with_cache(preset, cache)
    data = dataclasses.replace(changed.train.data, crop_px=32)
    changed = dataclasses.replace(changed, train=dataclasses.replace(changed.train, data=data))
    message = refused(changed, "crop_px")
    assert "crop_px: the cache has 48, the run needs 32" in message
    assert "shape: the cache has [256, 3, 3], the run needs [256, 2, 2]" in message


def test_cache_when_the_weights_differ_is_refused_with_both_hashes(preset: Preset, cache: Path) -> None:
    changed = with_cache(preset, cache, seed=1)
    message = refused(changed, "weights_sha256")
    assert build_extractor(preset.train.semantics).weights_sha256 in message
    assert build_extractor(changed.train.semantics).weights_sha256 in message


def test_cache_when_the_layer_differs_is_refused_with_both_names(preset: Preset, cache: Path) -> None:
    message = refused(with_cache(preset, cache, layer=2), "extractor")
    assert (
        "the cache has 'open_clip:RN50:openai layer 1, 256 channels, one cell per 4 px, averaged to 16 px'" in message
    )
    assert (
        "the run needs 'open_clip:RN50:openai layer 2, 512 channels, one cell per 8 px, averaged to 16 px'" in message
    )


def test_cache_when_the_shards_differ_is_refused_with_both_digests(preset: Preset, cache: Path) -> None:
    images = image_manifest(preset.train.data.shards)
    others = dataclasses.replace(images, fingerprint="0" * 64)
    message = refused(with_cache(preset, cache), "image_manifest", others)
    assert images.digest in message
    assert others.digest in message


def test_features_when_a_byte_of_the_tar_is_flipped_are_refused(preset: Preset, cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in cache.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    images = ShardSet.open(preset.train.data.shards)
    store = FeatureStore(copy)
    assert store.read(0, images.sample(0).key, 1, ANY_CROP).shape == (256, 3, 3)
    tar = copy / "features-000000.tar"
    damaged = bytearray(tar.read_bytes())
    damaged[512 + 100] ^= 1  # the tar's first header has 512 bytes
    tar.write_bytes(damaged)
    with pytest.raises(ShardError, match=r"features-000000\.tar member .*000\.f16 has a wrong CRC"):
        FeatureStore(copy).read(0, images.sample(0).key, 0, ANY_CROP)


def test_feature_when_asked_for_another_key_is_refused(cache: Path) -> None:
    with pytest.raises(ShardError, match=r"feature 0 belongs to .*, expected another"):
        FeatureStore(cache).read(0, "another", 0, ANY_CROP)


def test_cache_when_unfinished_is_no_cache(preset: Preset, tmp_path: Path) -> None:
    folder = write_cache(preset, tmp_path / "features", num_shards=1)
    assert not has_features(folder)
    with pytest.raises(InputError, match=r"no cached features in .*; run jobs/cache_features\.py"):
        FeatureStore(folder)


def copy_of(cache: Path, folder: Path) -> Path:
    shutil.copytree(cache, folder)
    return folder


@pytest.mark.parametrize("suffix", ["tar", "json"])
def test_cache_when_a_file_is_gone_is_refused_before_training(
    preset: Preset, cache: Path, tmp_path: Path, suffix: str
) -> None:
    copy = copy_of(cache, tmp_path / "copy")
    gone = copy / f"features-000001.{suffix}"
    gone.unlink()
    with pytest.raises(
        ShardError, match=r"the features of 1 of \d+ shards are not there: cannot read .*000001"
    ) as caught:
        open_cache(with_cache(preset, copy))
    assert str(gone) in str(caught.value)
    assert "jobs/cache_features.py, which writes what is missing" in str(caught.value)


def test_cache_when_a_tar_is_cut_short_is_refused_before_training(preset: Preset, cache: Path, tmp_path: Path) -> None:
    copy = copy_of(cache, tmp_path / "copy")
    tar = copy / "features-000000.tar"
    size_bytes = tar.stat().st_size
    os.truncate(tar, size_bytes - 1)
    with pytest.raises(ShardError, match=rf"{tar.name} has {size_bytes - 1} bytes, not {size_bytes}; restore it"):
        open_cache(with_cache(preset, copy))


def test_cache_of_part_of_the_shards_is_refused_with_both_numbers(preset: Preset, cache: Path, tmp_path: Path) -> None:
    copy = copy_of(cache, tmp_path / "copy")
    whole = read_manifest(copy)
    write_manifest(copy, dataclasses.replace(whole, shards=whole.shards[:-1]))
    numbers = f"are of {len(whole.shards) - 1} shards, the images have {len(whole.shards)}"
    with pytest.raises(ShardError, match=numbers):
        open_cache(with_cache(preset, copy))
    short = dataclasses.replace(whole.shards[0], num_samples=1)
    write_manifest(copy, dataclasses.replace(whole, shards=(short, *whole.shards[1:])))
    with pytest.raises(ShardError, match=r"features-000000\.tar has the features of 1 samples, images-000000 has \d+"):
        open_cache(with_cache(preset, copy))


def test_cache_of_other_orientations_is_refused_with_both_lists(preset: Preset, cache: Path, tmp_path: Path) -> None:
    copy = copy_of(cache, tmp_path / "copy")
    header = dataclasses.replace(read_manifest(copy).features, orientations=(0, 1))
    write_manifest(copy, dataclasses.replace(read_manifest(copy), config=header))
    message = refused(with_cache(preset, copy), "orientations")
    assert "orientations: the cache has [0, 1], the run needs [0, 1, 2, 3, 4, 5, 6, 7]" in message


def test_cache_of_a_mode_that_this_version_has_not_is_refused(cache: Path, tmp_path: Path) -> None:
    copy = copy_of(cache, tmp_path / "copy")
    header = dataclasses.replace(read_manifest(copy).features, mode="another")
    write_manifest(copy, dataclasses.replace(read_manifest(copy), config=header))
    with pytest.raises(InputError, match=r"got 'another' @ \$\.config\.mode"):
        FeatureStore(copy)


def test_image_shards_when_given_as_a_cache_are_refused(preset: Preset) -> None:
    with pytest.raises(ShardError, match="holds images shards, not features"):
        FeatureStore(preset.train.data.shards)


def test_features_when_given_as_image_shards_are_refused(cache: Path) -> None:
    with pytest.raises(InputError, match=r"holds features shards, not images; give the output of jobs/shard\.py"):
        image_manifest(cache)


def test_identity_when_shards_are_real_world_or_the_crop_does_not_fit_is_refused(preset: Preset) -> None:
    images = image_manifest(preset.train.data.shards)
    extractor = build_extractor(preset.train.semantics)
    realworld = dataclasses.replace(images, config=dataclasses.replace(images.images, degradation="realworld"))
    with pytest.raises(ConfigError, match=r"classical and paired shards only; .*--semantics\.source online"):
        feature_settings(realworld, extractor, 48)
    for crop_px in (40, 80):
        with pytest.raises(ConfigError, match=f"crop_px={crop_px} must be a multiple of 16 and at most .* 64 px"):
            feature_settings(images, extractor, crop_px)


@pytest.mark.parametrize(
    ("architecture", "layer", "old", "preprocessing"),
    [
        ("open_clip:RN50", 1, "clip-rn50 layer 1", "rgb-01-clip-normalised-1"),
        ("timm:resnet50.tv_in1k", 2, "imagenet-rn50 layer 2", "rgb-01-imagenet-normalised-1"),
        # As c7a254d wrote it, whatever the extractor.
        ("timm:resnet50.tv_in1k", 2, "imagenet-rn50 layer 2", "rgb-01-clip-normalised-1"),
        ("open_clip:ViT-B-16", 0, "clip-vit-b16 layer 1", "rgb-01-clip-normalised-1"),
    ],
)
def test_cache_of_an_earlier_version_is_read_by_the_names_of_now(
    preset: Preset, cache: Path, tmp_path: Path, architecture: str, layer: int, old: str, preprocessing: str
) -> None:
    semantics = dataclasses.replace(preset.train.semantics, architecture=architecture, layer=layer)
    needed = feature_settings(image_manifest(preset.train.data.shards), build_extractor(semantics, 48), 48)
    shutil.copytree(cache, tmp_path / "old")
    header = dataclasses.replace(needed, extractor=old, preprocessing=preprocessing)
    write_manifest(tmp_path / "old", dataclasses.replace(read_manifest(cache), config=header))
    FeatureStore(tmp_path / "old").require(needed)
    for other in ({"extractor": needed.extractor.replace("layer ", "layer 1")}, {"preprocessing": "none"}):
        with pytest.raises(ShardError, match=f"{next(iter(other))}: the cache has"):
            FeatureStore(tmp_path / "old").require(dataclasses.replace(needed, **other))
