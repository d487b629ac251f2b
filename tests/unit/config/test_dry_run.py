"""The dry run: what it tells of a run, and that it touches nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from harness import write_photos
from presets import load, with_flags

from pipeline.run.dry_run import describe


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
    text = describe(with_flags("rrdb_sed_p_x4", *flags))
    assert "learning rate    0.0001 from 64, 5e-05 from 3,200,064, 2.5e-05 from 6,400,064 images (discr" in text
    assert text.count("not the paper's") == 1
    assert "schedule.pixel_only_images=64 (the paper: 0)" in text


def test_dry_run_tells_how_the_semantic_map_comes_onto_the_grid() -> None:
    paper = describe(load("rrdb_sed_p_x4")).splitlines()
    assert "semantic map     1024 channels, one cell per 16 px; licence not stated" in paper
    flags = ["--semantics.architecture", "timm:vit_small_patch14_dinov2", "--semantics.layer", "blocks.8"]
    lines = describe(with_flags("rrdb_sed_p_x4", *flags)).splitlines()
    assert "semantics        timm:vit_small_patch14_dinov2 layer blocks.8, online, weights pretrained (frozen)" in lines
    cells = "one cell per 14 px of the image resized by 14/16"
    assert f"semantic map     384 channels, {cells}; licence apache-2.0" in lines
    assert "not the paper's  semantics.architecture=timm:vit_small_patch14_dinov2 (the paper: open_clip:RN50)" in lines


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
    text = describe(with_flags("demo", *flags))
    assert "fusion           modulation, with skip connections, in the encoder\n" in text
    assert "LDL              weight 0.5, against the averaged generator\n" in text


def test_dry_run_knows_a_validation_set_in_any_layout(tmp_path: Path) -> None:
    preset = load("demo")
    there, missing = tmp_path / "Manga109", tmp_path / "Urban100"
    write_photos(there, [(64, 64)])
    report = replace(preset.train.report, validation_sets=(there, missing))
    lines = describe(replace(preset, train=replace(preset.train, report=report))).splitlines()
    assert f"reads            {there}" in lines
    assert f"reads            {missing}  (not there yet)" in lines
