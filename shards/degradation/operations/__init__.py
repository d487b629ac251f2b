"""Degradation operations, by the names that recipes use.

An operation is one file here, which draws, one file in `pipeline/degrade/operations/`, which applies what was drawn,
and one line in the registry of each. (An operation that draws an existing kind of step, as `sinc` does, needs only
the file here.)
"""

from shards.degradation.draws import StreamNumber
from shards.degradation.operation import Operation
from shards.degradation.operations.blur import BLUR
from shards.degradation.operations.jpeg import JPEG
from shards.degradation.operations.noise import NOISE
from shards.degradation.operations.resize import RESIZE
from shards.degradation.operations.sinc import SINC
from shards.registry import Registry


class OperationRegistry(Registry[Operation]):
    """Operations by name, no two of which draw from one stream."""

    def add(self, entry: Operation) -> Operation:
        """Register an operation and return it.

        Raises:
            ValueError: The name or a stream number is taken.
        """
        taken: dict[int, str] = {int(number): number.name for number in StreamNumber}
        taken.update({number: other.name for other in self for number in other.streams})
        first, second = entry.streams
        if first == second or any(number in taken or not 0 <= number < 1 << 32 for number in entry.streams):
            raise ValueError(
                f"streams of operation {entry.name!r} must be two unused numbers below 2**32; got {entry.streams}; "
                f"taken: {taken}"
            )
        return super().add(entry)


OPERATIONS = OperationRegistry("degradation operation", [BLUR, RESIZE, NOISE, JPEG, SINC])

__all__ = ["OPERATIONS", "OperationRegistry"]
