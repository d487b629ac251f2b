"""Loads a state dict into a network whole, or refuses it with everything that does not fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline.errors import CheckpointError

_NUM_FAULTS_SHOWN = 4  # of each kind


def load_strictly(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights into a network.

    Args:
        module: Changed in place, and only if everything fits.
        state: Tensors by the network's own names, of any floating dtype.

    Raises:
        CheckpointError: Entries are missing, unexpected or of another shape, which are counted and some of each kind
            shown; or integers stand where weights belong.
    """
    check_fit(module, state)
    module.load_state_dict(dict(state))


def check_fit(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Check that weights fit into a network, which may be on the `meta` device.

    Raises:
        CheckpointError: See `load_strictly`.
    """
    wanted = module.state_dict()
    missing = [f"missing {name} {tuple(wanted[name].shape)}" for name in wanted if name not in state]
    unexpected = [f"unexpected {name} {tuple(state[name].shape)}" for name in state if name not in wanted]
    misshapen = [
        f"misshapen {name}: got {tuple(state[name].shape)}, needs {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if missing or unexpected or misshapen:
        raise CheckpointError(
            f"the weights do not fit {type(module).__name__}. Of its {len(wanted)} entries: {len(missing)} missing, "
            f"{len(misshapen)} misshapen; of the {len(state)} given: {len(unexpected)} unexpected. Use weights of "
            "this architecture or build the network with their sizes\n  "
            + "\n  ".join(_sample(missing, unexpected, misshapen))
        )
    for name, tensor in wanted.items():
        if tensor.is_floating_point() and not state[name].is_floating_point():
            raise CheckpointError(
                f"{name} holds {state[name].dtype} where {type(module).__name__} has floating-point weights: quantized "
                "values mean nothing without their scales; use the file before quantization"
            )


def _sample(*kinds: list[str]) -> list[str]:
    """Return a few faults of each kind, so that a long list of one does not hide the others."""
    shown = [fault for faults in kinds for fault in faults[:_NUM_FAULTS_SHOWN]]
    hidden = sum(map(len, kinds)) - len(shown)
    return [*shown, f"and {hidden} more"] if hidden else shown
