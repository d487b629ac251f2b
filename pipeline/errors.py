"""Errors of the pipeline; see `shards.errors.InputError` for how jobs show them."""

from shards.errors import InputError


class ConfigError(InputError):
    """A preset or flag is wrong; lists every fault with its path and the nearest valid name."""


class CheckpointError(InputError):
    """A checkpoint or weight file is missing, damaged, or of another network."""


class NonFiniteError(RuntimeError):
    """Loss or gradient stayed NaN or infinite for too many steps in a row."""
