"""Initial weights of a network: a whole file, or those of its tensors that fit, with a list of what is left out.

A part is never taken silently: names and shapes are compared here, and torch loads the result strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.weights.files import read_weights
from pipeline.weights.strict import check_dtypes, check_fit, find_misfit


@dataclass(frozen=True)
class InitialWeights:
    """Tensors that a network starts from, checked against it; none for random weights.

    Attributes:
        tensors: By the network's own names, of its shapes.
        left_out: A line with counts, then some entries that do not fit; empty where the whole file does.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def load_into(self, network: nn.Module) -> None:
        """Load the tensors; the other entries of the network stay as they are."""
        network.load_state_dict({**network.state_dict(), **self.tensors})


def read_initial_weights(
    network: nn.Module,
    file: Path,
    import_state: Callable[[dict[str, Tensor]], Mapping[str, Tensor]],
    *,
    partial: bool,
    option: str,
) -> InitialWeights:
    """Read a weight file and compare it with the network that is to start from it.

    Args:
        network: Bare; it may be on the `meta` device, and is not changed.
        file: A weight file of any project.
        import_state: Renames the file's tensors to the network's own names.
        partial: Take the tensors that fit by name and shape; otherwise all must.
        option: The setting that names the file, such as `generator.initial_weights`: errors begin with it.

    Raises:
        CheckpointError: The file cannot be read; its tensors do not fit, which are counted and some shown, or of a
            partial start none does; or integers stand where weights belong.
    """
    try:
        state = import_state(read_weights(file))
        if partial:
            return _take_fitting(network, state)
        check_fit(network, state, partial_option=f"{option}_partial")
        return InitialWeights(state)
    except CheckpointError as error:
        raise CheckpointError(f"{option}: {error}") from error


def _take_fitting(network: nn.Module, state: Mapping[str, Tensor]) -> InitialWeights:
    misfit = find_misfit(network, state)
    fitting = {name: state[name] for name in misfit.fitting}
    num_wanted = len(network.state_dict())
    if not fitting:
        raise CheckpointError(
            f"none of the {len(state)} tensors given fits an entry of {type(network).__name__} by name and shape; use "
            "weights of this architecture\n  " + "\n  ".join(misfit.sample)
        )
    check_dtypes(network, fitting)
    if not misfit:
        return InitialWeights(fitting)
    counts = (
        f"{len(fitting)} of {num_wanted} entries of {type(network).__name__} are taken from the file; "
        f"{len(misfit.missing)} are missing in it and {len(misfit.misshapen)} misshapen, "
        f"{len(misfit.unexpected)} of its {len(state)} are unexpected"
    )
    return InitialWeights(fitting, (counts, *misfit.sample))
