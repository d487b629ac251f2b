"""Errors that a user can act on.

Everything raised for bad input derives from `InputError`. The jobs print its text on one screen, without a
traceback, and end with exit code 2. Each text says what is wrong, the value found, where, and what to do.
"""

import reprlib


class InputError(ValueError):
    """The user's input (a path, a file, a setting) cannot be used; the message says what to do."""


class ConfigError(InputError):
    """A preset, flag or recipe is wrong; lists every fault with its path and the nearest valid name."""


class ShardError(InputError):
    """A tar, sidecar or manifest is missing, damaged or of another plan; names the file and the sample."""


class DamageError(ShardError):
    """The bytes of a sample are not those that were written; a replacement sample may be read instead."""


def shown(value: object) -> str:
    """Return a value for an error message: short, however large it is."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
