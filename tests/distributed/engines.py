"""Two networks under each way to train them, on two gloo ranks, one way after another in the same processes."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from gans import losses, report
from harness import runtime_config
from torch import Tensor, nn

from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.generators import RRDBNet
from pipeline.runtime.backend import Backend
from pipeline.runtime.trainable import OptimizerState
from pipeline.train.ema import MovingAverage
from pipeline.train.gan_step import Adversary, Gan, Turn, gan_step, gan_step_shared_pass
from pipeline.train.micro_batches import StepInput
from pipeline.train.skips import SkippedUpdates
from pipeline.train.state import TrainingState

BATCH = 4
CHANNELS = 64
ENGINES: dict[str, int | None] = {"ddp": None, "zero 0": 0, "zero 1": 1, "zero 2": 2, "zero 3": 3}
"""Name to ZeRO stage; None is DDP."""


def step_input(number: int, rows: slice = slice(None)) -> StepInput:
    """The rows of one step's batch; every rank draws the whole batch and keeps its own."""
    drawn = torch.Generator().manual_seed(number)
    lq = torch.rand(BATCH, 3, 12, 12, generator=drawn)[rows]
    gt = torch.rand(BATCH, 3, 48, 48, generator=drawn)[rows]
    semantics = torch.rand(BATCH, CHANNELS, 3, 3, generator=drawn)[rows]
    return StepInput(lq, gt, gt, semantics)


def build_networks() -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator, the same on every rank."""
    torch.manual_seed(0)
    return RRDBNet(8, 1, 4, 4), PatchDiscriminator(8, CHANNELS)


def open_backend(
    engine: str, folder: Path, *, batch_size: int = BATCH, gradient_clip_norm: float = 0.0, **runtime: Any
) -> Backend:
    """Build a backend as the launcher's environment for this engine would have it.

    Leave it to the next call: only the last one is closed, with the process group.
    """
    launch_as(engine, folder)
    return Backend(runtime_config(**runtime), batch_size=batch_size, gradient_clip_norm=gradient_clip_norm)


def launch_as(engine: str, folder: Path) -> None:
    """Make this process's environment what a launcher would make it for the engine, whatever came before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    stage = ENGINES[engine]
    os.environ["ACCELERATE_USE_DEEPSPEED"] = str(stage is not None).lower()
    if stage is not None:
        path = folder / f"zero{stage}-rank{os.environ.get('RANK', '0')}.json"
        # The buckets' default of 500 million elements would cost more than all else here.
        zero: dict[str, Any] = {"stage": stage, "overlap_comm": False, "reduce_bucket_size": 100_000}
        if stage == 3:
            # Or weights as small as these would stay whole on every rank.
            zero["stage3_param_persistence_threshold"] = 0
        path.write_text(json.dumps({"zero_optimization": zero}))
        os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(path)


class Pair:
    """Both networks, and this rank's rows of a batch.

    Args:
        backend: Ranks.
        optimizer: Class of both optimizers; Adam, or SGD to see gradients as they are.
        learning_rate: Of both.
        loss_factor: Of the generator's loss, whose learning rate is divided by it.
        shares: One pass on the output for both updates.
        micro_batch_size: See `Gan`.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
        learning_rate: float = 1e-3,
        loss_factor: float = 1.0,
        shares: bool = False,
        micro_batch_size: int = 0,
    ) -> None:
        share = backend.micro_batch_size
        self.rows = slice(backend.rank * share, (backend.rank + 1) * share)
        self.learning_rate, self.loss_factor = learning_rate, loss_factor
        self.networks = build_networks()
        self.average = MovingAverage(self.networks[0])
        self.trained = [
            backend.wrap(network, optimizer(network.parameters(), lr=1.0, fused=True)) for network in self.networks
        ]
        terms = losses(loss_factor, adversarial_weight=0.1 * loss_factor)
        generator, discriminator = self.trained
        adversaries = (Adversary(discriminator),)
        self.gan = Gan(generator, adversaries, terms, self.average.module, backend.autocast, micro_batch_size)
        self.gan_step = gan_step_shared_pass if shares else gan_step
        self.state = TrainingState(generator, {"discriminator": discriminator}, self.average, SkippedUpdates(limit=9))

    def step(self, step: StepInput, turn: Turn | None = None) -> dict[str, Tensor]:
        """Both updates, or those of the turn; returns scalars and flags."""
        turn = turn or Turn(self.learning_rate / self.loss_factor, self.learning_rate)
        result = self.gan_step(self.gan, step, turn)
        with self.trained[0].whole():
            self.average.update(0.9)
        return report(result)

    def weights(self) -> list[dict[str, Tensor]]:
        """Weights and buffers of both."""
        return [copy.deepcopy(trained.weights()) for trained in self.trained]

    def parameters(self) -> list[dict[str, Tensor]]:
        """Weights of both, without the vectors of the spectral norms, which move with every pass."""
        return [
            {name: value for name, value in weights.items() if not name.endswith(("weight_u", "weight_v"))}
            for weights in self.weights()
        ]

    def optimizer_states(self) -> list[OptimizerState]:
        """Copies of both."""
        return [copy.deepcopy(trained.optimizer_state()) for trained in self.trained]
