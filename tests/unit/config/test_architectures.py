"""Options of the architecture that a configuration names: read, overridden by flags, and those of earlier versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from presets import flagged, load
from torch import Tensor, nn

from jobs.command_line import apply_flags
from pipeline.config.plain import structure, to_plain
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from pipeline.models.discriminators import PatchOptions, UNetOptions
from pipeline.models.generators import (
    GENERATORS,
    CompactOptions,
    Generator,
    GeneratorArchitecture,
    GeneratorName,
    GeneratorOptions,
    RRDBOptions,
    SpandrelOptions,
    SwinIROptions,
    build_generator,
    load_generator,
    save_generator,
)

# What the tables of a run folder held at c7a254d, whatever the architecture.
DEMO_START = Path("demo/psnr/export/generator.safetensors")
FLAT_GENERATOR = {
    "architecture": "compact",
    "scale": 4,
    "num_features": 32,
    "num_blocks": 8,
    "growth_channels": 32,
    "layers_per_block": 6,
    "num_heads": 6,
    "window_size": 8,
    "drop_path_rate": 0.1,
    "gradient_checkpointing": False,
    "initial_weights": None,
}
FLAT_DISCRIMINATOR = {
    "architecture": "patch",
    "semantic": True,
    "num_features": 16,
    "fusion": "cross_attention",
    "residual": False,
    "placement": "decoder",
}


def demo_with(**tables: dict[str, Any]) -> dict[str, Any]:
    plain = to_plain(load("demo"))
    plain["train"] |= tables
    return plain


def test_run_folder_of_an_earlier_version_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(demo_with(generator=FLAT_GENERATOR, discriminator=FLAT_DISCRIMINATOR)))
    train = load(str(path)).train
    assert train.generator == CompactOptions(scale=4, num_features=32, num_blocks=8)
    assert train.discriminator == PatchOptions(semantic=True, num_features=16)


def test_run_folder_with_a_key_that_no_architecture_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(demo_with(generator=FLAT_GENERATOR | {"num_heds": 6})))
    with pytest.raises(ConfigError, match="unknown key 'num_heds'"):
        load(str(path))


def test_preset_with_the_option_of_another_architecture_is_refused_with_the_nearest_name() -> None:
    table = {"architecture": "rrdb", "scale": 4, "num_features": 8, "num_blocks": 1, "growth_channel": 4}
    with pytest.raises(ConfigError, match=r"unknown key 'growth_channel', did you mean 'growth_channels'"):
        structure(demo_with(generator=table), Preset, "preset")
    with pytest.raises(ConfigError, match=r"unknown key 'placement'.* @ \$\.train\.discriminator"):
        structure(demo_with(discriminator=FLAT_DISCRIMINATOR), Preset, "preset")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"scale": 4}, "required field missing: architecture, one of rrdb, swinir, compact"),
        ({"architecture": 3}, "architecture must be one of rrdb, swinir, compact, .*; got 3"),
        ("rrdb", "expected a table, got 'rrdb'"),
        ({"architecture": "swinirr"}, "no generator is named 'swinirr'; did you mean swinir"),
        ({"architecture": "swinir", "scale": 4, "num_features": 6, "num_blocks": 1, "num_heads": []}, "a list of them"),
    ],
)
def test_table_of_a_generator_that_cannot_be_read_is_refused_with_its_place(table: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"{text}.* @ \$\.train\.generator"):
        structure(demo_with(generator=table), Preset, "preset")


def test_sizes_for_each_block_survive_the_way_through_config_json(tmp_path: Path) -> None:
    table = {"architecture": "swinir", "scale": 4, "num_features": 12, "num_blocks": 2, "num_heads": [2, 3]}
    preset = structure(demo_with(generator=table), Preset, "preset")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_plain(preset)))
    assert load(str(path)) == preset
    assert preset.train.generator == SwinIROptions(scale=4, num_features=12, num_blocks=2, num_heads=(2, 3))


def test_flag_of_another_architecture_keeps_what_both_know() -> None:
    wanted = RRDBOptions(scale=4, num_features=48, num_blocks=10, initial_weights=DEMO_START)
    assert flagged("--generator.architecture", "rrdb").generator == wanted
    paper = flagged(
        "--generator.num-features", "60", "--generator.architecture=swinir", "--generator.num-heads", "2", "3",
        preset="rrdb_sed_p_x4",
    )  # fmt: skip
    start = Path("runs/rrdb_psnr_x4/export/generator.safetensors")
    wanted = SwinIROptions(scale=4, num_features=60, num_blocks=23, num_heads=(2, 3), initial_weights=start)
    assert paper.generator == wanted
    unet = flagged("--discriminator.architecture", "unet", "--discriminator.placement", "encoder").discriminator
    assert unet == UNetOptions(semantic=True, num_features=16, residual=True, placement="encoder")


def test_hyperparameters_of_spandrel_come_from_a_table_or_a_flag_and_survive_config_json(tmp_path: Path) -> None:
    sizes = {"embed_dim": 144, "depths": [6, 6], "upsampler": "pixelshuffle", "qkv_bias": False}
    table = {"architecture": "spandrel:HAT", "scale": 4, "hyperparameters": sizes}
    preset = structure(demo_with(generator=table), Preset, "preset")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_plain(preset)))
    assert load(str(path)) == preset
    words = ["embed_dim=144", "depths=[6,6]", "upsampler=pixelshuffle", "qkv_bias=False"]
    options = flagged("--generator.architecture", "spandrel:HAT", "--generator.hyperparameters", *words).generator
    assert options == SpandrelOptions(
        architecture=GeneratorName("spandrel:HAT"), scale=4, hyperparameters=sizes, initial_weights=DEMO_START
    )


def test_hyperparameters_of_one_architecture_are_not_taken_over_by_another() -> None:
    table = {"architecture": "spandrel:HAT", "scale": 2, "hyperparameters": {"embed_dim": 144}}
    train = structure(demo_with(generator=table), Preset, "preset").train
    options = apply_flags(train, ["--generator.architecture", "spandrel:ATD"], "job", "Job.")[0].generator
    assert options == SpandrelOptions(architecture=GeneratorName("spandrel:ATD"), scale=2)


@pytest.mark.parametrize("word", ["embed_dim", "=3"])
def test_hyperparameter_flag_that_is_no_pair_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flagged("--generator.architecture", "spandrel:HAT", "--generator.hyperparameters", word)
    assert "NAME=VALUE" in capsys.readouterr().err


def test_unknown_architecture_of_spandrel_is_refused_with_those_that_are_tested() -> None:
    text = (
        r"(?s)no generator is named 'spandrel:CRAFT'.*those tested here are spandrel:ATD.*SED_UNTESTED_GENERATORS=CRAFT"
    )
    with pytest.raises(ConfigError, match=text):
        flagged("--generator.architecture", "spandrel:CRAFT")
    with pytest.raises(ConfigError, match=text):
        structure(demo_with(generator={"architecture": "spandrel:CRAFT", "scale": 4}), Preset, "preset")


def test_sizes_that_do_not_fit_the_new_architecture_are_refused_with_both_values() -> None:
    generator = flagged("--generator.architecture", "swinir", preset="rrdb_sed_p_x4").generator
    with pytest.raises(ConfigError, match=r"generator swinir: embed_dim must be a multiple of every num_heads; got 64"):
        build_generator(generator)


def test_help_and_refusal_list_the_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--help"], ["--generator.architecture", "rdb"]):
        with pytest.raises(SystemExit):
            flagged(*flags)
        captured = capsys.readouterr()
        assert "rrdb,swinir,compact" in "".join((captured.out + captured.err).replace("'", "").split())


@dataclass(frozen=True, kw_only=True)
class ToyOptions(GeneratorOptions):
    architecture: GeneratorName = GeneratorName("toy")
    kernel_px: int
    """Side of the kernel."""


class Toy(Generator):
    smallest_side_px = 8

    def __init__(self, scale: int, kernel_px: int) -> None:
        super().__init__()
        self.scale = scale
        self.toy = nn.Conv2d(3, 3 * scale**2, kernel_px, padding=kernel_px // 2)

    def forward(self, lq: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.toy(lq), self.scale)


class ToyArchitecture(GeneratorArchitecture[ToyOptions]):
    name = "toy"
    options = ToyOptions
    network = Toy
    modelspec = "toy"

    def build(self, options: ToyOptions) -> Toy:
        return Toy(options.scale, options.kernel_px)

    def recognise(self, state: Mapping[str, Tensor], scale: int | None) -> ToyOptions | None:
        if "toy.weight" not in state:
            return None
        channels, _, kernel_px, _ = state["toy.weight"].shape
        return ToyOptions(scale=int((channels // 3) ** 0.5), kernel_px=kernel_px)


@pytest.fixture
def toy() -> Iterator[None]:
    GENERATORS.add(ToyArchitecture())
    yield
    del GENERATORS._entries["toy"]


@pytest.mark.usefixtures("toy")
def test_generator_registered_from_outside_is_configured_built_saved_and_loaded(tmp_path: Path) -> None:
    options = flagged("--generator.architecture", "toy", "--generator.kernel-px", "5").generator
    assert options == ToyOptions(scale=4, kernel_px=5, initial_weights=DEMO_START)
    preset = structure(demo_with(generator=to_plain(options)), Preset, "preset")
    assert preset.train.generator == options
    generator = build_generator(options)
    save_generator(tmp_path / "toy.safetensors", generator)
    loaded = load_generator(tmp_path / "toy.safetensors")
    lq = torch.rand(1, 3, 4, 6)
    assert torch.equal(loaded(lq), generator(lq))


@pytest.mark.usefixtures("toy")
def test_crops_that_are_too_small_for_a_generator_are_refused() -> None:
    options = ToyOptions(scale=4, kernel_px=3)
    assert build_generator(options, crop_px=32).scale == 4
    with pytest.raises(ConfigError, match=r"crop_px=16 is too small for the toy generator, .* 32 px at scale 4"):
        build_generator(options, crop_px=16)


@pytest.mark.usefixtures("toy")
def test_option_that_only_the_new_architecture_requires_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flagged("--generator.architecture", "toy")
    assert "--generator.kernel-px" in capsys.readouterr().err
