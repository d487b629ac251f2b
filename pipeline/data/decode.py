"""Bytes of a shard's member to pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from shards.errors import ShardError

Pixels = np.ndarray
"""(H, W, 3) uint8 RGB."""


def decode_png(payload: bytes, where: str) -> Pixels:
    """Decode one member, whole.

    Raises:
        ShardError: The bytes are no RGB PNG; names the sample.
    """
    try:
        with Image.open(io.BytesIO(payload), formats=["PNG"]) as image:
            if image.mode != "RGB":
                raise ShardError(f"{where}: the image has mode {image.mode}, expected RGB; write the shards again")
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ShardError(f"{where}: the image cannot be decoded ({error}); run jobs/verify.py on the shards") from error
