"""Any model by the name a user gives it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import tiny_preset

from pipeline.checkpoint import Checkpoint, CheckpointStore, Retention
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.errors import CheckpointError
from pipeline.inference.named_model import open_model
from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.generators import Generator, SRVGGNetCompact, build_generator, save_generator


def saved(path: Path, scale: int = 4) -> SRVGGNetCompact:
    generator = SRVGGNetCompact(4, 1, scale)
    save_generator(path, generator)
    return generator.eval()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_weight_file_when_opened_is_the_generator_with_its_scale(tmp_path: Path, scale: int) -> None:
    given = saved(tmp_path / "x.safetensors", scale)
    model = open_model(str(tmp_path / "x.safetensors"))
    image = torch.rand(1, 3, 5, 7)
    assert model.scale == scale
    assert model.weights == tmp_path / "x.safetensors"
    assert model.run is None
    assert not model.generator.training
    assert torch.equal(model.generator(image), given(image))


def test_torch_file_when_opened_is_unwrapped(tmp_path: Path) -> None:
    given = SRVGGNetCompact(4, 1, 2)
    torch.save({"params_ema": given.state_dict()}, tmp_path / "net.pth")
    assert open_model(str(tmp_path / "net.pth")).scale == 2


def test_run_folder_when_finished_gives_its_export(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.generator.parent.mkdir(parents=True)
    saved(run.generator)
    model = open_model(str(run.path))
    assert model.run == run
    assert model.weights == run.generator


def test_run_folder_when_unfinished_says_how_to_resume(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds no export/generator\.safetensors yet; .*Resume it: jobs/train_sed\.py"
    ):
        open_model(str(tmp_path))


def checkpoint(run: RunFolder, images_seen: int) -> Generator:
    """Save a checkpoint of a run that trains; return the average in it."""
    preset = tiny_preset(run.path.parent)
    average = build_generator(preset.train.generator).eval()
    other = build_generator(preset.train.generator)
    run.path.mkdir(exist_ok=True)
    run.write_config(preset)
    groups = {"average": average.state_dict(), "generator": other.state_dict()}
    CheckpointStore(run.checkpoints, Retention(newest=5)).save(Checkpoint(images_seen, groups, {}))
    return average


def test_run_folder_while_training_gives_the_newest_average(tmp_path: Path) -> None:
    run, image = RunFolder(tmp_path / "run"), torch.rand(1, 3, 5, 7)
    checkpoint(run, 4)
    newest = checkpoint(run, 8)
    model = open_model(str(run.path), unfinished=True)
    assert torch.equal(model.generator(image), newest(image))
    assert not model.generator.training
    assert model.weights == run.checkpoints / "images-0000000008" / "average.safetensors"
    with pytest.raises(CheckpointError, match="a run writes it at its end"):
        open_model(str(run.path))


def test_run_folder_when_the_newest_checkpoint_is_damaged_gives_the_one_before(tmp_path: Path) -> None:
    run, image = RunFolder(tmp_path / "run"), torch.rand(1, 3, 5, 7)
    earlier = checkpoint(run, 4)
    checkpoint(run, 8)
    (run.checkpoints / "images-0000000008" / "average.safetensors").write_bytes(b"cut")
    model = open_model(str(run.path), unfinished=True)
    assert torch.equal(model.generator(image), earlier(image))
    (run.checkpoints / "images-0000000004" / "average.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="holds an intact average"):
        open_model(str(run.path), unfinished=True)


@pytest.mark.parametrize(("exported", "is_export"), [("8", True), ("4", False)])
def test_run_folder_when_extended_gives_what_has_seen_more(tmp_path: Path, exported: str, is_export: bool) -> None:
    run = RunFolder(tmp_path / "run")
    newest = checkpoint(run, 8)
    save_generator(run.generator, newest, {"images_seen": exported})
    assert (open_model(str(run.path), unfinished=True).weights == run.generator) == is_export


def test_name_when_nothing_has_it_lists_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such model: .*models:/NAME@ALIAS"):
        open_model(str(tmp_path / "none.pth"))


def test_file_when_it_is_no_generator_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match=r"text\.safetensors: is a text, not weights"):
        open_model(str(tmp_path / "text.safetensors"))
    torch.save(PatchDiscriminator(4).state_dict(), tmp_path / "discriminator.pth")
    with pytest.raises(
        CheckpointError, match=r"discriminator\.pth: .*a discriminator or another architecture cannot upscale"
    ):
        open_model(str(tmp_path / "discriminator.pth"))
