"""The state of a run: everything that changes while it trains, saved to and restored from checkpoints.

There is no random state to save: every step seeds torch from (run seed, images seen, rank), so a resumed step draws
what an uninterrupted run would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.checkpoint import Checkpoint
from pipeline.errors import CheckpointError
from pipeline.runtime.trainable import OptimizerState, Trainable
from pipeline.train.ema import MovingAverage
from pipeline.train.skips import SkippedUpdates

ACCURACY_HALF_LIFE_IMAGES = 100
"""Of the running mean of the discriminator's accuracy: a few steps, so that it is updated again as soon as it loses,
and hundreds of logits, where it returns one per image."""
AT_CHANCE = 0.5


@dataclass
class TrainingState:
    """The state that steps change.

    Attributes:
        generator: The network that is trained to upscale.
        discriminators: The networks that tell real from fake, by name; none in a run without an adversarial stage.
        average: The generator's moving average.
        skipped: Counts of skipped updates.
        images_seen: The run's clock, and the next sample's position.
        validation_due: Whether the validation at this position was interrupted.
        discriminator_accuracy: Running mean over real and fake images and all discriminators, the same on all ranks;
            followed only if the schedule limits it.
    """

    generator: Trainable
    discriminators: Mapping[str, Trainable]
    average: MovingAverage
    skipped: SkippedUpdates
    images_seen: int = 0
    validation_due: bool = False
    discriminator_accuracy: float = AT_CHANCE
    _networks: dict[str, Trainable] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """The networks by the names of their files in a checkpoint."""
        self._networks = {"generator": self.generator, **self.discriminators}

    def to_checkpoint(self, facts: Mapping[str, Any]) -> Checkpoint:
        """Gather the whole state; its tensors may be the networks' own. All ranks must call."""
        tensors: dict[str, dict[str, Tensor]] = {"average": dict(self.average.module.state_dict())}
        for name, network in self._networks.items():
            tensors[name] = network.weights()
            tensors[f"{name}_optimizer"] = _flat(network.optimizer_state())
        own = {
            "skipped_updates": self.skipped.counts(),
            "validation_due": self.validation_due,
            "discriminator_accuracy": self.discriminator_accuracy,
        }
        return Checkpoint(self.images_seen, tensors, {**facts, **own})

    def load(self, checkpoint: Checkpoint, device: torch.device) -> None:
        """Restore a checkpoint, whatever world size and backend wrote it. All ranks must call.

        Checkpoints of a run that was to end in its pixel stage hold no discriminator. If it is extended, those built
        from the seed are used, which would still be untrained at that point.

        Raises:
            CheckpointError: It belongs to other networks.
        """
        _load_weights(self.average.module, checkpoint, "average")
        for name, network in self._networks.items():
            if name in self.discriminators and name not in checkpoint.tensors:
                continue
            with network.whole(to_load=True):
                _load_weights(network.bare, checkpoint, name)
            network.weights_changed()
            network.load_optimizer_state(_nested(checkpoint.tensors.get(f"{name}_optimizer", {})))
        self.skipped.load(checkpoint.facts.get("skipped_updates", {}), device)
        self.images_seen = checkpoint.images_seen
        self.validation_due = bool(checkpoint.facts.get("validation_due"))
        self.discriminator_accuracy = float(checkpoint.facts.get("discriminator_accuracy", AT_CHANCE))

    def follow_accuracy(self, accuracy: float, num_images: int) -> None:
        """Let the running mean of the discriminator's accuracy follow that of a step, in [0, 1]."""
        kept = 0.5 ** (num_images / ACCURACY_HALF_LIFE_IMAGES)
        self.discriminator_accuracy = kept * self.discriminator_accuracy + (1 - kept) * accuracy


def seed_step(run_seed: int, images_seen: int, rank: int) -> None:
    """Seed torch for one step of one rank (only stochastic depth draws)."""
    text = f"step/{run_seed}/{images_seen}/{rank}"
    torch.manual_seed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def _flat(state: OptimizerState) -> dict[str, Tensor]:
    return {f"{slot}/{name}": tensor for slot, tensors in state.items() for name, tensor in tensors.items()}


def _nested(flat: Mapping[str, Tensor]) -> OptimizerState:
    state: OptimizerState = {}
    for path, tensor in flat.items():
        slot, _, name = path.partition("/")
        state.setdefault(slot, {})[name] = tensor
    return state


def _load_weights(module: nn.Module, checkpoint: Checkpoint, group: str) -> None:
    if group not in checkpoint.tensors:
        raise CheckpointError(f"the checkpoint at {checkpoint.images_seen} images has no {group}; it is of another run")
    try:
        module.load_state_dict(dict(checkpoint.tensors[group]), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint's {group} is another network: {error}") from error
