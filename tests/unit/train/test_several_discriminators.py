"""Several discriminators in one run: each is updated as if alone, and the generator by the sum of their terms."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from gans import both, descending, losses
from harness import prepare_tiny_data, tiny_preset
from safetensors.torch import load_file
from sessions import lines_of, run_session
from torch import Tensor, nn

import pipeline.run.record
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from pipeline.inference.html_report.curves import curves_of
from pipeline.models.discriminators import PatchDiscriminator, UNetDiscriminator
from pipeline.models.generators import SRVGGNetCompact
from pipeline.run.dry_run import describe
from pipeline.run.record import random_networks
from pipeline.tracking import Trackers
from pipeline.train.gan_step import Adversary, Gan, Turn, gan_step
from pipeline.train.health import GanHealth
from pipeline.train.micro_batches import StepInput
from pipeline.train.report import MetricsFile

CHANNELS = 64
WEIGHTS = {"adversarial": 0.5, "adversarial_2": 0.2}
FURTHER = {
    "adversarial_weight": 0.002,
    "network": {"architecture": "unet", "semantic": False, "num_features": 4, "placement": "decoder"},
}
FEATURES = {
    "adversarial_weight": 0.001,
    "network": {
        "architecture": "features",
        "backbone": "timm:tf_efficientnet_lite0",
        "layers": [1, 3],
        "weights": "random",
        "num_features": 4,
    },
}


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "generator": SRVGGNetCompact(8, 1, 4),
        "discriminator": PatchDiscriminator(8, CHANNELS, residual=True),
        "discriminator_2": UNetDiscriminator(4),
    }


def step_input() -> StepInput:
    drawn = torch.Generator().manual_seed(1)
    gt = torch.rand(3, 3, 32, 32, generator=drawn)
    semantics = torch.randn(3, CHANNELS, 2, 2, generator=drawn)
    return StepInput(torch.rand(3, 3, 8, 8, generator=drawn), gt, gt, semantics)


def moves(*names: str, micro_batch_size: int = 0, turn: Turn | None = None) -> dict[str, Tensor]:
    """How far each network moves in one step of gradient descent against the discriminators of these names."""
    before = networks()
    after = copy.deepcopy(before)
    adversaries = tuple(Adversary(descending(after[name]), name, is_semantic=name == "discriminator") for name in names)
    further = {"adversarial_2": WEIGHTS["adversarial_2"]}
    terms = dataclasses.replace(losses(adversarial_weight=WEIGHTS["adversarial"]), further_weights=further)
    gan = Gan(
        *(descending(after["generator"]), adversaries, terms, before["generator"], contextlib.nullcontext),
        micro_batch_size,
    )
    gan_step(gan, step_input(), turn or (both(1.0) if names else Turn(1.0, None)))
    return {
        f"{name}.{key}": parameter - dict(before[name].named_parameters())[key]
        for name, network in after.items()
        for key, parameter in network.named_parameters()
    }


def part(moved: dict[str, Tensor], network: str) -> Tensor:
    return torch.cat([value.detach().flatten() for name, value in moved.items() if name.startswith(f"{network}.")])


def test_each_discriminator_is_updated_as_if_alone() -> None:
    together = moves("discriminator", "discriminator_2")
    for name in ("discriminator", "discriminator_2"):
        assert part(together, name).abs().max() > 0
        assert torch.equal(part(together, name), part(moves(name), name))


def test_generator_is_updated_by_the_sum_of_the_terms() -> None:
    pixel, first, second, together = (
        part(moves(*names), "generator")
        for names in ((), ("discriminator",), ("discriminator_2",), ("discriminator", "discriminator_2"))
    )
    torch.testing.assert_close(together - pixel, (first - pixel) + (second - pixel), rtol=1e-4, atol=1e-7)
    assert min((first - pixel).abs().max(), (second - pixel).abs().max()) > 1e-5


def test_micro_batches_give_the_updates_of_the_whole() -> None:
    whole, cut = (moves("discriminator", "discriminator_2", micro_batch_size=size) for size in (0, 2))
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_discriminators_that_rest_do_not_move() -> None:
    moved = moves("discriminator", "discriminator_2", turn=Turn(1.0, 1.0, discriminator_rests=True))
    assert not part(moved, "discriminator").any()
    assert not part(moved, "discriminator_2").any()
    assert part(moved, "generator").any()


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preset:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    prepare_tiny_data(tmp_path)
    return tiny_preset(tmp_path, further_discriminators=[FURTHER, FEATURES], **{"losses.adversarial_weight": 0.001})


def test_run_when_interrupted_resumes_all_of_them_to_the_same_bits(preset: Preset, tmp_path: Path) -> None:
    run_session(preset, tmp_path / "whole")
    run_session(preset, tmp_path / "parts", stop_at=16)
    run_session(preset, tmp_path / "parts")
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "parts")
    last = max((tmp_path / "whole" / "checkpoints").iterdir())
    files = sorted(path.name for path in last.glob("*.safetensors"))
    further = [f"discriminator_{number}{part}" for number in (2, 3) for part in ("", "_optimizer")]
    assert {f"{name}.safetensors" for name in further} <= set(files)
    for name in files:
        assert (tmp_path / "parts" / "checkpoints" / last.name / name).read_bytes() == (last / name).read_bytes()


def test_run_reports_and_exports_all_of_them(preset: Preset, tmp_path: Path) -> None:
    run_session(preset, tmp_path / "run")
    line = [line for line in lines_of(tmp_path / "run") if "discriminator_2/real" in line][-1]
    names = ("accuracy_real", "accuracy_fake", "fake", "real_logit", "skipped_updates")
    assert {f"discriminator{which}/{name}" for which in ("", "_2", "_3") for name in names} <= line.keys()
    assert {"generator/adversarial_2", "gradient_share/adversarial_2"} <= line.keys()
    exported = load_file(tmp_path / "run" / "export" / "discriminator_2.safetensors")
    assert exported.keys() == UNetDiscriminator(4).state_dict().keys()
    heads = load_file(tmp_path / "run" / "export" / "discriminator_3.safetensors")
    assert {name.partition(".")[0] for name in heads} == {"heads"}
    titles = [drawing.chart.title for drawing in curves_of(MetricsFile(tmp_path / "run" / "metrics.jsonl")).drawings]
    assert {"Discriminator's accuracy", "Discriminator 2's accuracy"} <= set(titles)


def test_dry_run_names_all_of_them_and_their_memory(preset: Preset) -> None:
    text = describe(preset)
    assert "discriminator_2  unet, " in text
    assert "adversarial vanilla x 0.001, adversarial_2 x 0.002, adversarial_3 x 0.001" in text
    assert "\nfeatures         timm:tf_efficientnet_lite0 layers 1, 3, weights random (frozen)\n" in text
    assert "further_discriminators.0=unet (the paper: none)" in text


def test_shared_pass_with_several_is_refused(preset: Preset) -> None:
    runtime = dataclasses.replace(preset.train.runtime, discriminator_pass="shared")
    shared = dataclasses.replace(preset, train=dataclasses.replace(preset.train, runtime=runtime))
    with pytest.raises(ConfigError, match="or further_discriminators; set --runtime"):
        describe(shared)


def test_frozen_network_with_random_weights_is_named(preset: Preset) -> None:
    assert random_networks(preset.train) == ["the semantic extractor", "the discriminator_3"]


def test_file_of_somebody_in_the_place_of_a_further_export_is_kept(preset: Preset, tmp_path: Path) -> None:
    theirs = tmp_path / "run" / "export" / "discriminator_3.safetensors"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    with pytest.raises(ConfigError, match=r"holds export/discriminator_3\.safetensors, which a run would replace"):
        run_session(preset, tmp_path / "run")
    assert theirs.read_bytes() == b"theirs"


def test_weight_of_none_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"adversarial_weight.*further_discriminators\[0\]"):
        tiny_preset(tmp_path, further_discriminators=[FURTHER | {"adversarial_weight": 0.0}])


def test_health_names_the_discriminator_that_is_at_chance() -> None:
    health = GanHealth(8)
    values = {"discriminator/accuracy_real": 0.7, "discriminator/accuracy_fake": 0.7}
    values |= {"discriminator_2/accuracy_real": 0.5, "discriminator_2/accuracy_fake": 0.5}
    warnings = [warning for position in (4, 8, 12) for warning in health.add(position, values)]
    assert len(warnings) == 1
    assert warnings[0].startswith("discriminator 2 is at chance")
    assert "lower its adversarial_weight in further_discriminators" in warnings[0]


def test_configuration_of_a_run_is_read_back(preset: Preset, tmp_path: Path) -> None:
    run_session(preset, tmp_path / "run", stop_at=4)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["train"]["further_discriminators"]
    assert [one["network"]["architecture"] for one in stored] == ["unet", "features"]
