"""A map of a sub-image serves every crop on its grid: cut and turned as the crop is, and never in place of crops."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.schema import Preset
from pipeline.data.datasets import Dataset, Datasets, image_manifest
from pipeline.data.feature_modes import FEATURE_MODES
from pipeline.data.feature_modes.mode import draw_sample_crop
from pipeline.data.features import FeatureStore
from pipeline.data.samples import TrainingSamples
from pipeline.errors import ConfigError
from pipeline.inference.features import feature_settings, plan_features, write_feature_dataset, write_features
from pipeline.inference.semantics import build_extractor
from pipeline.models.semantics.extractor import build_semantic_extractor
from pipeline.run.inputs import open_semantics
from shards.degradation.crops import NUM_DIHEDRALS, Crop
from shards.errors import ShardError
from shards.format.png import decode_png
from shards.read.reader import ShardSet
from shards.write.execution import SERIAL

SOURCES = {"crops": "cached", "map": "mapped"}


def semantics_of(preset: Preset, source: str, cache: Path) -> Preset:
    changed = dataclasses.replace(preset.train.semantics, source=source, cache=cache)
    return dataclasses.replace(preset, train=dataclasses.replace(preset.train, semantics=changed))


@pytest.fixture(scope="module")
def caches(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for mode, source in SOURCES.items():
        folders[mode] = tmp_path_factory.mktemp(mode) / "features"
        train = semantics_of(preset, source, folders[mode]).train
        extractor = build_extractor(train.semantics, train.data.crop_px)
        tasks = plan_features(folders[mode], train.data, train.semantics, extractor, "fp16")
        write_feature_dataset(folders[mode], tasks, SERIAL, num_gpus=0)
    return folders


def open_cache(preset: Preset) -> object:
    datasets = Datasets((Dataset(preset.train.data.shards, image_manifest(preset.train.data.shards)),))
    return open_semantics(preset.train, datasets, torch.device("cpu"))


def means_of_cells(image: np.ndarray) -> np.ndarray:
    """A map that no turn and no border changes: (h, w, c) to (c, h / 16, w / 16)."""
    rows, columns = (side // 16 for side in image.shape[:2])
    cells = image[: 16 * rows, : 16 * columns].reshape(rows, 16, columns, 16, -1)
    return cells.mean((1, 3)).transpose(2, 0, 1)


@pytest.mark.parametrize("dihedral", range(NUM_DIHEDRALS))
def test_what_is_cut_of_a_map_is_the_map_of_the_crop(dihedral: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3))
    crop = Crop(32, 16, 48, dihedral)
    cut = FEATURE_MODES["map"].cut(means_of_cells(image), crop)
    np.testing.assert_allclose(cut, means_of_cells(crop.apply(image)), rtol=1e-12)


def test_samples_have_the_cells_of_their_crop_in_every_orientation_and_epoch(
    preset: Preset, caches: dict[str, Path]
) -> None:
    data, images = preset.train.data, ShardSet.open(preset.train.data.shards)
    samples, extractor = (
        TrainingSamples(data, preset.train.seed, caches["map"]),
        build_extractor(preset.train.semantics),
    )
    by_key = {sample.key: sample for sample in map(images.sample, range(len(images)))}
    orientations, places = set(), set()
    for position in range(3 * len(images)):  # the shards have two variants
        item = samples[position]
        key, variant = item.key.split("#")
        assert int(variant) == position // len(images)
        record = by_key[key].record
        crop = draw_sample_crop(record, record.seed(int(variant), images.manifest.images.seed), data.crop_px, 16)
        orientations.add(crop.dihedral)
        places.add((crop.top_px, crop.left_px))
        whole = decode_png(by_key[key].part("png"), key, 64)
        np.testing.assert_array_equal(item.hr, crop.apply(whole))
        features = extractor(torch.tensor(whole).permute(2, 0, 1)[None].float() / 255)[0]
        expected = FEATURE_MODES["map"].cut(features.numpy(), crop)
        np.testing.assert_allclose(item.semantics, expected, rtol=2**-10, atol=1e-5)
    assert orientations == set(range(NUM_DIHEDRALS))
    assert places == {(top_px, left_px) for top_px in (0, 16) for left_px in (0, 16)}


def test_cells_of_a_map_are_near_the_online_ones_of_the_crop_as_it_lies(
    preset: Preset, caches: dict[str, Path]
) -> None:
    samples, extractor = TrainingSamples(preset.train.data, 0, caches["map"]), build_extractor(preset.train.semantics)
    for position in range(4):
        item = samples[position]
        online = extractor(torch.from_numpy(item.hr).permute(2, 0, 1)[None].float() / 255)[0]
        mapped = torch.tensor(item.semantics).float()
        assert torch.cosine_similarity(mapped.flatten(), online.flatten(), 0) > 0.9
        assert not torch.allclose(mapped, online, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", SOURCES)
def test_cache_of_the_other_mode_is_refused_with_both(preset: Preset, caches: dict[str, Path], mode: str) -> None:
    assert open_cache(semantics_of(preset, SOURCES[mode], caches[mode])).extractor is None
    (other,) = set(SOURCES) - {mode}
    with pytest.raises(ShardError, match=f"mode: the cache has '{other}', the run needs '{mode}'") as caught:
        open_cache(semantics_of(preset, SOURCES[mode], caches[other]))
    assert "cached reads the mode crops, mapped the mode map" in str(caught.value)


def test_map_is_one_feature_of_the_whole_cells_of_a_sub_image(preset: Preset, caches: dict[str, Path]) -> None:
    settings = FeatureStore(caches["map"]).settings
    assert (settings.mode, settings.crop_px, settings.num_variants) == ("map", 64, 1)
    assert settings.orientations == (0,)
    assert settings.shape == (256, 4, 4)
    images = image_manifest(preset.train.data.shards).images
    assert FEATURE_MODES["map"].window_px(dataclasses.replace(images, sub_image_px=79), 48) == 64


def test_mapped_semantics_are_refused_where_cached_ones_are(preset: Preset, tmp_path: Path) -> None:
    mixed = dataclasses.replace(preset.train.data, mix={tmp_path / "more": 0.5})
    train = semantics_of(preset, "mapped", tmp_path).train
    with pytest.raises(ConfigError, match=r'semantics\.source="mapped": a cache is of one dataset'):
        dataclasses.replace(train, data=mixed)
    with pytest.raises(ConfigError, match="batch_statistics=true depends on the batch"):
        dataclasses.replace(train.semantics, batch_statistics=True)


def test_network_that_is_built_for_crops_alone_has_no_maps(preset: Preset) -> None:
    extractor = build_semantic_extractor("timm:tnt_s_patch16_224", 0, "random", crop_px=48)
    with pytest.raises(ConfigError, match=r"is built for crops, and the mode map shows it 64 px; .*source cached"):
        feature_settings(image_manifest(preset.train.data.shards), extractor, 48, "map")


def test_worker_with_other_weights_than_the_job_is_refused_with_both_hashes(preset: Preset, tmp_path: Path) -> None:
    train = semantics_of(preset, "mapped", tmp_path).train
    task = plan_features(tmp_path, train.data, train.semantics, build_extractor(train.semantics, 48))[0]
    other = dataclasses.replace(train.semantics, seed=9)
    with pytest.raises(ShardError, match=f"with weights .*, the job planned .* {task.settings.weights_sha256[:12]}"):
        write_features(dataclasses.replace(task, semantics=other))
