"""Presets: complete, strict, and every fault told at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness import write_photos

from jobs.command_line import PRESETS, Call, CommandLine, apply_flags
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.plain import structure, to_plain
from pipeline.config.presets import PresetFolder
from pipeline.config.schema import Preset, TrainConfig
from pipeline.errors import ConfigError
from pipeline.inference.semantics import semantic_channels
from pipeline.models.discriminators import build_discriminator
from pipeline.run.dry_run import describe
from pipeline.run.record import random_networks
from shards.config import ShardConfig

PSNR_PRESETS = ["rrdb_psnr_x4", "swinir_psnr_x4", "realworld_rrdb_psnr_x4"]
PAPER_PRESETS = ["rrdb_sed_p_x4", "rrdb_sed_u_x4", "swinir_sed_p_x4", "swinir_sed_u_x4", "realworld_rrdb_sed_u_x4"]


COMMAND = CommandLine("job", "Job.", ())


def load(name_or_path: str) -> Preset:
    return PRESETS.load(name_or_path, Preset)


def parse(*arguments: str) -> Call[TrainConfig]:
    return COMMAND.parse_preset(list(arguments), lambda name: load(name).train)


def test_presets_named_in_the_readme_exist() -> None:
    assert set(PRESETS.names()) == {"demo", "demo_clip", "demo_psnr", *PSNR_PRESETS, *PAPER_PRESETS}


@pytest.mark.parametrize("name", ["demo", "demo_clip", "demo_psnr", *PSNR_PRESETS, *PAPER_PRESETS])
def test_preset_reads_what_its_own_shards_table_writes(name: str) -> None:
    preset = load(name)
    assert preset.train.data.shards == preset.shards.output
    assert preset.train.generator.scale == preset.shards.scale
    assert preset.train.data.crop_px <= preset.shards.sub_image_px


@pytest.mark.parametrize("name", ["demo", *PAPER_PRESETS])
def test_preset_survives_the_way_through_config_json(name: str, tmp_path: Path) -> None:
    preset = load(name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_plain(preset)), encoding="utf-8")
    assert load(str(path)) == preset


@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_paper_preset_starts_from_the_export_of_a_psnr_preset_with_the_same_generator(name: str) -> None:
    start = load(name).train.generator
    assert start.initial_file is not None
    assert len(start.initial_file.parts) == 4
    before = load(start.initial_file.parts[1]).train
    assert RunFolder(before.run_dir).generator == start.initial_file
    assert replace(start, initial_weights=None) == replace(before.generator, initial_weights=None)
    assert not before.is_adversarial
    assert before.data.shards == load(name).train.data.shards


def test_random_initial_weights_are_a_word_and_anything_else_a_file() -> None:
    options = parse("demo", "--generator.initial-weights", "random").config.generator
    assert (options.initial_weights, options.initial_file) == (Path("random"), None)
    assert parse("demo", "--generator.initial-weights", "r.pth").config.generator.initial_file == Path("r.pth")
    assert load("rrdb_psnr_x4").train.generator.initial_file is None


@pytest.mark.parametrize(("pixel_only_images", "clock"), [(16, "run"), (0, "own")])
def test_run_that_is_older_than_the_discriminators_clock_keeps_its_schedule(
    pixel_only_images: int, clock: str, tmp_path: Path
) -> None:
    preset = load("demo")
    preset = replace(preset, train=replace(preset.train, run_dir=tmp_path))
    schedule = replace(preset.train.schedule, pixel_only_images=pixel_only_images)
    preset = replace(preset, train=replace(preset.train, schedule=schedule))
    plain = to_plain(preset)
    del plain["train"]["schedule"]["discriminator_clock"]
    RunFolder(tmp_path).config.write_text(json.dumps(plain), encoding="utf-8")
    assert RunFolder(tmp_path).read_config().train.schedule.discriminator_clock == clock
    if clock == "own":
        RunFolder(tmp_path).check(preset)
    else:
        with pytest.raises(ConfigError, match=r"(?s)clock: the run has 'run'.*Resume with its own: jobs/train_sed.py"):
            RunFolder(tmp_path).check(preset)


@pytest.mark.parametrize("name", [name for name in PAPER_PRESETS if "realworld" not in name])
def test_paper_preset_has_the_papers_hyperparameters(name: str) -> None:
    train = load(name).train
    assert train.num_steps == 300_000
    assert train.schedule.generator_learning_rate == train.schedule.discriminator_learning_rate == 1e-4
    assert train.schedule.betas == (0.9, 0.99)
    factors = [train.schedule.learning_rate_factor(step * 32) for step in (0, 99_999, 100_000, 200_000)]
    assert factors == [1, 1, 0.5, 0.25]
    assert (train.losses.pixel_weight, train.losses.adversarial_weight) == (1.0, 0.01)
    assert train.losses.perceptual_weight == (0.1 if "_p_" in name else 1.0)
    assert (train.semantics.architecture, train.semantics.layer, train.semantics.weights) == (
        *("open_clip:RN50", 3),
        "pretrained",
    )


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("rrdb_sed_p_x4", ["16,697,987", "10,090,433"]),
        ("rrdb_sed_u_x4", ["16,697,987", "10,158,417"]),
        ("swinir_sed_p_x4", ["11,900,199", "10,090,433"]),
        ("realworld_rrdb_sed_u_x4", ["16,697,987", "10,158,417"]),
    ],
)
def test_dry_run_builds_on_the_meta_device_and_touches_nothing(
    name: str, counts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = describe(load(name))
    for count in counts:
        assert f"{count} parameters" in text
    assert "GiB" in text
    assert "learning rate    0.0001 from 0" in text
    assert list(tmp_path.iterdir()) == []


def test_dry_run_tells_what_the_networks_learn_from_and_where_it_leaves_the_paper() -> None:
    lines = describe(load("rrdb_sed_p_x4")).splitlines()
    assert "start            weights of runs/rrdb_psnr_x4/export/generator.safetensors" in lines
    assert "losses           l1 x 1, perceptual vgg19 x 0.1, adversarial vanilla x 0.01" in lines
    assert "optimizers       Adam, betas 0.9 and 0.99, no clipping" in lines
    assert "average          none" in lines
    for network in ("generator", "discriminator"):
        rates = "0.0001 from 0, 5e-05 from 3,200,000, 2.5e-05 from 6,400,000"
        assert f"learning rate    {rates} images ({network})" in lines
    # Each is named; the released extractor normalises by the batch.
    assert [line for line in lines if line.startswith("not the paper's")] == [
        "not the paper's  semantics.batch_statistics=false (the paper: true)",
        "not the paper's  runtime.precision=bf16 (the paper: float32)",
    ]
    flags = ["--runtime.precision", "float32", "--semantics.batch-statistics", "--schedule.pixel-only-images", "64"]
    preset = load("rrdb_sed_p_x4")
    train, _ = apply_flags(preset.train, flags, "job", "Job.")
    text = describe(replace(preset, train=train))
    assert "learning rate    0.0001 from 64, 5e-05 from 3,200,064, 2.5e-05 from 6,400,064 images (discr" in text
    assert text.count("not the paper's") == 1
    assert "schedule.pixel_only_images=64 (the paper: 0)" in text


def test_dry_run_tells_how_the_semantic_map_comes_onto_the_grid() -> None:
    preset = load("rrdb_sed_p_x4")
    assert "semantic map     1024 channels, one cell per 16 px; licence not stated" in describe(preset).splitlines()
    flags = ["--semantics.architecture", "timm:vit_small_patch14_dinov2", "--semantics.layer", "blocks.8"]
    train, _ = apply_flags(preset.train, flags, "job", "Job.")
    lines = describe(replace(preset, train=train)).splitlines()
    assert "semantics        timm:vit_small_patch14_dinov2 layer blocks.8, online, weights pretrained (frozen)" in lines
    cells = "one cell per 14 px of the image resized by 14/16"
    assert f"semantic map     384 channels, {cells}; licence apache-2.0" in lines
    assert "not the paper's  semantics.architecture=timm:vit_small_patch14_dinov2 (the paper: open_clip:RN50)" in lines


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
    parsed = parse("demo", *flags).config.semantics
    assert (parsed.architecture, parsed.layer, parsed.weights) == semantics


def test_semantic_layer_is_a_whole_number_or_a_name() -> None:
    plain = to_plain(load("demo"))
    plain["train"]["semantics"]["layer"] = True
    with pytest.raises(ConfigError, match=r"expected a whole number or a name, got True @ \$.train.semantics.layer"):
        structure(plain, Preset, "preset")
    plain["train"]["semantics"] |= {"layer": 3, "architecture": "resnet50"}
    with pytest.raises(
        ConfigError, match=r"'resnet50' names no vision model; use open_clip:NAME.* @ \$.train.semantics"
    ):
        structure(plain, Preset, "preset")


def test_dry_run_of_a_psnr_preset_has_one_network_and_one_rate() -> None:
    text = describe(load("swinir_psnr_x4"))
    assert "start            random weights\nlosses           l1 x 1\ndiscriminator    none: pixel loss only" in text
    assert "(discriminator)" not in text
    assert "average          half-life of 22,000 images, decay 0.999 per step" in text
    assert "not the paper's" not in text


def test_dry_run_names_ablations_and_ldl() -> None:
    assert "fusion           cross-attention, without skip connections\n" in describe(load("rrdb_sed_p_x4"))
    flags = ["--discriminator.architecture", "unet", "--discriminator.fusion", "modulation", "--discriminator.residual"]
    flags += ["--discriminator.placement", "encoder", "--losses.ldl-weight", "0.5"]
    preset = load("demo")
    train, _ = apply_flags(preset.train, flags, "job", "Job.")
    text = describe(replace(preset, train=train))
    assert "fusion           modulation, with skip connections, in the encoder\n" in text
    assert "LDL              weight 0.5, against the averaged generator\n" in text


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
        apply_flags(load("demo").train, flags, "job", "Job.")
    captured = capsys.readouterr()
    assert words in " ".join((captured.out + captured.err + str(caught.value)).replace("│", " ").split())


def test_faulty_preset_lists_every_fault_with_path_and_nearest_name(tmp_path: Path) -> None:
    text = (PRESETS.path / "demo.toml").read_text(encoding="utf-8")
    path = tmp_path / "faulty.toml"
    text = text.replace("crop_px = 96", "crop_pxx = 96").replace("total_images = 2_800", 'total_images = "many"')
    path.write_text(text.replace('architecture = "patch"', 'architecture = "pach"'), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    message = str(caught.value)
    assert "unknown key 'crop_pxx', did you mean 'crop_px'? @ $.train.data" in message
    assert "expected a whole number, got 'many' @ $.train.schedule.total_images" in message
    assert "no discriminator is named 'pach'; did you mean patch? @ $.train.discriminator" in message
    assert str(path) in message


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# The demo's values are its own matter: it has changed since then.
@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_preset_resolves_to_what_it_was_when_every_file_was_complete(name: str) -> None:
    before = json.loads(Path(__file__).with_name("presets_at_c7a254d.json").read_text(encoding="utf-8"))
    then, now = structure(before[name], Preset, name, from_run_folder=True), load(name)
    own_cache = replace(then.train.data, cache_dir=now.train.data.cache_dir)  # /var/tmp is everybody's
    # Since then the presets name the generator that the paper starts from.
    start = replace(then.train.generator, initial_weights=now.train.generator.initial_weights)
    report = replace(then.train.report, metrics=("psnr_y", "ssim_y", "lpips", "haarpsi", "spectrum"))
    assert now.train == replace(then.train, data=own_cache, generator=start, report=report)
    assert now.shards.recipe_name == then.shards.recipe_name
    assert replace(now.shards, recipe=then.shards.recipe) == then.shards


def test_preset_on_a_base_states_only_what_differs(tmp_path: Path) -> None:
    first = write(tmp_path / "first.toml", 'base = "rrdb_sed_p_x4"\n[train]\nseed = 7\n[train.data]\ncrop_px = 128\n')
    second = write(tmp_path / "second.toml", 'base = "first.toml"\n[train.data]\nbatch_size = 16\n')
    shipped, child, grandchild = load("rrdb_sed_p_x4"), load(str(first)), load(str(second))
    assert child.shards == shipped.shards
    assert child.train == replace(shipped.train, seed=7, data=replace(shipped.train.data, crop_px=128))
    assert grandchild.train == replace(child.train, data=replace(child.train.data, batch_size=16))


def test_preset_that_names_another_architecture_inherits_none_of_the_options(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", 'base = "demo"\n[train.discriminator]\narchitecture = "unet"\n')
    with pytest.raises(ConfigError, match=r"required field missing @ \$.train.discriminator.semantic"):
        load(str(path))


def test_fault_of_a_base_names_the_file_that_holds_it(tmp_path: Path) -> None:
    base = write(tmp_path / "base.toml", 'base = "demo"\n[train]\nseeed = 1\n[train.data]\ncrop_px = 48\n')
    child = write(tmp_path / "child.toml", 'base = "base.toml"\n[train.data]\nbatch_size = "8"\n')
    with pytest.raises(ConfigError) as caught:
        load(str(child))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{child}: 2 fault(s)"
    assert f"  unknown key 'seeed', did you mean 'seed'? @ $.train.seeed in {base}" in lines
    assert "  expected a whole number, got '8' @ $.train.data.batch_size" in lines


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ('"rrdb_sed_q_x4"', "base of preset .*mine.toml: unknown preset 'rrdb_sed_q_x4', did you mean 'rrdb_sed_"),
        ('"other.toml"', "base of preset .*mine.toml: preset file .*other.toml does not exist"),
        ('"mine.toml"', "preset bases form a cycle: .*mine.toml -> .*mine.toml; remove one `base`"),
        ('"back.toml"', "form a cycle: .*mine.toml -> .*back.toml -> .*mine.toml"),
        ("3", "mine.toml: base=3 must be the name of a preset, or a file beside this one"),
    ],
)
def test_base_that_cannot_be_used_is_refused(tmp_path: Path, base: str, words: str) -> None:
    write(tmp_path / "back.toml", 'base = "mine.toml"\n')
    with pytest.raises(ConfigError, match=words):
        load(str(write(tmp_path / "mine.toml", f"base = {base}\n")))


def test_table_alone_is_read_without_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", 'base = "demo"\n[shards]\nvariants = 9\n[train]\nno_such_key = 1\n')
    assert PRESETS.load(str(path), ShardConfig, table="shards").variants == 9
    write(path, "[shard]\nvariants = 9\n")
    with pytest.raises(ConfigError, match=r"mine.toml has no table \[shards\]; got shard"):
        PRESETS.load(str(path), ShardConfig, table="shards")
    write(path, 'base = "demo"\n[shards]\nvariant = 9\n')
    with pytest.raises(ConfigError, match=r"unknown key 'variant', did you mean 'variants'\? @ \$.shards.variant"):
        PRESETS.load(str(path), ShardConfig, table="shards")


def test_folder_of_presets_is_the_callers_choice(tmp_path: Path) -> None:
    write(tmp_path / "mine.toml", 'base = "theirs"\n')
    (tmp_path / "theirs.toml").write_bytes((PRESETS.path / "demo.toml").read_bytes())
    assert PresetFolder(tmp_path).names() == ["mine", "theirs"]
    assert PresetFolder(tmp_path).load("mine", Preset) == load("demo")


def test_preset_with_a_missing_key_is_refused(tmp_path: Path) -> None:
    plain = to_plain(load("demo"))
    del plain["train"]["schedule"]["gamma"]
    with pytest.raises(ConfigError, match=r"required field missing @ \$.train.schedule.gamma"):
        structure(plain, Preset, "preset")


@pytest.mark.parametrize("value", [True, "8", 8.5, None])
def test_batch_size_of_another_type_is_refused_not_converted(value: object) -> None:
    plain = to_plain(load("demo"))
    plain["train"]["data"]["batch_size"] = value
    with pytest.raises(ConfigError, match="batch_size"):
        structure(plain, Preset, "preset")


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rrdb_sed_p_x4'"):
        load("rrdb_sed_px4")


def test_flags_override_the_preset_and_nothing_else() -> None:
    call = parse("demo", "--data.crop-px", "48", "--dry-run")
    config, default = call.config, load("demo").train
    assert call.dry_run
    assert config.data.crop_px == 48
    assert config.schedule == default.schedule


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
        apply_flags(load("demo").train, flags, "job", "Job.")
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert words in " ".join((captured.out + captured.err).replace("│", " ").split())


def test_rule_between_two_tables_is_checked_after_the_flags() -> None:
    with pytest.raises(ConfigError, match=r"every_images=100 is not a multiple of data\.batch_size=8; nearest is 96"):
        apply_flags(load("demo").train, ["--report.every-images", "100"], "job", "Job.")


def test_run_folder_refuses_another_runs_settings_and_names_both_values(tmp_path: Path) -> None:
    run_dir = ("--run-dir", str(tmp_path))
    first = parse("demo", *run_dir).config
    second = parse("demo", *run_dir, "--data.batch-size", "4").config
    third = parse("demo", *run_dir, "--data.num-workers", "3").config
    shards = load("demo").shards
    RunFolder(tmp_path).write_config(Preset(shards, first))
    RunFolder(tmp_path).check(Preset(shards, third))
    with pytest.raises(ConfigError, match=r"train.data.batch_size: the run has 8, the command says 4"):
        RunFolder(tmp_path).check(Preset(shards, second))


@pytest.mark.parametrize("name", ["demo", "demo_clip"])
def test_demo_has_no_frozen_network_with_random_weights(name: str) -> None:
    assert random_networks(load(name).train) == []


def test_demo_starts_from_what_its_psnr_preset_leaves() -> None:
    start, demo = load("demo_psnr").train, load("demo").train
    assert RunFolder(start.run_dir).generator == demo.generator.initial_file
    assert replace(start.generator, initial_weights=None) == replace(demo.generator, initial_weights=None)
    assert not start.is_adversarial


def test_demo_s_logits_depend_on_its_semantics_from_the_start() -> None:
    """As released, without skip connections, a fusion's output is the same for any semantics."""
    torch.manual_seed(0)
    channels = semantic_channels(load("demo").train.semantics)
    image, semantics, others = torch.rand(2, 3, 96, 96), torch.randn(2, channels, 6, 6), torch.randn(2, channels, 6, 6)
    changes = {}
    for residual in (True, False):
        options = replace(load("demo").train.discriminator, residual=residual)
        network = build_discriminator(options, channels, 96).eval()
        with torch.no_grad():
            logits, changed = network(image, semantics), network(image, others)
        changes[residual] = float((changed - logits).abs().mean() / logits.std())
    assert load("demo").train.discriminator.residual
    assert changes[True] > 0.1
    assert changes[False] < 1e-4


def test_dry_run_knows_a_validation_set_in_any_layout(tmp_path: Path) -> None:
    preset = load("demo")
    there, missing = tmp_path / "Manga109", tmp_path / "Urban100"
    write_photos(there, [(64, 64)])
    report = replace(preset.train.report, validation_sets=(there, missing))
    lines = describe(replace(preset, train=replace(preset.train, report=report))).splitlines()
    assert f"reads            {there}" in lines
    assert f"reads            {missing}  (not there yet)" in lines
