"""Random draws that are identical on every machine and in every version.

A draw is a pure function of (dataset seed, sample, variant, stream): it does not depend on global state, worker or
rank. The bits are Philox4x64-10's, whose raw words NumPy guarantees across versions. NumPy's conversion from words to
numbers has no such guarantee, so the conversion here is our own: additions, multiplications and comparisons only,
exact in IEEE arithmetic on any machine. Golden vectors pin both.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence

import numpy as np

from shards.errors import InputError

NAMESPACE = b"sed-trainer/draws/1"
_POSITIONS = b"sed-trainer/positions/1"
_WORD_VALUES = 1 << 64
_PROBABILITY_TOLERANCE = 1e-9


class StreamNumber(enum.IntEnum):
    """Streams that belong to no operation of a recipe's stages; `Operation.streams` has the numbers of those that do.

    Numbers are part of the data format: append, never renumber or reuse.
    """

    CROP = 0
    PAIRED_CROP = 1
    END_ORDER = 10
    END_RESIZE = 11
    END_SINC = 12
    END_JPEG = 13
    AUGMENTATION = 900


def variant_seed(dataset_seed: int, sample_id: str, variant: int) -> str:
    """The seed of one variant of one sample.

    Args:
        dataset_seed: The seed of the whole dataset, any integer.
        sample_id: Identifies the sample wherever it is stored: the SHA-256 of its pixels in hex.
        variant: Which of the sample's degradations, from 0; the epoch, or the epoch modulo K.

    Returns:
        32 hex characters, the BLAKE2b-128 of the three fields, each preceded by its length so that no two
        different triples read the same.

    Raises:
        InputError: The variant is negative or the sample has no id.
    """
    if variant < 0:
        raise InputError(f"variant must be 0 or more; got {variant}; sample {sample_id}; count variants from 0")
    if not sample_id:
        raise InputError("sample id is empty; give the SHA-256 of the sample's pixels")
    return _digest(NAMESPACE, str(dataset_seed).encode(), sample_id.encode(), str(variant).encode())


def position_seed(run_seed: int, position: int) -> str:
    """The seed of what a training run draws for its sample number `position`, whichever sample that is.

    Returns:
        32 hex characters, as from `variant_seed`; no seed of a variant is equal but by chance.
    """
    return _digest(_POSITIONS, str(run_seed).encode(), str(position).encode())


def _digest(*fields: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for field in fields:
        digest.update(len(field).to_bytes(8, "little"))
        digest.update(field)
    return digest.hexdigest()


def seed_words(seed_hex: str) -> tuple[int, int]:
    """The 128 bits of a seed as two unsigned 64-bit words, little-endian.

    Raises:
        InputError: The text is not 32 hex characters.
    """
    try:
        raw = bytes.fromhex(seed_hex)
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise InputError(f"a seed is 32 hex characters; got {seed_hex!r}; make it with draws.variant_seed")
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


class Stream:
    """The draws of one operation for one variant of one sample, in order.

    Args:
        seed_hex: From `variant_seed` or `position_seed`.
        number: Which stream of this seed; streams of different numbers are independent.

    References:
        Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (Philox4x64-10).
    """

    def __init__(self, seed_hex: str, number: int) -> None:
        key = np.array(seed_words(seed_hex), dtype=np.uint64)
        counter = np.array([0, 0, int(number), 0], dtype=np.uint64)
        self.number = int(number)
        self._philox = np.random.Philox(key=key, counter=counter)

    def word(self) -> int:
        """The next raw word, uniform on [0, 2**64)."""
        return int(self._philox.random_raw())

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number from [low, high), in steps of (high - low) / 2**53; rounding may return `high` itself."""
        return low + (high - low) * ((self.word() >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included, each exactly as likely (by rejection).

        Raises:
            InputError: `high` is below `low`.
        """
        if high < low:
            raise InputError(f"cannot draw an integer from {low} to {high}; the range is empty")
        num_values = high - low + 1
        limit = _WORD_VALUES - _WORD_VALUES % num_values
        word = self.word()
        while word >= limit:
            word = self.word()
        return low + word % num_values

    def choice(self, probabilities: Sequence[float]) -> int:
        """An index, drawn with the given probabilities; one of probability 0 is never drawn.

        Raises:
            InputError: A probability is negative, or they do not sum to 1 within 1e-9.
        """
        if min(probabilities, default=-1.0) < 0 or not abs(sum(probabilities) - 1) <= _PROBABILITY_TOLERANCE:
            raise InputError(f"probabilities must be 0 or more and sum to 1; got {list(probabilities)}")
        threshold = self.uniform()
        likely = [index for index, probability in enumerate(probabilities) if probability > 0]
        reached = 0.0
        for index in likely:
            reached += probabilities[index]
            if threshold < reached:
                return index
        return likely[-1]

    def chance(self, probability: float) -> bool:
        """True with the given probability, in [0, 1]: never at 0, always at 1."""
        return self.uniform() < probability
