"""Loads a state dict into a network whole, or refuses it with everything that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.errors import CheckpointError

_NUM_FAULTS_SHOWN = 4  # of each kind


@dataclass(frozen=True)
class Misfit:
    """What of a network and of a state dict does not fit each other: one line per entry, with shapes.

    Attributes:
        fitting: Names of the entries that are alike in both; no line, for they fit.
        missing: Entries of the network that the state dict does not have.
        misshapen: Entries of both that have another shape in each.
        unexpected: Entries of the state dict that the network does not have.
    """

    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.misshapen or self.unexpected)

    @property
    def sample(self) -> list[str]:
        """A few lines of each kind, so that a long list of one does not hide the others; the last counts the rest."""
        kinds = (self.missing, self.unexpected, self.misshapen)
        shown = [fault for faults in kinds for fault in faults[:_NUM_FAULTS_SHOWN]]
        hidden = sum(map(len, kinds)) - len(shown)
        return [*shown, f"and {hidden} more"] if hidden else shown


def find_misfit(module: nn.Module, state: Mapping[str, Tensor]) -> Misfit:
    """Compare names and shapes of a network, which may be on the `meta` device, with those of a state dict."""
    wanted = module.state_dict()
    return Misfit(
        fitting=tuple(name for name in wanted if name in state and state[name].shape == wanted[name].shape),
        missing=tuple(f"missing {name} {tuple(wanted[name].shape)}" for name in wanted if name not in state),
        misshapen=tuple(
            f"misshapen {name}: got {tuple(state[name].shape)}, needs {tuple(wanted[name].shape)}"
            for name in wanted
            if name in state and state[name].shape != wanted[name].shape
        ),
        unexpected=tuple(f"unexpected {name} {tuple(state[name].shape)}" for name in state if name not in wanted),
    )


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


def check_fit(module: nn.Module, state: Mapping[str, Tensor], *, partial_option: str = "") -> None:
    """Check that weights fit into a network, which may be on the `meta` device.

    Args:
        module: The network.
        state: Tensors by its own names.
        partial_option: A setting that takes what fits; the error's last line names it, if anything does.

    Raises:
        CheckpointError: See `load_strictly`.
    """
    if misfit := find_misfit(module, state):
        remedy = f"{partial_option}=true takes the {len(misfit.fitting)} that fit, and lists the others"
        lines = [*misfit.sample, *([remedy] if partial_option and misfit.fitting else [])]
        raise CheckpointError(
            f"the weights do not fit {type(module).__name__}. Of its {len(module.state_dict())} entries: "
            f"{len(misfit.missing)} missing, {len(misfit.misshapen)} misshapen; of the {len(state)} given: "
            f"{len(misfit.unexpected)} unexpected. Use weights of this architecture or build the network with their "
            "sizes\n  " + "\n  ".join(lines)
        )
    check_dtypes(module, state)


def check_dtypes(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Check that no entry of a state dict holds integers where the network has weights.

    Raises:
        CheckpointError: Names the first that does.
    """
    for name, tensor in module.state_dict().items():
        if name in state and tensor.is_floating_point() and not state[name].is_floating_point():
            raise CheckpointError(
                f"{name} holds {state[name].dtype} where {type(module).__name__} has floating-point weights: quantized "
                "values mean nothing without their scales; use the file before quantization"
            )
