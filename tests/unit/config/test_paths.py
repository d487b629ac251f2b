"""Paths as people write them: a home folder, environment variables, and names as long as a file system takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro
from harness import tiny_preset, write_photos

import jobs.train_sed
from jobs.command_line import PRESETS, CommandLine
from jobs.terminal import run_job
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.plain import structure
from pipeline.data.evaluation import read_pair, set_images
from pipeline.errors import CheckpointError, ConfigError
from pipeline.inference.named_model import open_model
from pipeline.metrics.choice import find_metric
from shards.config import ShardConfig
from shards.errors import InputError
from shards.format.expansion import expand
from shards.format.files import clean_stale, fit_name, open_atomic, write_atomically
from shards.format.remote import RemotePath
from shards.format.storage import StoragePath, parse_local_path, parse_path


@dataclass(frozen=True)
class Places:
    """Paths of every kind."""

    model: Annotated[Path, tyro.conf.Positional]
    """A required path."""
    shards: StoragePath = Path("shards")
    """A folder or URL."""
    sets: tuple[Path, ...] = ()
    """Several."""
    picture: Path | None = None
    """One or none."""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("BUCKET", "photos")
    monkeypatch.delenv("NOT_SET", raising=False)


def test_flags_expand_paths_of_every_kind(tmp_path: Path) -> None:
    line = CommandLine("job", "A job.", ("x",))
    flags = ["$SCRATCH/m", "--shards=s3://${BUCKET}/x", "--sets", "~/a", "b$BUCKET", "--picture=~/p.png"]
    home = tmp_path / "home"
    assert line.parse(Places, flags) == Places(
        Path("/scratch/me/m"), RemotePath("s3://photos/x"), (home / "a", Path("bphotos")), home / "p.png"
    )


@pytest.mark.parametrize("arguments", [["$NOT_SET/m"], ["m", "--sets", "a", "$NOT_SET/b"], ["m", "--shards=$NOT_SET"]])
def test_flag_that_names_a_variable_that_is_not_set_ends_with_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        CommandLine("job", "A job.", ("x",)).parse(Places, arguments)
    assert caught.value.code == 2
    text = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "the environment variable NOT_SET, which is not set" in text


def test_presets_expand_paths(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'base = "demo"\n[shards]\nsource = ["~/photos", "$SCRATCH/more"]\noutput = "s3://$BUCKET/out"\n'
        '[train]\nrun_dir = "${SCRATCH}/run"\n[train.semantics]\nweights = "~/clip.pt"\n'
    )
    config = PRESETS.load(str(file), ShardConfig, table="shards")
    assert config.source == (tmp_path / "home/photos", Path("/scratch/me/more"))
    assert config.output == RemotePath("s3://photos/out")
    plain = {"model": "$NOT_SET/m", "shards": "~/s", "sets": [], "picture": None}
    with pytest.raises(ConfigError, match="NOT_SET, which is not set"):
        structure(plain, Places, "here")
    from pipeline.config.schema import Preset

    train = PRESETS.load(str(file), Preset).train
    assert train.run_dir == Path("/scratch/me/run")
    assert train.semantics.weights == str(tmp_path / "home/clip.pt")


def test_base_of_a_preset_and_photos_of_a_metric_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("MINE", str(tmp_path / "home"))
    (tmp_path / "home" / "base.toml").write_text('base = "demo"\n[shards]\nseed = 77\n')
    for base in ("~/base.toml", "$MINE/base.toml"):
        (tmp_path / "mine.toml").write_text(f'base = "{base}"\n')
        assert PRESETS.load(str(tmp_path / "mine.toml"), ShardConfig, table="shards").seed == 77
    (tmp_path / "mine.toml").write_text('base = "$NOT_SET/base.toml"\n')
    with pytest.raises(InputError, match="NOT_SET, which is not set"):
        PRESETS.load(str(tmp_path / "mine.toml"), ShardConfig, table="shards")
    write_photos(tmp_path / "home" / "pristine", [(96, 96)])
    names = {find_metric(f"niqe:{folder}/pristine").name for folder in ("~", "$MINE", str(tmp_path / "home"))}
    assert len(names) == 1


def test_preset_and_model_are_found_in_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine.toml").write_text('base = "demo"\n')
    assert PRESETS.find("~/mine.toml") == tmp_path / "home" / "mine.toml"
    with pytest.raises(CheckpointError, match="no such model"):
        open_model("~/none.safetensors")
    with pytest.raises(InputError, match="NOT_SET"):
        open_model("$NOT_SET/none.safetensors")


def test_path_that_exists_as_it_is_written_is_taken_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cost$NOT_SET").mkdir()
    assert parse_path("cost$NOT_SET") == parse_local_path("cost$NOT_SET") == Path("cost$NOT_SET")
    assert expand("100$") == "100$"  # no name follows
    with pytest.raises(InputError, match="NOT_SET, which is not set"):
        parse_path("s3://bucket/$NOT_SET")


def test_folders_that_end_in_no_name_are_given_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Set5" / "HR").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("Set5/HR")
    monkeypatch.chdir(tmp_path / "Set5")
    for text in (".", "./", "HR/..", "../linked/..", "file://."):
        assert parse_local_path(text) == parse_path(text) == (tmp_path / "Set5").resolve()
    assert parse_local_path("./HR/.") == Path("HR")


def test_file_with_a_name_of_255_bytes_is_written_atomically(tmp_path: Path) -> None:
    for name in ("ü" * 125 + "a.png", "x" * 255):
        assert len(os.fsencode(name)) == 255
        write_atomically(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"
        with open_atomic(tmp_path / name) as stream:
            stream.write(b"more")
            (left,) = [path.name for path in tmp_path.iterdir() if path.name.endswith(".sed-tmp")]
            assert len(os.fsencode(left)) <= 255
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / left).touch()
    assert clean_stale(tmp_path) == 1


def test_derived_name_when_shortened_keeps_its_ending_and_stays_distinct() -> None:
    assert fit_name("short.png") == "short.png"
    names = {fit_name(f"set_{'ü' * 130}{number}.png") for number in range(9)}
    assert len(names) == 9
    assert all(len(os.fsencode(name)) <= 255 and name.endswith(".png") for name in names)


def test_evaluation_image_with_a_name_of_255_bytes_is_paired(tmp_path: Path) -> None:
    from PIL import Image

    name = "x" * 251 + ".png"
    for folder, side_px in (("HR", 16), ("LRx4", 4)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (side_px, side_px)).save(tmp_path / folder / name)
    assert read_pair(set_images(tmp_path, 4)[0], 4).lq.shape == (4, 4, 3)
    (tmp_path / "LRx4" / name).unlink()
    with pytest.raises(InputError, match="has neither"):
        read_pair(set_images(tmp_path, 4)[0], 4)


def test_run_folder_that_was_renamed_resumes_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = tiny_preset(tmp_path)
    preset.train.run_dir.mkdir()
    RunFolder(preset.train.run_dir).write_config(preset)
    preset.train.run_dir.rename("renamed")
    Path("demo").mkdir()  # the name of a preset, not a run folder
    Path("demo", "config.json").mkdir()
    for arguments, folder in (
        (["renamed"], "renamed"),
        ([str(tmp_path / "renamed") + "/"], str(tmp_path / "renamed")),
        (["renamed", "--run-dir", "new"], "new"),
        (["renamed/config.json"], str(preset.train.run_dir)),
        (["demo"], "demo/sed"),
    ):
        assert run_job(jobs.train_sed.main, [*arguments, "--dry-run"]) == 0
        assert f"\nwrites           {folder}: metrics.jsonl" in capsys.readouterr().out
