"""Flags over a preset: what they change, what they are refused for."""

from __future__ import annotations

from pathlib import Path

import pytest
from presets import flagged, load

from jobs.command_line import CommandLine
from pipeline.errors import ConfigError


def test_flags_override_the_preset_and_nothing_else() -> None:
    command = CommandLine("job", "Job.", ())
    call = command.parse_preset(["demo", "--data.crop-px", "48", "--dry-run"], lambda name: load(name).train)
    config, default = call.config, load("demo").train
    assert call.dry_run
    assert config.data.crop_px == 48
    assert config.schedule == default.schedule


def test_random_initial_weights_are_a_word_and_anything_else_a_file() -> None:
    options = flagged("--generator.initial-weights", "random").generator
    assert (options.initial_weights, options.initial_file) == (Path("random"), None)
    assert flagged("--generator.initial-weights", "r.pth").generator.initial_file == Path("r.pth")
    assert load("rrdb_psnr_x4").train.generator.initial_file is None


@pytest.mark.parametrize(
    ("flags", "semantics"),
    [
        (["--semantics.layer", "blocks.2"], ("timm:tf_efficientnet_lite0", "blocks.2", "package")),
        (["--semantics.layer", "-1"], ("timm:tf_efficientnet_lite0", -1, "package")),
        (
            ["--semantics.architecture", "clip-vit-b16", "--semantics.layer", "12", "--semantics.weights", "openai"],
            ("open_clip:ViT-B-16", 11, "pretrained"),
        ),
    ],
)
def test_vision_model_is_named_by_flags_old_names_included(flags: list[str], semantics: tuple[object, ...]) -> None:
    parsed = flagged(*flags).semantics
    assert (parsed.architecture, parsed.layer, parsed.weights) == semantics


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--discriminator.no-semantic", "--discriminator.residual"], "residual set, but semantic=false builds no"),
        (["--discriminator.placement", "encoder"], "is an option of unet, but discriminator.architecture is patch"),
        (
            ["--losses.ldl-weight", "1", "--schedule.ema-half-life-images", "0"],
            "decay of 0.999 per step is a half-life of 5544",
        ),
    ],
)
def test_ablation_that_would_change_nothing_is_refused(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((SystemExit, ConfigError)) as caught:
        flagged(*flags)
    captured = capsys.readouterr()
    assert words in " ".join((captured.out + captured.err + str(caught.value)).replace("│", " ").split())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data.crop-pxx", "64"], "--data.crop-px"),
        (["--data.crop-px", "65"], "nearest is 64"),
        (["--generator.architecture", "rdb"], "rrdb"),
    ],
)
def test_bad_flag_ends_with_2_and_the_remedy(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        flagged(*flags)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert words in " ".join((captured.out + captured.err).replace("│", " ").split())


def test_rule_between_two_tables_is_checked_after_the_flags() -> None:
    with pytest.raises(ConfigError, match=r"every_images=100 is not a multiple of data\.batch_size=8; nearest is 96"):
        flagged("--report.every-images", "100")
