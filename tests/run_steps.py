"""The tensors that the steps of a run would see, those of all ranks together."""

from __future__ import annotations

import contextlib

import torch

from pipeline.config.data import DataConfig
from pipeline.data.samples import RankBatches, TrainingSamples, batches
from pipeline.run.inputs import SemanticSource, StepInputs
from pipeline.train.micro_batches import StepInput


def step_inputs(semantics: SemanticSource | None = None) -> StepInputs:
    return StepInputs(semantics, contextlib.nullcontext, torch.contiguous_format)


def steps_of(data: DataConfig, seed: int, steps: range, world_size: int) -> list[StepInput]:
    samples, inputs = TrainingSamples(data, seed), step_inputs()
    ranks = []
    for rank in range(world_size):
        order = RankBatches(steps.start * data.batch_size, len(steps), data.batch_size, rank, world_size)
        loader = batches(samples, order, 0, pin_memory=False)
        ranks.append([inputs(batch, is_adversarial=False) for batch in loader])
    return [
        StepInput(*(torch.cat([getattr(part, name) for part in parts]) for name in ("lq", "gt", "target")), None)
        for parts in zip(*ranks, strict=True)
    ]


def assert_same_steps(ours: list[StepInput], theirs: list[StepInput]) -> None:
    for step, expected in zip(ours, theirs, strict=True):
        assert torch.equal(step.lq, expected.lq)
        assert torch.equal(step.gt, expected.gt)
        assert torch.equal(step.target, expected.target)
