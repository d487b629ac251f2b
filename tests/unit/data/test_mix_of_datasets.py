"""Several datasets with shares: classical, paired and real-world samples in one batch, on any number of ranks."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import changed, write_pairs, write_preset, write_shards
from PIL import Image
from run_steps import assert_same_steps, step_inputs, steps_of
from sessions import assert_same_end, run_session

import pipeline.run.record
from jobs import train_sed
from jobs.terminal import run_job
from pipeline.checkpoint import CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.data import AugmentationConfig
from pipeline.config.plain import structure, to_plain
from pipeline.config.schema import Preset
from pipeline.data.datasets import open_datasets
from pipeline.data.samples import RankBatches, TrainingSamples, batches, collate
from pipeline.errors import CheckpointError, ConfigError
from pipeline.run.checks import check_shards, resolve
from pipeline.run.dry_run import describe
from pipeline.run.inputs import StepInputs
from pipeline.run.record import parameters_of
from pipeline.tracking import Trackers
from shards.format.manifest import read_manifest

BATCH, STEPS = 8, 3


@pytest.fixture(scope="module")
def folder(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real-world and paired shards, beside the classical ones of the preset."""
    folder = tmp_path_factory.mktemp("mix")
    write_shards(dataclasses.replace(preset.shards, degradation="realworld", output=folder / "realworld"))
    photos = [np.asarray(Image.open(path)) for path in sorted(preset.shards.source[0].iterdir())]
    whole = [hr[: hr.shape[0] // 4 * 4, : hr.shape[1] // 4 * 4] for hr in photos]
    write_pairs(preset.shards, folder, [hr[::-1].copy() for hr in whole])
    return folder


@pytest.fixture(scope="module")
def mixed(preset: Preset, folder: Path) -> Preset:
    """Half classical, three tenths real-world, a fifth paired."""
    data = dataclasses.replace(
        preset.train.data,
        batch_size=BATCH,
        canvas_px=64,
        mix={folder / "realworld": 0.3, folder / "paired": 0.2},
    )
    report = dataclasses.replace(
        preset.train.report, every_images=8, validate_every_images=24, checkpoint_every_images=8, validation_sets=()
    )
    return changed(preset, data=data, report=report)


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())


def test_each_sample_of_a_mix_is_that_of_its_own_dataset(mixed: Preset, folder: Path) -> None:
    samples, data = TrainingSamples(mixed.train.data, 1), mixed.train.data
    alone = TrainingSamples(dataclasses.replace(data, mix={}), 1)
    items = [samples[position] for position in range(70)]
    own = [alone[position].key for position in range(35)]
    classical = [item for item in items if item.lq is not None and item.key in own]
    # The first dataset is read as it is alone; a fifth are pairs, whose LQ is the complement of HR.
    assert [item.key for item in classical] == own
    assert sum(item.parameters is not None for item in items) == 21
    pairs = [item for item in items if item.parameters is None and item not in classical]
    assert len(pairs) == 14
    for item in pairs:
        corners = [item.hr[row::4, column::4] for row in (0, 3) for column in (0, 3)]
        assert any(np.array_equal(item.lq, 255 - corner) for corner in corners)


def test_batch_of_several_kinds_has_the_samples_of_its_positions(mixed: Preset) -> None:
    samples = TrainingSamples(mixed.train.data, 1)
    inputs = StepInputs(None, contextlib.nullcontext, torch.contiguous_format)
    items = [samples[position] for position in range(10)]
    assert len({item.kind for item in items}) == 2
    step = inputs(collate(items), is_adversarial=False)
    for place, item in enumerate(items):
        own = inputs(collate([item]), is_adversarial=False)
        assert torch.equal(step.lq[place], own.lq[0])
        assert torch.equal(step.gt[place], own.gt[0])
        assert torch.equal(step.target[place], own.target[0])
    assert collate(items).keys == tuple(item.key for item in items)
    # A batch that happens to be of one kind stays what it is without a mix.
    stored = collate([item for item in items if item.parameters is None])
    assert (len(stored.images), stored.order) == (1, None)


@pytest.mark.parametrize("world_size", [2, 4])
def test_mix_is_the_same_for_any_number_of_ranks_and_after_a_resume(mixed: Preset, world_size: int) -> None:
    data = dataclasses.replace(
        mixed.train.data, augmentation=AugmentationConfig(cutblur_probability=0.4, cutmix_probability=0.4)
    )
    expected = steps_of(data, 1, range(STEPS), 1)
    for first_step in (0, 2):
        assert_same_steps(steps_of(data, 1, range(first_step, STEPS), world_size), expected[first_step:])


def test_samples_of_a_mix_do_not_depend_on_loaders(mixed: Preset) -> None:
    samples, inputs = TrainingSamples(mixed.train.data, 1), step_inputs()
    order = RankBatches(8, 2, BATCH, 0, 1)
    here, there = (list(batches(samples, order, workers, pin_memory=False)) for workers in (0, 2))
    assert [batch.keys for batch in here] == [batch.keys for batch in there]
    assert_same_steps(*([inputs(batch, is_adversarial=False) for batch in read] for read in (here, there)))


def test_run_on_a_mix_resumed_ends_with_the_same_bits_and_is_bound_to_shards_and_shares(
    mixed: Preset, folder: Path, tmp_path: Path
) -> None:
    run_session(mixed, tmp_path / "straight")
    run_session(mixed, tmp_path / "resumed", stop_at=8)
    store = CheckpointStore(RunFolder(tmp_path / "resumed").checkpoints)
    checkpoint = store.newest()
    assert checkpoint.facts["image_manifest"] == open_datasets(mixed.train.data).digest
    # One dataset alone is named by its manifest, as in the checkpoints of every version.
    alone = dataclasses.replace(mixed.train.data, mix={})
    assert open_datasets(alone).digest == read_manifest(alone.shards).digest
    assert [line.split(" of the run")[0] for line in checkpoint.facts["datasets"]] == ["0.5", "0.3", "0.2"]
    # Other shares are other data; another place of the same shards is not.
    shares = {folder / "realworld": 0.2, folder / "paired": 0.3}
    with pytest.raises(CheckpointError, match=r"started on other shards .* and those of data\.mix"):
        run_session(with_mix(mixed, shares), tmp_path / "resumed")
    shutil.copytree(folder / "paired", tmp_path / "moved")
    moved = with_mix(mixed, {folder / "realworld": 0.3, tmp_path / "moved": 0.2})
    outcome, positions = run_session(moved, tmp_path / "resumed")
    assert (outcome.is_finished, positions[0]) == (True, 8)
    assert_same_end(tmp_path / "resumed", tmp_path / "straight")


def with_mix(preset: Preset, mix: dict[Path, float], **changes: object) -> Preset:
    return changed(preset, data=dataclasses.replace(preset.train.data, mix=mix, **changes))


def test_mix_survives_the_run_folder(mixed: Preset) -> None:
    again = structure(json.loads(json.dumps(to_plain(mixed))), Preset, "config.json")
    assert again == mixed
    assert list(again.train.data.shares.items()) == list(mixed.train.data.shares.items())
    assert list(mixed.train.data.shares.values()) == [500, 300, 200]


def test_mix_is_one_parameter_of_the_run_and_a_flag(
    mixed: Preset, preset: Preset, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = parameters_of(mixed.train)
    assert parameters["data.mix"] == f"0.3 {folder / 'realworld'}, 0.2 {folder / 'paired'}"
    assert not any("/" in name for name in parameters)
    assert "data.mix" not in parameters_of(preset.train)
    file = write_preset(changed(mixed, data=dataclasses.replace(mixed.train.data, mix={})), tmp_path / "preset.json")
    flags = ["--data.mix", str(folder / "realworld"), "0.25", str(folder / "paired"), "0.05", "--dry-run"]
    assert run_job(train_sed.main, [str(file), "--run-dir", str(tmp_path / "run"), *flags]) == 0
    text = capsys.readouterr().out
    for share, name in (("0.7", "shards"), ("0.25", "realworld"), ("0.05", "paired")):
        assert f"shards           {share} of the run: " in text
        assert f"in {mixed_folders(mixed, folder)[name]}, " in text


def test_dry_run_says_how_often_each_dataset_is_read(mixed: Preset, preset: Preset, folder: Path) -> None:
    text = describe(mixed)
    num = {name: read_manifest(path).num_samples for name, path in mixed_folders(mixed, folder).items()}
    times = {name: 24 * share / num[name] for name, share in (("shards", 0.5), ("realworld", 0.3), ("paired", 0.2))}
    for name, share, kind in (("shards", 0.5, "classical"), ("realworld", 0.3, "realworld"), ("paired", 0.2, "paired")):
        where = mixed_folders(mixed, folder)[name]
        assert f"shards           {share:g} of the run: {num[name]:,} samples in {where}, {kind} x4, read " in text
        assert f"read {times[name]:.2f} times" in text
        assert f"reads            {where}\n" in text
    missing = describe(with_mix(preset, {folder / "none": 0.25}))
    assert f"reads            {folder / 'none'}  (not there yet)" in missing


def mixed_folders(mixed: Preset, folder: Path) -> dict[str, Path]:
    return {"shards": mixed.train.data.shards, "realworld": folder / "realworld", "paired": folder / "paired"}


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([0.0], r"the share 0 of .*other0 in mix must be above 0"),
        ([0.12345], "multiple of 0.001"),
        ([0.5, 0.5], r"sum to 1 and leave nothing for data\.shards"),
        ([1.5], "must be above 0, below 1"),
    ],
)
def test_shares_that_cannot_be_are_refused(preset: Preset, tmp_path: Path, shares: list[float], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        with_mix(preset, {tmp_path / f"other{number}": share for number, share in enumerate(shares)})


def test_shares_as_people_write_them_are_taken(preset: Preset, tmp_path: Path) -> None:
    for share in itertools.chain((0.1, 0.29, 0.333, 0.57), (number / 1000 for number in range(1, 999, 83))):
        data = with_mix(preset, {tmp_path: share}).train.data
        assert data.shares[tmp_path] == round(1000 * share)


def test_dataset_named_twice_is_refused(preset: Preset, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mix names .*, which are data\.shards"):
        with_mix(preset, {preset.train.data.shards: 0.3})
    shutil.copytree(folder / "paired", tmp_path / "copy")
    twice = with_mix(preset, {folder / "paired": 0.3, tmp_path / "copy": 0.2})
    with pytest.raises(ConfigError, match=r"copy holds the same shards as .*paired; name each dataset once"):
        open_datasets(twice.train.data)


def test_recipes_that_differ_under_one_name_are_refused(preset: Preset, tmp_path: Path) -> None:
    folders = []
    for chance, other in ((1.0, 0.0), (0.0, 1.0)):
        recipe = tmp_path / f"{chance}.toml"
        recipe.write_text(
            f"""format = 1
name = "mine"
[end]
area_probability = {other}
bilinear_probability = 0.0
bicubic_probability = 0.0
matlab_bicubic_probability = {chance}
"""
        )
        folders.append(tmp_path / str(chance))
        config = dataclasses.replace(preset.shards, degradation="realworld", recipe=str(recipe), output=folders[-1])
        write_shards(config)
    train = with_mix(preset, {folders[1]: 0.5}, shards=folders[0]).train
    with pytest.raises(ConfigError, match=r"different recipes of one name, 'mine'; write one of them again"):
        open_datasets(train.data)


def test_dataset_of_another_scale_is_refused(preset: Preset, tmp_path: Path) -> None:
    write_shards(dataclasses.replace(preset.shards, scale=2, output=tmp_path / "x2"))
    train = with_mix(preset, {tmp_path / "x2": 0.3}).train
    with pytest.raises(ConfigError, match=r"generator\.scale=4, but the shards in .*x2 were written for scale 2"):
        check_shards(train, open_datasets(train.data))


def test_cached_semantics_of_a_mix_are_refused_and_auto_computes_them(
    mixed: Preset, preset: Preset, folder: Path, tmp_path: Path
) -> None:
    cached = dataclasses.replace(preset.train.semantics, source="cached")
    with pytest.raises(ConfigError, match=r"a cache is of one dataset, and data\.mix names more"):
        changed(mixed, semantics=cached)
    (tmp_path / "manifest.json").write_text("{}")
    auto = dataclasses.replace(preset.train.semantics, source="auto", cache=tmp_path)
    for config, source in ((preset, "cached"), (mixed, "online")):
        train = changed(config, semantics=auto, run_dir=tmp_path / "none").train
        assert resolve(train).semantics.source == source
