"""The moving average, the running means of a report, the metrics file, and the learning rate."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from harness import tiny_preset
from torch import Tensor, nn

from pipeline.config.schema import ScheduleConfig
from pipeline.errors import ConfigError, SaveError
from pipeline.train.ema import MovingAverage
from pipeline.train.loop import turn_at
from pipeline.train.report import MetricsFile, RunningMeans


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_average_when_updated_is_the_closed_form() -> None:
    source, decay = network(), 0.75
    average = MovingAverage(source)
    expected = source[0].weight.detach().clone()
    for number in range(5):
        with torch.no_grad():
            source[0].weight.copy_(torch.full((2, 3), float(number)))
        average.update(decay)
        expected = decay * expected + (1 - decay) * number
    assert torch.allclose(average.module[0].weight, expected, rtol=1e-6)


def test_average_when_decay_is_0_copies_the_weights() -> None:
    source = network()
    average = MovingAverage(source)
    with torch.no_grad():
        source[0].weight.add_(1.5)
    average.update(0.0)
    assert torch.equal(average.module[0].weight, source[0].weight)


def test_average_when_buffers_move_has_them_as_they_are() -> None:
    source = network()
    average = MovingAverage(source)
    source(torch.randn(8, 3))
    assert not torch.equal(average.module[1].running_mean, source[1].running_mean)
    average.update(0.999)
    assert torch.equal(average.module[1].running_mean, source[1].running_mean)
    assert int(average.module[1].num_batches_tracked) == 1


def test_average_when_made_is_frozen_and_apart_from_its_source() -> None:
    source = network()
    average = MovingAverage(source)
    assert not average.module.training
    assert source.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    before = average.module[0].weight.clone()
    with torch.no_grad():
        source[0].weight.zero_()
    assert torch.equal(average.module[0].weight, before)


def alone(values: Tensor) -> Tensor:
    return values.double()


def steps() -> list[dict[str, Tensor]]:
    losses = [0.1, 0.7, -2.0, 5.5, 3.25]
    found = [{"pixel": torch.tensor(value)} for value in losses]
    for step in found[2:]:
        step["adversarial"] = step["pixel"] * 2  # a term that begins later has a count of its own
    return found


def means_of(parts: list[dict[str, Tensor]]) -> RunningMeans:
    means = RunningMeans()
    for part in parts:
        means.add(part)
    return means


def test_means_when_taken_are_means_of_each_name_and_start_again() -> None:
    means = means_of(steps())
    assert means.take(alone) == pytest.approx({"pixel": 7.55 / 5, "adversarial": 2 * 6.75 / 3})
    assert means.take(alone) == {}
    means.add({"pixel": torch.tensor(4.0)})
    assert means.take(alone) == {"pixel": 4.0}


@pytest.mark.parametrize("stop", range(6))
def test_report_when_split_over_a_stop_has_the_same_means(stop: int) -> None:
    totals = json.loads(json.dumps(means_of(steps()[:stop]).totals(alone)))  # as facts.json keeps them
    resumed = RunningMeans()
    resumed.load(totals, torch.device("cpu"), is_leader=True)
    for step in steps()[stop:]:
        resumed.add(step)
    assert resumed.take(alone) == means_of(steps()).take(alone)


def test_report_when_resumed_on_three_ranks_counts_what_was_once() -> None:
    totals = means_of(steps()).totals(alone)
    ranks = [RunningMeans() for _ in range(3)]
    for number, rank in enumerate(ranks):
        rank.load(totals, torch.device("cpu"), is_leader=number == 0)
        rank.add({"pixel": torch.tensor(1.0), "adversarial": torch.tensor(1.0)})
    summed = {name: [0.0, 0.0] for name in totals}
    for rank in ranks:
        for name, (total, count) in rank.totals(alone).items():
            summed[name] = [summed[name][0] + total, summed[name][1] + count]
    assert summed["pixel"] == pytest.approx([7.55 + 3, 5 + 3])
    assert summed["adversarial"] == pytest.approx([13.5 + 3, 3 + 3])


def test_totals_when_read_leave_the_sums() -> None:
    means = means_of(steps())
    assert means.totals(alone) == means.totals(alone)
    assert means.take(lambda values: values * 2) == pytest.approx({"pixel": 1.51, "adversarial": 4.5})


def test_metrics_when_rewound_drop_later_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.rewind(0)
    assert not path.exists()
    for images_seen in (4, 8, 8, 12):
        metrics.write(images_seen, {"generator/pixel": 0.5})
    with path.open("a") as stream:
        stream.write('{"images_seen": 8, "generator/pi')
    metrics.rewind(8)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["images_seen"] for line in lines] == [4, 8, 8]
    metrics.write(12, {"generator/pixel": 0.25})
    assert json.loads(path.read_text().splitlines()[-1]) == {"images_seen": 12, "generator/pixel": 0.25}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def schedule(**changes: object) -> ScheduleConfig:
    values: dict[str, object] = {
        "total_images": 100,
        "pixel_only_images": 10,
        "generator_learning_rate": 1e-4,
        "discriminator_learning_rate": 1e-4,
        "betas": (0.9, 0.99),
        "milestones_images": (20, 40),
        "gamma": 0.5,
        "gradient_clip_norm": 0.0,
        "ema_half_life_images": 16.0,
    }
    return ScheduleConfig(**values | changes)  # type: ignore[arg-type]  # values of mixed types by design


@pytest.mark.parametrize(("images_seen", "factor"), [(0, 1.0), (19, 1.0), (20, 0.5), (39, 0.5), (40, 0.25)])
def test_learning_rate_when_a_milestone_is_reached_falls_by_gamma(images_seen: int, factor: float) -> None:
    assert schedule().learning_rate_factor(images_seen) == factor


def test_warm_up_and_cosine_are_torchs_schedulers() -> None:
    ours = schedule(**{"milestones_images": (), "learning_rate_decay": "cosine", "learning_rate_warmup_images": 19})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 20, total_iters=19)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=81)
    theirs = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[19])
    for images_seen in range(100):
        assert ours.learning_rate_factor(images_seen) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        theirs.step()
    assert ours.learning_rate_factor(100) == 0.0
    # The discriminator's rises from its own first step and ends with the run.
    assert ours.learning_rate_factor(10, 10) == ours.learning_rate_factor(0)
    assert ours.learning_rates(10)[1] == ours.discriminator_learning_rate / 20
    assert ours.learning_rates(100) == (0.0, 0.0)


def test_warm_up_meets_the_milestones_unchanged() -> None:
    rising = schedule(**{"learning_rate_warmup_images": 4})
    factors = [rising.learning_rate_factor(images_seen) for images_seen in (0, 1, 3, 4, 20)]
    assert factors == pytest.approx([0.2, 0.4, 0.8, 1.0, 0.5])
    with pytest.raises(ConfigError, match="cosine' takes no milestones_images"):
        schedule(**{"learning_rate_decay": "cosine"})


@pytest.mark.parametrize(
    ("clock", "images_seen", "rates"),
    [
        # The pixel stage has 10 images: the discriminator's first step is at 10, its milestones at 30 and 50.
        ("own", 10, (1.0, 1.0)),
        ("own", 20, (0.5, 1.0)),
        ("own", 29, (0.5, 1.0)),
        ("own", 30, (0.5, 0.5)),
        ("own", 50, (0.25, 0.25)),
        ("run", 20, (0.5, 0.5)),
        ("run", 40, (0.25, 0.25)),
    ],
)
def test_schedule_of_each_network_counts_from_its_own_first_step_or_as_before_from_the_runs(
    clock: str, images_seen: int, rates: tuple[float, float]
) -> None:
    found = schedule(discriminator_clock=clock, generator_learning_rate=1.0, discriminator_learning_rate=1.0)
    assert found.learning_rates(images_seen) == rates


def test_decay_when_a_half_life_has_passed_keeps_a_half_whatever_the_batch() -> None:
    for batch_size in (1, 4, 16):
        assert math.isclose(schedule().ema_decay(batch_size) ** (16 / batch_size), 0.5)
    assert schedule(ema_half_life_images=0.0).ema_decay(4) == 0.0


def test_stage_when_the_pixel_images_are_over_is_adversarial(tmp_path: Path) -> None:
    train = tiny_preset(tmp_path).train
    assert [turn_at(train, images).is_adversarial for images in (0, 7, 8, 20)] == [False, False, True, True]
    plain = tiny_preset(tmp_path, **{"losses.adversarial_weight": 0.0}).train
    assert not turn_at(plain, 20).is_adversarial


def test_metrics_when_their_folder_is_gone_say_so(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"(?s)gone/metrics\.jsonl could not be written: No such file.*free some space"):
        MetricsFile(tmp_path / "gone" / "metrics.jsonl").write(4, {"generator/pixel": 0.5})
