"""A run that starts from the exports of another run, or from the weights of the SeD release."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import changed, prepare_tiny_data
from safetensors.torch import load_file, save_file
from sessions import assert_same_end, run_session

import pipeline.run.record
from pipeline.checkpoint import CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import Preset
from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.discriminators import PatchDiscriminator, start_discriminator
from pipeline.models.discriminators.sed_layout import to_sed
from pipeline.run.assembly import build_state, start_networks
from pipeline.run.dry_run import describe
from pipeline.run.session import Session
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers
from pipeline.weights.files import read_metadata

SEMANTIC_CHANNELS = 256  # of layer 1 of open_clip:RN50, which the tiny preset reads


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    preset = prepare_tiny_data(tmp_path_factory.mktemp("initial"))
    schedule = replace(preset.train.schedule, total_images=8, pixel_only_images=0, milestones_images=(8,))
    generator = replace(preset.train.generator, initial_weights=Path("random"))
    report = replace(preset.train.report, trackers=())
    return changed(preset, schedule=schedule, generator=generator, report=report)


@pytest.fixture(scope="module")
def exports(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("first") / "run"
    outcome, _ = run_session(preset, run_dir)
    assert outcome.is_finished
    return run_dir / "export"


def started_from(preset: Preset, exports: Path, **options: bool) -> Preset:
    def start(name: str) -> Any:
        file = exports / f"{name}.safetensors"
        return replace(getattr(preset.train, name), initial_weights=file, **options)

    return changed(preset, generator=start("generator"), discriminator=start("discriminator"))


def test_run_starts_from_the_exports_of_another_run(preset: Preset, exports: Path, tmp_path: Path) -> None:
    second = started_from(preset, exports)
    backend = Backend(second.train.runtime, batch_size=second.train.data.batch_size)
    try:
        state = build_state(second.train, start_networks(second.train, SEMANTIC_CHANNELS), backend)
        generator, discriminator = state.generator.weights(), state.discriminators["discriminator"].weights()
    finally:
        backend.close()
    assert read_metadata(exports / "discriminator.safetensors")["layout"] == "sed"
    for started, file in ((generator, "generator"), (to_sed(discriminator), "discriminator")):
        exported = load_file(exports / f"{file}.safetensors")
        assert started.keys() == exported.keys()
        assert all(torch.equal(started[name], exported[name]) for name in exported)

    outcome, positions = run_session(second, tmp_path / "run")
    assert outcome.is_finished
    assert positions == [0, 4, 8]
    moved = load_file(tmp_path / "run" / "export" / "discriminator.safetensors")
    assert not torch.equal(moved["conv_last.weight"], exported["conv_last.weight"])


def test_run_resumes_when_the_files_that_it_started_from_are_gone(
    preset: Preset, exports: Path, tmp_path: Path
) -> None:
    shutil.copytree(exports, tmp_path / "files")
    second = started_from(preset, tmp_path / "files")
    run_session(second, tmp_path / "straight")
    run_session(second, tmp_path / "run", stop_at=4)
    shutil.copytree(tmp_path / "run" / "checkpoints", tmp_path / "earlier")
    shutil.rmtree(tmp_path / "files")
    assert "safetensors  (not there yet)" not in describe(changed(second, run_dir=tmp_path / "run"))
    assert run_session(second, tmp_path / "run")[0].is_finished
    assert_same_end(tmp_path / "run", tmp_path / "straight")
    # A checkpoint that has lost a file is passed over for the one before it, which has the same networks.
    (newest,) = (tmp_path / "run" / "checkpoints").glob("images-*")
    shutil.rmtree(tmp_path / "run" / "export")
    (newest / "generator.safetensors").unlink()
    shutil.copytree(tmp_path / "earlier", newest.parent, dirs_exist_ok=True)
    assert run_session(second, tmp_path / "run")[0].is_finished
    assert_same_end(tmp_path / "run", tmp_path / "straight")
    # Without a checkpoint there is nothing else to start from.
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"generator\.initial_weights: .*no such weight file"):
        run_session(second, tmp_path / "run")
    assert "safetensors  (not there yet)" in describe(changed(second, run_dir=tmp_path / "run"))


def test_discriminator_that_joins_when_a_run_on_pixels_is_extended_starts_from_its_file(
    preset: Preset, exports: Path, tmp_path: Path
) -> None:
    pixels = started_from(preset, exports)
    pixels = changed(pixels, schedule=replace(preset.train.schedule, total_images=8, pixel_only_images=8))
    assert run_session(pixels, tmp_path / "run")[0].is_finished
    assert not (tmp_path / "run" / "export" / "discriminator.safetensors").exists()
    longer = changed(pixels, run_dir=tmp_path / "run", schedule=replace(pixels.train.schedule, total_images=12))
    session = Session(longer, Backend(longer.train.runtime, batch_size=longer.train.data.batch_size))
    assert [note for note in session.notes if "initial weights" in note] == [
        f"discriminator: initial weights {exports / 'discriminator.safetensors'}"
    ]
    started, exported = (
        session._state.discriminators["discriminator"].weights(),
        load_file(exports / "discriminator.safetensors"),
    )
    assert all(torch.equal(tensor, exported[name]) for name, tensor in to_sed(started).items())
    session.close()


def test_run_that_starts_from_a_part_of_a_file_says_records_and_keeps_what_is_left_out(
    preset: Preset, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, str]] = []
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *call: calls.append(call[1].tags) or Trackers())
    shutil.copytree(exports, tmp_path / "files")
    deeper = started_from(preset, tmp_path / "files", initial_weights_partial=True)
    deeper = changed(deeper, generator=replace(deeper.train.generator, num_blocks=4))
    counts = "9 of 17 entries of SRVGGNetCompact are taken from the file; 6 are missing in it and 2 misshapen"
    plan = describe(deeper)
    assert f"start            weights of {deeper.train.generator.initial_file}: {counts}, 0 of its 11 are unex" in plan
    assert "left out         misshapen body.6.weight: got (48, 8, 3, 3), needs (8, 8, 3, 3)\n" in plan
    assert plan.count("weights of ") == 2, "the discriminator's fit whole"

    run_session(deeper, tmp_path / "straight")
    backend = Backend(deeper.train.runtime, batch_size=deeper.train.data.batch_size)
    session = Session(changed(deeper, run_dir=tmp_path / "run"), backend)
    (note,) = (note for note in session.notes if note.startswith("generator: initial weights"))
    assert counts in note
    assert "\n  missing body.8.weight (8, 8, 3, 3)\n" in note
    session.close()

    run_session(deeper, tmp_path / "run", stop_at=4)
    shutil.rmtree(tmp_path / "files")
    run_session(deeper, tmp_path / "run")
    assert_same_end(tmp_path / "run", tmp_path / "straight")
    tags = [call.get("initial_weights_left_out.generator", "") for call in calls]
    assert [counts in tag for tag in tags] == [True, True, True]
    for run in ("run", "straight"):
        checkpoint = CheckpointStore(RunFolder(tmp_path / run).checkpoints).newest()
        assert checkpoint.images_seen == 8
        (recorded,) = checkpoint.facts["initial_weights_left_out"].items()
        assert (recorded[0], recorded[1][0].startswith(counts)) == ("generator", True)


def test_new_run_whose_discriminator_would_meet_a_random_generator_is_refused_and_an_old_one_resumes(
    preset: Preset, tmp_path: Path
) -> None:
    silent = changed(preset, generator=replace(preset.train.generator, initial_weights=None))
    with pytest.raises(
        ConfigError, match=r"(?s)initial-weights FILE.*pixel-only-images N.*initial-weights random overrides"
    ):
        run_session(silent, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    pixels = changed(silent, losses=replace(preset.train.losses, adversarial_weight=0.0))
    assert run_session(pixels, tmp_path / "pixels")[0].is_finished
    # As earlier versions began it, which did not ask.
    RunFolder(tmp_path / "old").path.mkdir()
    RunFolder(tmp_path / "old").write_config(changed(silent, run_dir=tmp_path / "old"))
    assert run_session(silent, tmp_path / "old")[0].is_finished


def test_discriminator_file_that_does_not_fit_is_refused_before_anything_is_written(
    preset: Preset, tmp_path: Path
) -> None:
    state = {name: tensor.contiguous() for name, tensor in to_sed(PatchDiscriminator(8, 64).state_dict()).items()}
    save_file(state, tmp_path / "d.safetensors")
    options = replace(preset.train.discriminator, initial_weights=tmp_path / "d.safetensors")
    with pytest.raises(
        CheckpointError, match=r"discriminator\.initial_weights: .*do not fit PatchDiscriminator"
    ) as caught:
        run_session(changed(preset, discriminator=options), tmp_path / "run")
    assert "discriminator.initial_weights: " in str(caught.value)
    assert "misshapen fusion1.norm.weight: got (64,), needs (256,)" in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(CheckpointError, match="no such weight file"):
        start_discriminator(replace(options, initial_weights=tmp_path / "typo.pth"), SEMANTIC_CHANNELS, 48)
