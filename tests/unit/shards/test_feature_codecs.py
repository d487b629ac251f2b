"""Codecs of cached features: what they promise of values and bytes; a payload of anyone decodes or is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from shards.errors import InputError, ShardError
from shards.format.codecs import CODECS, Coding
from shards.format.feature_coding import STATE_FILE, find_state, open_coding, write_state
from shards.format.settings import FeatureSettings

SHAPE = (6, 4, 4)
NAMES = CODECS.names
SETTINGS = FeatureSettings("0" * 64, 64, 2, "numbers", "0" * 64, SHAPE, "none")


def feature(seed: int) -> np.ndarray:
    """Channels as layers have them: behind a ReLU, of both signs, large, tiny, constant, filled with zeros."""
    values = np.random.RandomState(seed).standard_normal(SHAPE)
    values[0] = np.maximum(values[0], 0)
    values[2] *= 3000
    values[3] *= 1e-4
    values[4] = -2.5
    values[5] = 0
    return values.astype("<f2")


def bound(name: str) -> Coding:
    codec = CODECS[name]
    return codec.bind(SHAPE, codec.fit(map(feature, range(100, 120))))


@pytest.mark.parametrize("name", ["fp16", "fp16-zstd"])
def test_float16_is_stored_bit_for_bit(name: str) -> None:
    coding = bound(name)
    for seed in range(5):
        decoded = coding.decode(coding.encode(feature(seed)))
        assert decoded.dtype == np.dtype("<f2")
        assert decoded.tobytes() == feature(seed).tobytes()


def test_plain_float16_is_the_bytes_of_old_caches() -> None:
    assert bound("fp16").encode(feature(0)) == feature(0).tobytes()
    assert SETTINGS.extensions == ["000.f16", "001.f16"]
    assert "codec" not in SETTINGS.to_plain()


@pytest.mark.parametrize("name", ["uint8", "uint8-zstd"])
def test_bytes_move_no_value_by_more_than_half_a_step_and_keep_zeros(name: str) -> None:
    coding = bound(name)
    for seed in range(5):
        values = feature(seed).astype(np.float64)
        decoded = coding.decode(coding.encode(feature(seed))).astype(np.float64)
        ranges = np.maximum(values.max((1, 2)), 0) - np.minimum(values.min((1, 2)), 0)
        errors = np.abs(decoded - values).max((1, 2))
        assert np.all(errors <= ranges / 508 * (1 + 1e-5)), errors / ranges
        assert np.any(errors > 0)
        assert np.all(decoded[values == 0] == 0)


def test_payload_of_bytes_is_what_the_format_says() -> None:
    payload = bound("uint8").encode(feature(1))
    channels, cells = SHAPE[0], SHAPE[1] * SHAPE[2]
    steps = struct.unpack_from(f"<{channels}f", payload)
    zeros = payload[4 * channels : 5 * channels]
    numbers = payload[5 * channels :]
    assert len(numbers) == channels * cells
    by_hand = [(numbers[i] - zeros[i // cells]) * steps[i // cells] for i in range(channels * cells)]
    assert np.allclose(bound("uint8").decode(payload).ravel(), by_hand, rtol=1e-6)


def test_compression_changes_no_value_and_saves_bytes() -> None:
    sparse = np.where(feature(1) > 1, feature(1), 0).astype("<f2").repeat(8, 1).repeat(8, 2)
    shape = (sparse.shape[0], sparse.shape[1], sparse.shape[2])
    for name in ("fp16", "uint8"):
        plain, small = (CODECS[codec].bind(shape) for codec in (name, f"{name}-zstd"))
        payloads = plain.encode(sparse), small.encode(sparse)
        assert np.array_equal(plain.decode(payloads[0]), small.decode(payloads[1]))
        assert len(payloads[1]) < len(payloads[0]) / 2


def test_components_of_data_of_that_rank_lose_no_more_than_their_bytes() -> None:
    directions = np.random.RandomState(0).standard_normal((80, 5))

    def cells(seed: int) -> np.ndarray:
        return (directions @ np.random.RandomState(seed).standard_normal((5, 16))).reshape(80, 4, 4)

    codec = CODECS["pca64"]
    state = codec.fit(map(cells, range(10)))
    assert state == codec.fit(map(cells, range(10)))
    coding = codec.bind((80, 4, 4), state)
    decoded = coding.decode(coding.encode(cells(50)))
    assert np.abs(decoded - cells(50)).max() < 0.01 * np.abs(cells(50)).max()
    # Of unrelated values 16 of 80 dimensions are lost; which, a CPU's rounding decides beyond the data's rank.
    other = np.random.RandomState(1).standard_normal((80, 4, 4))
    assert np.linalg.norm(coding.decode(coding.encode(other)) - other) > 0.3 * np.linalg.norm(other)


@pytest.mark.parametrize("name", NAMES)
def test_equal_features_have_equal_bytes_and_none_are_larger_than_said(name: str) -> None:
    noise = np.random.RandomState(3).standard_normal(SHAPE).astype("<f2")
    for values in (feature(2), noise, np.zeros(SHAPE, "<f2")):
        payload = bound(name).encode(values)
        assert payload == bound(name).encode(values.copy())
        channels_last = values.transpose(1, 2, 0).copy().transpose(2, 0, 1)  # as a network may lay them out
        assert payload == bound(name).encode(channels_last)
        assert len(payload) <= CODECS[name].max_bytes(SHAPE)


@pytest.mark.parametrize("name", NAMES)
def test_payload_of_anyone_decodes_to_finite_numbers_or_is_refused(name: str) -> None:
    codec, shape, rng = CODECS[name], (6, 24, 24), np.random.RandomState(4)
    sparse = np.maximum(rng.standard_normal(shape) - 1, 0).astype("<f2")
    coding = codec.bind(shape, codec.fit([sparse]))
    whole = coding.encode(sparse)
    refused = []
    for attempt in range(300):
        payload = bytearray(whole)
        for place in rng.randint(0, len(whole) if attempt % 2 else 80, 1 + attempt % 4):
            payload[place] = rng.randint(0, 256)
        size = len(whole) if attempt % 3 else rng.randint(0, len(whole))
        try:
            decoded = coding.decode(bytes(payload[:size]) + bytes(max(0, attempt % 30 - 20)))
        except ValueError as error:
            refused.append(str(error))
        else:
            assert decoded.shape == shape
            assert decoded.dtype == np.dtype("<f2") or np.isfinite(decoded).all()
    assert len(refused) > 50
    assert {text.split()[0] for text in refused} <= {"has", "does"}


def test_header_that_claims_another_size_is_refused_before_anything_is_decompressed() -> None:
    payload = bytearray(bound("fp16-zstd").encode(feature(3)))
    for place in (4, 12):
        changed = bytearray(payload)
        struct.pack_into("<I", changed, place, 2**31 - 1)
        with pytest.raises(ValueError, match="which claim to be"):
            bound("fp16-zstd").decode(bytes(changed))


def test_codec_that_is_unknown_or_says_something_else_of_its_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="no feature codec is named 'uint9'; did you mean uint8"):
        SETTINGS.coded_by("uint9")
    with pytest.raises(
        InputError, match=r"codec uint8 stores uint8 \(step and zero per channel\); got float16 \(none\)"
    ):
        dataclasses.replace(SETTINGS, codec="uint8")
    with pytest.raises(InputError, match="codec fp16 learns nothing from the data"):
        dataclasses.replace(SETTINGS, codec_state_sha256="0" * 64)


def test_state_is_bound_to_its_settings_by_hash(tmp_path: Path) -> None:
    settings = SETTINGS.coded_by("pca64")
    state = CODECS["pca64"].fit(map(feature, range(3)))
    assert find_state(tmp_path, settings) is None
    named = write_state(tmp_path, settings, state)
    file = tmp_path / STATE_FILE
    assert named.codec_state_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert find_state(tmp_path, settings) == named
    assert open_coding(tmp_path, named).decode(open_coding(tmp_path, named).encode(feature(0))).shape == SHAPE
    others = dataclasses.replace(settings, weights_sha256="1" * 64)
    assert find_state(tmp_path, others) is None
    with pytest.raises(ShardError, match="was fitted for another cache"):
        open_coding(tmp_path, dataclasses.replace(others, codec_state_sha256=named.codec_state_sha256))
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ShardError, match=rf"{STATE_FILE} has the SHA-256 .*, the cache was written with"):
        open_coding(tmp_path, named)
    file.unlink()
    with pytest.raises(ShardError, match=rf"cannot read .*{STATE_FILE}, which codec pca64 needs"):
        open_coding(tmp_path, named)
