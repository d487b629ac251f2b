"""A run whose generator is the one that a file holds: one flag, or a table that names nothing but the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import changed, prepare_tiny_data
from sessions import assert_same_end, run_session
from spandrel_sizes import small_options

import pipeline.run.record
from jobs.command_line import PRESETS, apply_flags
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.plain import structure, to_plain
from pipeline.config.schema import Preset
from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.generators import (
    CompactOptions,
    FromFileOptions,
    RRDBNet,
    RRDBOptions,
    SRVGGNetCompact,
    SwinIROptions,
    build_generator,
    resolve_generator,
    save_generator,
)
from pipeline.run.dry_run import describe
from pipeline.run.session import Session
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    preset = prepare_tiny_data(tmp_path_factory.mktemp("from_file"))
    schedule = replace(preset.train.schedule, total_images=8, pixel_only_images=0, milestones_images=(8,))
    return changed(preset, schedule=schedule, data=replace(preset.train.data, crop_px=64, canvas_px=64))


@pytest.fixture(autouse=True)
def nothing_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())


def flagged(preset: Preset, *flags: str) -> Preset:
    train, _ = apply_flags(preset.train, list(flags), "job", "Job.")
    return replace(preset, train=train)


def real_esrgan_file(path: Path, scale: int = 4) -> str:
    """A file as Real-ESRGAN releases them: a pickle with the averaged weights of an RRDBNet."""
    torch.manual_seed(3)
    torch.save({"params_ema": RRDBNet(8, 2, 4, scale).state_dict()}, path)
    return str(path)


def notes(preset: Preset) -> list[str]:
    session = Session(preset, Backend(preset.train.runtime, batch_size=preset.train.data.batch_size))
    try:
        return session.notes
    finally:
        session.close()


def test_file_of_real_esrgan_is_trained_further_by_one_flag(preset: Preset, tmp_path: Path) -> None:
    assert isinstance(preset.train.generator, CompactOptions)
    file = real_esrgan_file(tmp_path / "RealESRGAN_x4plus.pth")
    run = flagged(preset, "--generator.initial-weights", file)
    plan = describe(run)
    assert "generator        rrdb x4, " in plan
    held = "rrdb x4, as in the file: num_features 8, num_blocks 2, growth_channels 4"
    assert f"from file        {held}" in plan
    (note,) = (line for line in notes(changed(run, run_dir=tmp_path / "noted")) if line.startswith("generator: rrdb"))
    assert note.startswith(f"generator: {held}")

    run_session(run, tmp_path / "straight")
    run_session(run, tmp_path / "run", stop_at=4)
    # The same command resumes when the file is gone, and so does the run folder.
    Path(file).unlink()
    gone = flagged(preset, "--generator.initial-weights", file)
    assert run_session(gone, tmp_path / "run")[0].is_finished
    assert_same_end(tmp_path / "run", tmp_path / "straight")
    written = RunFolder(tmp_path / "run").read_config().train.generator
    assert written == replace(resolved(written), initial_weights=Path(file))
    assert run_session(RunFolder(tmp_path / "run").read_config(), tmp_path / "run")[0].is_finished


def resolved(options: Any) -> RRDBOptions:
    assert isinstance(options, RRDBOptions)
    assert (options.scale, options.num_features, options.num_blocks, options.from_file) == (4, 8, 2, True)
    return options


def test_table_that_names_the_file_alone_trains_what_it_holds(preset: Preset, tmp_path: Path) -> None:
    save_generator(tmp_path / "hat.safetensors", build_generator(small_options("HAT")))
    plain = to_plain(preset)
    plain["train"]["generator"] = {"initial_weights": str(tmp_path / "hat.safetensors")}
    alone = structure(plain, Preset, "preset")
    assert isinstance(alone.train.generator, FromFileOptions)
    assert structure(to_plain(alone), Preset, "preset") == alone
    assert "from file        spandrel:HAT x4, as in the file: hyperparameters.embed_dim 16" in describe(alone)
    assert run_session(alone, tmp_path / "run")[0].is_finished
    options = RunFolder(tmp_path / "run").read_config().train.generator
    wanted = replace(small_options("HAT"), initial_weights=tmp_path / "hat.safetensors", from_file=True)
    assert options == wanted
    renamed = flagged(alone, "--generator.architecture", "rrdb", "--generator.num-features", "8",
                      "--generator.num-blocks", "1", "--generator.scale", "4")  # fmt: skip
    assert isinstance(renamed.train.generator, RRDBOptions)


def test_preset_on_a_base_follows_the_file_where_it_says_so(tmp_path: Path) -> None:
    table = '[train.generator]\ninitial_weights = "g.pth"\n'
    for more, follows in (("", False), ("from_file = true\n", True)):
        (tmp_path / "mine.toml").write_text(f'base = "demo"\n{table}{more}')
        assert PRESETS.load(str(tmp_path / "mine.toml"), Preset).train.generator.from_file is follows


def test_flag_of_a_preset_that_takes_a_part_of_a_file_takes_a_part(preset: Preset, tmp_path: Path) -> None:
    generator = replace(preset.train.generator, initial_weights=tmp_path / "old.pth", initial_weights_partial=True)
    options = flagged(changed(preset, generator=generator), "--generator.initial-weights", "g.pth").train.generator
    assert (options.initial_weights, options.from_file) == (Path("g.pth"), False)


def test_what_no_file_tells_is_the_presets(tmp_path: Path) -> None:
    small = SwinIROptions(scale=4, num_features=12, num_blocks=1, layers_per_block=2, num_heads=2, drop_path_rate=0.0)
    save_generator(tmp_path / "g.safetensors", build_generator(replace(small, num_blocks=2, drop_path_rate=0.3)))
    options = resolve_generator(replace(small, initial_weights=tmp_path / "g.safetensors", from_file=True))
    assert isinstance(options, SwinIROptions)
    assert (options.num_blocks, options.drop_path_rate) == (2, 0.0)


def test_file_that_fits_the_preset_leaves_its_options_as_they_are(tmp_path: Path) -> None:
    save_generator(tmp_path / "g.safetensors", SRVGGNetCompact(8, 2, 4, activation="leakyrelu"))
    options = CompactOptions(
        scale=4, num_features=8, num_blocks=2, activation="leakyrelu", initial_weights=tmp_path / "g.safetensors"
    )
    asked = replace(options, from_file=True)
    assert resolve_generator(asked) == asked
    deeper = replace(asked, num_blocks=3)
    assert resolve_generator(deeper) == replace(asked, activation="relu"), "which leaves no trace either"
    assert resolve_generator(replace(deeper, from_file=False)).num_blocks == 3


@pytest.mark.parametrize("more", [["--generator.num-blocks", "2"], ["--generator.initial-weights-partial"]])
def test_flag_beside_others_of_the_generator_asks_for_the_network_of_the_preset(
    preset: Preset, tmp_path: Path, more: list[str]
) -> None:
    file = real_esrgan_file(tmp_path / "r.pth")
    options = flagged(preset, "--generator.initial-weights", file, *more).train.generator
    assert (options.architecture, options.from_file) == ("compact", False)


def test_file_of_another_network_when_the_preset_says_which_is_named_with_what_it_holds(
    preset: Preset, tmp_path: Path
) -> None:
    file = real_esrgan_file(tmp_path / "r.pth")
    run = flagged(preset, "--generator.initial-weights", file, "--generator.num-blocks", "2")
    text = r"(?s)the weights do not fit SRVGGNetCompact.*the file holds rrdb x4; --generator\.from-file trains that"
    with pytest.raises(CheckpointError, match=text):
        run_session(run, tmp_path / "run")


def test_file_of_another_scale_than_the_shards_is_named_with_what_to_do(preset: Preset, tmp_path: Path) -> None:
    file = real_esrgan_file(tmp_path / "x2.pth", scale=2)
    run = flagged(preset, "--generator.initial-weights", file)
    text = r"x2\.pth holds rrdb for x2, but the shards in .* were written for x4; use a file for x4, shards for x2 \("
    for start in (lambda: describe(run), lambda: run_session(run, tmp_path / "run")):
        with pytest.raises(ConfigError, match=text):
            start()
    assert not (tmp_path / "run").exists()


def test_file_of_an_architecture_that_is_not_listed_is_named_with_those_that_are(
    preset: Preset, tmp_path: Path
) -> None:
    from spandrel.architectures.CRAFT import CRAFT

    torch.save({"params_ema": CRAFT(embed_dim=48, depths=[2], num_heads=[2]).state_dict()}, tmp_path / "craft.pth")
    run = flagged(preset, "--generator.initial-weights", str(tmp_path / "craft.pth"))
    text = (
        r"craft\.pth: it holds a network CRAFT.*those tested here are spandrel:ATD.*set SED_UNTESTED_GENERATORS=CRAFT"
    )
    with pytest.raises(CheckpointError, match=text):
        describe(run)


def test_open_table_without_its_file_is_refused_unless_the_run_began(preset: Preset, tmp_path: Path) -> None:
    file = tmp_path / "g.safetensors"
    save_generator(file, SRVGGNetCompact(8, 2, 4))
    run = changed(preset, generator=FromFileOptions(initial_weights=file))
    run_session(run, tmp_path / "run", 4)
    file.unlink()
    assert run_session(run, tmp_path / "run")[0].is_finished
    with pytest.raises(CheckpointError, match=r"generator\.initial_weights: .*no such weight file"):
        resolve_generator(FromFileOptions(initial_weights=file))


def test_whole_file_and_a_part_of_it_are_refused_together() -> None:
    with pytest.raises(ConfigError, match="from_file=true takes the whole file, and initial_weights_partial=true a"):
        CompactOptions(
            scale=4, num_features=8, num_blocks=1, initial_weights=Path("g.pth"), from_file=True,
            initial_weights_partial=True,
        )  # fmt: skip
