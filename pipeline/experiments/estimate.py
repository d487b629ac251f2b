"""How long an experiment takes: measured where a run was carried out, else from its operations and a measured rate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.schema import TrainConfig
from pipeline.experiments.execution import Layout, is_trained, read_seconds
from pipeline.experiments.plan import Plan
from pipeline.inference.device import best_device
from pipeline.models.generators import build_generator
from pipeline.run.cost import Cost

_PASSES = 3


@dataclass(frozen=True)
class ArmEstimate:
    """What an arm costs, one seed.

    Attributes:
        cost: Operations and parameters.
        hours: On this machine, one run at a time.
        is_measured: Whether hours are those of runs that were carried out.
    """

    cost: Cost
    hours: float
    is_measured: bool


def estimate(plan: Plan, costs: Mapping[str, Cost]) -> dict[str, ArmEstimate]:
    """Estimate the hours of each arm.

    A finished run gives its arm's seconds and, for the other arms, the operations per second of this machine. Without
    any, the rate of the generator's own passes is measured here, in seconds.
    """
    layout = Layout(plan.folder)
    seconds = {
        arm: [taken for run in plan.of_arm(arm) if is_trained(run) and (taken := read_seconds(layout.seconds(run)))]
        for arm in plan.experiment.arms
    }
    measured = {arm: sum(taken) / len(taken) for arm, taken in seconds.items() if taken}
    if measured:
        rate = sum(costs[arm].flops for arm in measured) / sum(measured.values())
    else:
        rate = measure_rate(plan.runs[0].preset.train)
    return {
        arm: ArmEstimate(cost, measured.get(arm, cost.flops / rate) / 3600, arm in measured)
        for arm, cost in costs.items()
    }


def measure_rate(config: TrainConfig) -> float:
    """Return the operations per second of the generator's forward and backward pass on one crop, on this device."""
    device = best_device()
    generator = build_generator(config.generator, config.data.crop_px).to(device)
    side_px = config.data.crop_px // config.generator.scale
    lq = torch.zeros(1, 3, side_px, side_px, device=device)
    with FlopCounterMode(display=False) as counter:
        generator(lq).mean().backward()
    times = []
    for _ in range(_PASSES):
        start_s = time.monotonic()
        generator(lq).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - start_s)
    return counter.get_total_flops() / min(times)


def describe(plan: Plan, estimates: Mapping[str, ArmEstimate], num_workers: int) -> str:
    """Return the plan and its cost as text."""
    first, num_seeds = plan.runs[0].preset.train, len(plan.runs) // len(plan.experiment.arms)
    total_h = sum(one.hours for one in estimates.values()) * num_seeds
    is_measured = all(one.is_measured for one in estimates.values())
    how = "measured" if is_measured else "estimated from operations at the rate of this machine"
    done = sum(map(is_trained, plan.runs))
    experiment, reads = plan.experiment, (*first.data.shares, *first.report.validation_sets)
    lines = [
        f"experiment       {experiment.title}",
        f"decided by       {experiment.primary}, margin {experiment.margin:g}, against {experiment.baseline}",
        f"budget           {plan.budget_name}: {first.schedule.total_images:,} images a run, crops of "
        f"{first.data.crop_px} px, batches of {first.data.batch_size}",
        f"runs             {len(plan.runs)} = {len(plan.experiment.arms)} arms x {num_seeds} seeds; {done} finished",
        f"hours            {total_h:.3g} one at a time ({how}); {total_h / num_workers:.3g} with {num_workers} at a "
        "time, where the machine bears it",
        *([f"start            {plan.start.preset.train.run_dir}, trained first"] if plan.start is not None else []),
        f"reads            {', '.join(map(str, reads))}",
        f"writes           {plan.folder}",
        "",
        f"{'arm':<24} {'D parameters':>12} {'FLOPs':>9} {'hours':>8}",
    ]
    for arm, one in estimates.items():
        lines.append(f"{arm:<24} {one.cost.discriminator_parameters:>12,} {one.cost.flops:>9.2e} {one.hours:>8.3g}")
    return "\n".join(lines)
