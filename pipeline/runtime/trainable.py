"""A network with its optimizer, trained by DDP or by a DeepSpeed engine, behind one small interface.

The optimizer's state goes in and out by parameter name, as full float32 tensors: a checkpoint does not know how many
processes wrote it, nor under which backend.

An update whose loss or gradient is not finite on any rank is skipped on every rank, without extra communication: a loss
that is not finite sets its gradient to NaN (`poisoned`), the all-reduce propagates NaN to all ranks, and each of
them sees it in the norm of the same averaged gradient. DDP decides on the device, where a fused optimizer obeys
`found_inf`: no step waits for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from pipeline.runtime.hooks import without_hooks

OptimizerState = dict[str, dict[str, Tensor]]
"""Per optimizer slot (`exp_avg`, `exp_avg_sq`, `step`), the tensor of each parameter by its name."""

_MOMENTS = ("exp_avg", "exp_avg_sq")
_LOSS_SCALE = "loss_scale"
_SCALER_KEYS = {"scale": "scale", "steps_since_change": "_growth_tracker"}


class Trainable(ABC):
    """A network with its optimizer.

    Attributes:
        bare: The network itself: for evaluation, for saving, and for passes that must not reduce gradients.
        gradient_norms: Of the last step, by parameter; None before it, and under ZeRO, which partitions gradients.
    """

    def __init__(self, wrapped: Any, bare: nn.Module) -> None:
        self._wrapped = wrapped
        self.bare = bare
        self.gradient_norms: GradientNorms | None = None

    def __call__(self, *args: Any) -> Any:
        """Run the network so that the next `backward` averages gradients over all ranks."""
        return self._wrapped(*args)

    def accumulate(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Return the context of a micro-batch's forward and backward pass; ranks reduce with the last one."""
        return nullcontext()

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss, averaged over all ranks. Collective."""

    @property
    def can_measure_gradients(self) -> bool:
        """Whether a graph bears a backward pass (`gradient_at`) before that of `backward`."""
        return True

    def gradient_at(self, activation: Tensor, loss: Tensor) -> Tensor:
        """Return this rank's gradient of a loss at an activation, float32; the graph stays for `backward`."""
        (gradient,) = torch.autograd.grad(
            loss, activation, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return gradient.float()

    @abstractmethod
    def step(self, learning_rate: float | Tensor) -> Tensor:
        """Clip, update the weights unless a gradient is not finite, and clear the gradients. Collective.

        Returns:
            1 if the update was skipped, else 0: a 0-dim float32 tensor on the device, the same on all ranks.
            Weights and optimizer are then as before, Adam's count of steps too.
        """

    def whole(self, *, to_load: bool = False) -> AbstractContextManager[Any]:
        """Return the context in which every rank has all of `bare`'s weights, to read or also to load. Collective.

        Inside, `bare` is a plain network: one rank may call it alone.
        """
        return nullcontext()

    def weights(self) -> dict[str, Tensor]:
        """Return all weights and buffers by name; they may be the network's own tensors. Collective."""
        return dict(self.bare.state_dict())

    @abstractmethod
    def optimizer_state(self) -> OptimizerState:
        """Return the optimizer's full state, which may be its own tensors; empty before the first step. Collective."""

    @abstractmethod
    def load_optimizer_state(self, state: OptimizerState) -> None:
        """Restore what `optimizer_state` returned, here or elsewhere. Collective."""

    @abstractmethod
    def weights_changed(self) -> None:
        """Say that `bare`'s weights were loaded from outside, so that copies of them follow. Collective."""


class DdpTrainable(Trainable):
    """One process, or several under DistributedDataParallel.

    Args:
        wrapped: The network as it is called to train.
        bare: The network itself.
        optimizer: A fused one; only those can skip an update on the device.
        gradient_clip_norm: Largest norm of the gradient; 0: no clipping.
        loss_scaler: Scales the loss so that fp16 gradients do not vanish; None or a disabled one: no scaling.

    Raises:
        ValueError: The optimizer is not a fused one.
    """

    def __init__(
        self,
        wrapped: nn.Module,
        bare: nn.Module,
        optimizer: torch.optim.Optimizer,
        gradient_clip_norm: float,
        loss_scaler: GradScaler | None = None,
    ) -> None:
        super().__init__(wrapped, bare)
        _require_fused(optimizer)
        self._scaler = loss_scaler or GradScaler(enabled=False)
        self._optimizer = optimizer
        self._gradient_clip_norm = gradient_clip_norm

    def accumulate(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """See `Trainable`."""
        is_apart = not is_last and isinstance(self._wrapped, DistributedDataParallel)
        return self._wrapped.no_sync() if is_apart else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """See `Trainable`."""
        self._scaler.scale(poisoned(loss)).backward()

    def gradient_at(self, activation: Tensor, loss: Tensor) -> Tensor:
        """See `Trainable`. Scaled on its way, like the gradients of `backward`."""
        scale = self._scaler.scale(torch.ones_like(loss))
        return super().gradient_at(activation, loss * scale) / scale

    def step(self, learning_rate: float | Tensor) -> Tensor:
        """See `Trainable`."""
        self._scaler.unscale_(self._optimizer)
        self.gradient_norms = GradientNorms.of(self.bare)
        norm = self.gradient_norms.total
        if self._gradient_clip_norm:
            nn.utils.clip_grads_with_norm_(self.bare.parameters(), self._gradient_clip_norm, norm)
        _set_learning_rate(self._optimizer, learning_rate)
        skipped = leave_out(self._optimizer, norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.update()
        return skipped

    def optimizer_state(self) -> OptimizerState:
        """See `Trainable`. With the loss scale in a slot of its own."""
        state = _named_state(self.bare, self._optimizer)
        if self._scaler.is_enabled():
            values = self._scaler.state_dict()
            state[_LOSS_SCALE] = {name: torch.tensor(float(values[key])) for name, key in _SCALER_KEYS.items()}
        return state

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """See `Trainable`."""
        moments = {slot: values for slot, values in state.items() if slot != _LOSS_SCALE}
        _restore_named_state(self.bare, self._optimizer, moments)
        if self._scaler.is_enabled() and _LOSS_SCALE in state:
            scale = state[_LOSS_SCALE]
            values = {key: scale[name].item() for name, key in _SCALER_KEYS.items()}
            self._scaler.load_state_dict(self._scaler.state_dict() | values)

    def weights_changed(self) -> None:
        """See `Trainable`. DDP holds no copies."""


class DeepSpeedTrainable(Trainable):
    """One DeepSpeed engine, ZeRO stage 0, 1 or 2: every rank has all weights."""

    def __init__(self, engine: Any, bare: nn.Module) -> None:
        super().__init__(engine, bare)
        self._engine = engine
        self._is_partitioned = engine.zero_optimization_stage() > 0
        self._skipped = torch.zeros((), device=engine.device)
        if not self._is_partitioned:
            _require_fused(engine.optimizer)
            engine.optimizer.register_step_pre_hook(self._judge_gradients)

    @property
    def can_measure_gradients(self) -> bool:
        """See `Trainable`. An engine reduces gradients, and at stage 3 releases weights, in any backward pass."""
        return False

    def backward(self, loss: Tensor) -> None:
        """See `Trainable`."""
        self._engine.backward(poisoned(loss))

    def step(self, learning_rate: float | Tensor) -> Tensor:
        """See `Trainable`."""
        _set_learning_rate(self._engine.optimizer, learning_rate)
        self._engine.step()
        if self._is_partitioned:
            # ZeRO reduces the gradient's norm over all ranks and looks at it itself, waiting for the device.
            self._skipped.fill_(float(not self._engine.was_step_applied()))
        return self._skipped.clone()

    def _judge_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Stage 0 reduces inside `step`, which then calls the plain optimizer; it looks for no such gradient."""
        self.gradient_norms = GradientNorms.of(self.bare)
        self._skipped = leave_out(optimizer, self.gradient_norms.total)

    def optimizer_state(self) -> OptimizerState:
        """See `Trainable`."""
        if not self._is_partitioned:
            return _named_state(self.bare, self._engine.optimizer)
        from deepspeed.utils import safe_get_full_optimizer_state

        step = _first_step(self._engine.optimizer.optimizer)
        if step is None:
            return {}
        state: OptimizerState = {slot: {} for slot in (*_MOMENTS, "step")}
        for name, parameter in self.bare.named_parameters():
            for slot in _MOMENTS:
                value = safe_get_full_optimizer_state(parameter, slot)
                if value is None:
                    raise RuntimeError(f"DeepSpeed gives no {slot} of {name}; this version keeps it elsewhere")
                state[slot][name] = value.detach().cpu().clone()
            state["step"][name] = step.detach().cpu().clone()
        return state

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """See `Trainable`."""
        if not self._is_partitioned:
            _restore_named_state(self.bare, self._engine.optimizer, state)
            return
        if not state:
            return
        from deepspeed.utils import safe_set_full_optimizer_state

        zero = self._engine.optimizer
        self._start_moments(zero.single_partition_of_fp32_groups, state)
        zero._lazy_init_hp_params_optimizer_state()
        for name, parameter in self.bare.named_parameters():
            for slot in _MOMENTS:
                safe_set_full_optimizer_state(parameter, state[slot][name].to(parameter.device), slot)

    def _start_moments(self, partitions: list[Tensor], state: OptimizerState) -> None:
        step = next(iter(state["step"].values()))
        for partition in partitions:
            slots = {slot: torch.zeros_like(partition) for slot in _MOMENTS}
            moments = {"step": step.to(partition.device, copy=True), **slots}
            self._engine.optimizer.optimizer.state[partition] = moments

    def weights_changed(self) -> None:
        """See `Trainable`. ZeRO updates float32 copies of its own partition; they must follow the weights."""
        if not self._is_partitioned:
            return
        from deepspeed.utils import safe_set_full_fp32_param

        for parameter in self.bare.parameters():
            safe_set_full_fp32_param(parameter, parameter.detach().clone())


class PartitionedTrainable(DeepSpeedTrainable):
    """One DeepSpeed engine, ZeRO stage 3: each rank has a part of every weight.

    A module's weights are whole while it runs. All of them at once, for the moving average of each step, a checkpoint
    or an export, are gathered by `whole`.
    """

    @contextmanager
    def whole(self, *, to_load: bool = False) -> Iterator[None]:
        """See `Trainable`. What was loaded inside is taken from rank 0."""
        from deepspeed.runtime.zero.partition_parameters import GatheredParameters

        parameters = list(self.bare.parameters())
        with GatheredParameters(parameters, modifier_rank=0 if to_load else None), without_hooks(self.bare):
            yield

    def weights(self) -> dict[str, Tensor]:
        """See `Trainable`."""
        with self.whole():
            return {name: tensor.detach().cpu().clone() for name, tensor in self.bare.state_dict().items()}

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """See `Trainable`."""
        if not state:
            return
        from deepspeed.utils import safe_set_local_optimizer_state

        self._start_moments(self._engine.optimizer.fp32_partitioned_groups_flat, state)
        for name, parameter in self.bare.named_parameters():
            for slot in _MOMENTS:
                part_size = cast(Any, parameter).ds_tensor.numel()
                own = own_part(state[slot][name], part_size, dist.get_rank())
                safe_set_local_optimizer_state(parameter, own.to(parameter.device), slot)

    def weights_changed(self) -> None:
        """See `Trainable`. The float32 copies follow this rank's part of the weights."""
        self._engine.optimizer.refresh_fp32_params()


def own_part(value: Tensor, part_size: int, rank: int) -> Tensor:
    """Return one rank's part of a tensor, flat, as ZeRO-3 cuts it: in equal parts, the last ones padded with zeros.

    DeepSpeed's own `safe_set_full_optimizer_state` fails where the ranks do not divide the number of elements.
    """
    part = value.flatten()[rank * part_size : (rank + 1) * part_size]
    return torch.nn.functional.pad(part, (0, part_size - part.numel()))


def poisoned(loss: Tensor) -> Tensor:
    """Return the loss; if it is not finite, sets the gradient to NaN so that the all-reduce propagates the failure.

    It need not be NaN by itself: the gradient of |x - NaN|, for instance, is 0.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


@dataclass(frozen=True)
class GradientNorms:
    """Norms of a network's gradients.

    Attributes:
        names: The parameters, in the network's order.
        values: The norm of each one's gradient, on the device.
    """

    names: tuple[str, ...]
    values: Float[Tensor, " parameters"]

    @classmethod
    def of(cls, module: nn.Module) -> GradientNorms:
        """Measure the gradients that the parameters hold."""
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        return cls(tuple(gradients), torch.stack(cast(Any, torch)._foreach_norm(list(gradients.values()))))

    @property
    def total(self) -> Float[Tensor, ""]:
        """The norm of all gradients; not finite if any of them is not."""
        return torch.linalg.vector_norm(self.values)


def leave_out(optimizer: torch.optim.Optimizer, norm: Tensor) -> Tensor:
    """Let a fused optimizer's next step change nothing if the norm is not finite; return 1 then, else 0."""
    skipped = norm.isfinite().logical_not().float()
    # As torch's GradScaler tells a fused optimizer; no class declares it.
    cast(Any, optimizer).found_inf = skipped
    return skipped


def _require_fused(optimizer: torch.optim.Optimizer) -> None:
    if not all(group.get("fused") for group in optimizer.param_groups):
        raise ValueError(
            f"{type(optimizer).__name__} was not built with fused=True; only a fused optimizer can skip an "
            "update without waiting for the device"
        )


def _set_learning_rate(optimizer: Any, learning_rate: float | Tensor) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _first_step(optimizer: torch.optim.Optimizer) -> Tensor | None:
    for state in optimizer.state.values():
        if "step" in state:
            return torch.as_tensor(state["step"], dtype=torch.float32)
    return None


def _named_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> OptimizerState:
    named: OptimizerState = {}
    for name, parameter in module.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            named.setdefault(slot, {})[name] = torch.as_tensor(value).detach()
    return named


def _restore_named_state(module: nn.Module, optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
    for name, parameter in module.named_parameters():
        slots = {slot: values[name] for slot, values in state.items() if name in values}
        # A fused Adam keeps its step beside the parameter, and its moments in the parameter's memory layout.
        optimizer.state[parameter] = {
            slot: value.to(parameter.device, copy=True) if slot == "step" else torch.empty_like(parameter).copy_(value)
            for slot, value in slots.items()
        }
