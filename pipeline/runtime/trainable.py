"""A network with its optimizer, trained by DDP or by a DeepSpeed engine, behind one small face.

The optimizer's state goes in and out by parameter name, as full float32 tensors: a checkpoint does not know how many
processes wrote it, nor under which backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

OptimizerState = dict[str, dict[str, Tensor]]
"""Per optimizer slot (`exp_avg`, `exp_avg_sq`, `step`), the tensor of each parameter by its name."""

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Trainable(ABC):
    """A network that a phase trains.

    Attributes:
        bare: The network itself: for evaluation, for saving, and for passes that must not reduce gradients.
    """

    def __init__(self, wrapped: Any, bare: nn.Module) -> None:
        self._wrapped = wrapped
        self.bare = bare

    def __call__(self, *args: Any) -> Any:
        """Run the network so that the next `backward` averages gradients over all ranks."""
        return self._wrapped(*args)

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss, averaged over all ranks. Collective."""

    @abstractmethod
    def step(self, learning_rate: float) -> None:
        """Clip, update the weights, and clear the gradients. Collective."""

    @abstractmethod
    def optimizer_state(self) -> OptimizerState:
        """Return the optimizer's full state on the CPU; empty before the first step. Collective."""

    @abstractmethod
    def load_optimizer_state(self, state: OptimizerState) -> None:
        """Restore what `optimizer_state` returned, here or elsewhere. Collective."""

    @abstractmethod
    def weights_changed(self) -> None:
        """Say that `bare`'s weights were loaded from outside, so that copies of them follow. Collective."""


class DdpTrainable(Trainable):
    """One process, or several under DistributedDataParallel."""

    def __init__(
        self, wrapped: nn.Module, bare: nn.Module, optimizer: torch.optim.Optimizer, gradient_clip_norm: float
    ) -> None:
        super().__init__(wrapped, bare)
        self._optimizer = optimizer
        self._gradient_clip_norm = gradient_clip_norm

    def backward(self, loss: Tensor) -> None:
        """See `Trainable`."""
        loss.backward()

    def step(self, learning_rate: float) -> None:
        """See `Trainable`."""
        if self._gradient_clip_norm:
            nn.utils.clip_grad_norm_(self.bare.parameters(), self._gradient_clip_norm)
        _set_learning_rate(self._optimizer, learning_rate)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def optimizer_state(self) -> OptimizerState:
        """See `Trainable`."""
        return _named_state(self.bare, self._optimizer)

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """See `Trainable`."""
        _restore_named_state(self.bare, self._optimizer, state)

    def weights_changed(self) -> None:
        """See `Trainable`. DDP holds no copies."""


class DeepSpeedTrainable(Trainable):
    """One DeepSpeed engine, ZeRO stage 0, 1 or 2."""

    def __init__(self, engine: Any, bare: nn.Module) -> None:
        super().__init__(engine, bare)
        self._engine = engine
        self._is_partitioned = engine.zero_optimization_stage() > 0

    def backward(self, loss: Tensor) -> None:
        """See `Trainable`."""
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> None:
        """See `Trainable`."""
        _set_learning_rate(self._engine.optimizer, learning_rate)
        self._engine.step()

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
        step = next(iter(state["step"].values()))
        for partition in zero.single_partition_of_fp32_groups:
            slots = {slot: torch.zeros_like(partition) for slot in _MOMENTS}
            zero.optimizer.state[partition] = {"step": step.clone(), **slots}
        zero._lazy_init_hp_params_optimizer_state()
        for name, parameter in self.bare.named_parameters():
            for slot in _MOMENTS:
                safe_set_full_optimizer_state(parameter, state[slot][name].to(parameter.device), slot)

    def weights_changed(self) -> None:
        """See `Trainable`. ZeRO updates float32 copies of its own partition; they must follow the weights."""
        if not self._is_partitioned:
            return
        from deepspeed.utils import safe_set_full_fp32_param

        for parameter in self.bare.parameters():
            safe_set_full_fp32_param(parameter, parameter.detach().clone())


def _set_learning_rate(optimizer: Any, learning_rate: float) -> None:
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
            named.setdefault(slot, {})[name] = torch.as_tensor(value).detach().cpu().clone()
    return named


def _restore_named_state(module: nn.Module, optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
    for name, parameter in module.named_parameters():
        slots = {slot: values[name] for slot, values in state.items() if name in values}
        # Adam keeps its step on the CPU, and its moments in the parameter's memory layout.
        optimizer.state[parameter] = {
            slot: value.clone() if slot == "step" else torch.empty_like(parameter).copy_(value)
            for slot, value in slots.items()
        }
