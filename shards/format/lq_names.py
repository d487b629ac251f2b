"""How the file of an LQ image is named after that of its HR image, in evaluation sets and in folders of pairs."""

from __future__ import annotations

from collections.abc import Sequence

LQ_NAMES = ("{name}", "{name}x{scale}")
"""Names without ending that an LQ image may have, the likeliest first; `{name}` is the HR image's."""


def lq_stems(name: str, scale: int, names: Sequence[str] = LQ_NAMES) -> tuple[str, ...]:
    """Return the names that the LQ of an HR image may have, both without ending.

    Args:
        name: Of the HR image; it may contain folders.
        scale: How many times smaller LQ is.
        names: Templates as in `LQ_NAMES`.
    """
    return tuple(template.format(name=name, scale=scale) for template in names)
