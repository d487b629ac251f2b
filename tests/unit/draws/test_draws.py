import numpy as np
import pytest
from scipy import stats

from shards.degradation.draws import Stream, StreamNumber, seed_words, variant_seed
from shards.degradation.operations import OPERATIONS
from shards.errors import InputError

SEED = variant_seed(7, "ab" * 32, 3)


def test_variant_seed_of_known_fields_is_pinned() -> None:
    assert SEED == "01a3e7f3f8388f15f5d9c81a196e9120"


def test_stream_of_a_known_seed_is_pinned() -> None:
    stream = Stream(SEED, 2)
    assert [stream.word() for _ in range(3)] == [4561704167649920213, 14080776084462237633, 7287658648914103162]
    assert stream.uniform(2.0, 3.0) == 2.554894301959244
    assert [stream.integer(-5, 5) for _ in range(8)] == [-5, 4, -5, 1, -1, 2, 0, -2]
    assert [stream.choice([0.2, 0.5, 0.3]) for _ in range(8)] == [0, 0, 1, 2, 1, 1, 0, 1]


def test_streams_keep_their_numbers() -> None:
    names = "CROP PAIRED_CROP END_ORDER END_RESIZE END_SINC END_JPEG"
    assert [StreamNumber[name] for name in names.split()] == [0, 1, 10, 11, 12, 13]
    streams = {name: OPERATIONS[name].streams for name in ("blur", "resize", "noise", "jpeg", "sinc")}
    assert streams == {"blur": (2, 6), "resize": (3, 7), "noise": (4, 8), "jpeg": (5, 9), "sinc": (14, 15)}


def test_variant_seed_of_fields_that_read_alike_differs() -> None:
    seeds = {variant_seed(1, "23", 4), variant_seed(12, "3", 4), variant_seed(1, "2", 34), variant_seed(1, "23", 5)}
    assert len(seeds) == 4


def test_streams_of_different_numbers_are_unrelated() -> None:
    assert len({Stream(SEED, number).word() for number in range(16)}) == 16


def test_integer_covers_its_range_evenly() -> None:
    stream = Stream(SEED, StreamNumber.CROP)
    counts = np.bincount([stream.integer(3, 9) for _ in range(14_000)], minlength=10)
    assert counts[:3].sum() == 0
    assert stats.chisquare(counts[3:]).pvalue > 1e-3


def test_integer_rejects_words_beyond_the_last_full_range(monkeypatch: pytest.MonkeyPatch) -> None:
    words = iter([(1 << 64) - 1, 8])
    stream = Stream(SEED, StreamNumber.CROP)
    monkeypatch.setattr(stream, "word", lambda: next(words))
    assert stream.integer(0, 2) == 8 % 3


def test_choice_never_draws_probability_zero() -> None:
    stream = Stream(SEED, StreamNumber.CROP)
    assert {stream.choice([0.0, 0.5, 0.0, 0.5, 0.0]) for _ in range(200)} == {1, 3}


@pytest.mark.parametrize("probabilities", [[], [0.5, 0.6], [-0.5, 1.5], [float("nan"), 1.0]])
def test_choice_of_impossible_probabilities_is_refused(probabilities: list[float]) -> None:
    with pytest.raises(InputError, match="sum to 1"):
        Stream(SEED, StreamNumber.CROP).choice(probabilities)


@pytest.mark.parametrize("text", ["", "zz" * 16, "ab" * 15])
def test_seed_words_of_a_malformed_seed_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="32 hex"):
        seed_words(text)


def test_variant_seed_of_a_negative_variant_is_refused() -> None:
    with pytest.raises(InputError, match="variant"):
        variant_seed(1, "ab", -1)
    with pytest.raises(InputError, match="empty"):
        variant_seed(1, "", 0)
