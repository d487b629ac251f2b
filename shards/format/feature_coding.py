"""The codec of a feature cache, ready to use; what a fitted codec learned lies in a file beside the tars.

The file is the SHA-256 of the settings that it was fitted for, 32 bytes, then what the codec learned. The settings of
the cache hold the SHA-256 of the file, so every tar is bound to it.
"""

from __future__ import annotations

import dataclasses
import hashlib

from shards.errors import ShardError
from shards.format.codecs import CODECS, Coding
from shards.format.documents import digest_of
from shards.format.files import write_atomically
from shards.format.settings import FeatureSettings
from shards.format.storage import StoragePath, read_whole

STATE_FILE = "codec.bin"
_REMEDY = "restore it, or write the features again into a new folder with jobs/cache_features.py"


def open_coding(folder: StoragePath, settings: FeatureSettings) -> Coding:
    """Return the codec of a cache.

    Args:
        folder: Of the cache.
        settings: From its manifest or a header.

    Raises:
        ShardError: What the codec learned is missing, damaged, or of another cache.
    """
    codec = CODECS[settings.codec]
    if not codec.is_fitted:
        return codec.bind(settings.shape)
    path = folder / STATE_FILE
    size_bytes = len(_owner(settings)) + codec.state_bytes(settings.shape)
    try:
        raw = read_whole(path, size_bytes)
    except OSError as error:
        raise ShardError(f"cannot read {path}, which codec {codec.name} needs: {error}; {_REMEDY}") from error
    found = hashlib.sha256(raw).hexdigest()
    if found != settings.codec_state_sha256:
        raise ShardError(
            f"{path} has the SHA-256 {found[:12]}, the cache was written with {settings.codec_state_sha256}; {_REMEDY}"
        )
    return _bind(settings, raw, path)


def find_state(folder: StoragePath, settings: FeatureSettings) -> FeatureSettings | None:
    """Return settings that name the file in a folder, if it is of them; None if the codec is yet to be fitted."""
    codec = CODECS[settings.codec]
    owner = _owner(settings)
    try:
        raw = read_whole(folder / STATE_FILE, len(owner) + codec.state_bytes(settings.shape))
    except OSError:
        return None
    is_theirs = raw[: len(owner)] == owner and len(raw) == len(owner) + codec.state_bytes(settings.shape)
    return _with_state(settings, raw) if is_theirs else None


def write_state(folder: StoragePath, settings: FeatureSettings, state: bytes) -> FeatureSettings:
    """Write what a codec learned; return settings that name it."""
    raw = _owner(settings) + state
    write_atomically(folder / STATE_FILE, raw)
    return _with_state(settings, raw)


def _with_state(settings: FeatureSettings, raw: bytes) -> FeatureSettings:
    return dataclasses.replace(settings, codec_state_sha256=hashlib.sha256(raw).hexdigest())


def _owner(settings: FeatureSettings) -> bytes:
    return bytes.fromhex(digest_of(dataclasses.replace(settings, codec_state_sha256=None).to_plain()))


def _bind(settings: FeatureSettings, raw: bytes, path: StoragePath) -> Coding:
    owner = _owner(settings)
    if raw[: len(owner)] != owner:
        raise ShardError(f"{path} was fitted for another cache; {_REMEDY}")
    try:
        return CODECS[settings.codec].bind(settings.shape, raw[len(owner) :])
    except ValueError as error:
        raise ShardError(f"{path} {error}; {_REMEDY}") from error
