"""A GAN step replayed as one CUDA graph.

A step of these networks launches thousands of kernels, and a fast GPU runs them sooner than the host launches them.
Recorded once, they are launched as a whole. They are the same operations on the same values; a test compares the two.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import fields, replace

import torch
from torch import Tensor

from pipeline.runtime.trainable import Trainable
from pipeline.train.gan_step import Gan, GanStep, StepResult, Turn
from pipeline.train.micro_batches import StepInput

WARMUP_STEPS = 3
"""Steps of a kind that run before it is recorded: they allocate optimizer state, choose algorithms, and compile."""

_Kind = tuple[bool, bool, bool]


class GraphedStep:
    """A `GanStep` that replays another one.

    Requires one process, optimizers built with `capturable=True`, and batches of one shape.

    Args:
        step: The step to record.
    """

    def __init__(self, step: GanStep) -> None:
        self._step = step
        self._num_made = Counter[_Kind]()
        self._recorded: dict[_Kind, _Recording] = {}

    def __call__(self, gan: Gan, batch: StepInput, turn: Turn) -> StepResult:
        """Run a step. A reported one measures more and is rare, so it is not recorded."""
        if turn.is_reported:
            return self._run(gan, batch, turn)
        kind = (
            turn.generator_learning_rate is None,
            turn.discriminator_learning_rate is None,
            turn.discriminator_rests,
        )
        self._num_made[kind] += 1
        if self._num_made[kind] <= WARMUP_STEPS:
            return self._run(gan, batch, turn)
        if kind not in self._recorded:
            self._recorded[kind] = _Recording(self._step, gan, batch, turn)
        return self._recorded[kind].replay(gan, batch, turn)

    def _run(self, gan: Gan, batch: StepInput, turn: Turn) -> StepResult:
        # On a separate stream, as for recording, so that nothing allocated here belongs to the current one.
        current, own = torch.cuda.current_stream(), torch.cuda.Stream()
        own.wait_stream(current)
        with torch.cuda.stream(own), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # it is about to be recorded
            result = self._step(gan, batch, turn)
        current.wait_stream(own)
        return result


class _Recording:
    """The kernels of one kind of step, and the tensors that they read and write."""

    def __init__(self, step: GanStep, gan: Gan, batch: StepInput, turn: Turn) -> None:
        semantics = None if batch.semantics is None else batch.semantics.clone()
        self._batch = StepInput(batch.lq.clone(), batch.gt.clone(), batch.target.clone(), semantics)
        self._rates = [
            None if rate is None else torch.full((), float(rate), device=batch.lq.device)
            for rate in _learning_rates(turn)
        ]
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, which pin batches and write checkpoints, may call CUDA meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            recorded = Turn(self._rates[0], self._rates[1], discriminator_rests=turn.discriminator_rests)
            self._result = step(gan, self._batch, recorded)
        self._norms = [trained.gradient_norms for trained in _trained(gan)]
        torch.cuda.empty_cache()  # the graph has memory of its own

    def replay(self, gan: Gan, batch: StepInput, turn: Turn) -> StepResult:
        """Run a step with other images and learning rates."""
        for field in fields(batch):
            own = getattr(self._batch, field.name)
            if own is not None:
                own.copy_(getattr(batch, field.name))
        for own, rate in zip(self._rates, _learning_rates(turn), strict=True):
            if own is not None and rate is not None:
                own.fill_(float(rate))
        self._graph.replay()
        # Copies: reports and records of skipped updates keep them beyond the next replay.
        for trained, norms in zip(_trained(gan), self._norms, strict=True):
            trained.gradient_norms = None if norms is None else replace(norms, values=norms.values.clone())
        result = self._result
        return StepResult(_copied(result.scalars), _copied(result.skipped))


def _trained(gan: Gan) -> list[Trainable]:
    return [gan.generator, *(adversary.trained for adversary in gan.adversaries)]


def _learning_rates(turn: Turn) -> tuple[float | Tensor | None, float | Tensor | None]:
    return turn.generator_learning_rate, turn.discriminator_learning_rate


def _copied(scalars: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in scalars.items()}
