"""Layouts of TIFF that Pillow decodes wrongly: the tags of the first page, and how to decode it.

Pillow does the decompression; it gets only the page's pixel tags. It takes 16-bit planes for gray images of their
own, ignores that white is zero at 16 bits, and cuts integers of 32 bits down to their low byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from shards.format.photos.errors import DecodeError

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 254, 256, 257, 258, 262, 274, 277
_COMPRESSION = 259
_STRIPS, _STRIP_BYTES, _PLANAR, _TILES, _TILE_BYTES = 273, 279, 284, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _PROFILE = 338, 339, 34675
# Compression, sizes, strips, tiles, predictor, palette, inks, JPEG tables, YCbCr, LERC: what decoding takes.
_PIXEL_TAGS = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338, 339}
    | {347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 50674}
)
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_THUMBNAIL, _MASK = 1, 4
_INTEGERS = {1: "B", 3: "H", 4: "L", 16: "Q"}
_FORMATS = {2: "signed integers", 3: "floating-point pixels", 5: "complex integers", 6: "complex pixels"}
_PHOTOMETRICS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
# Mode of an image in planes, by what the first planes show and their number; with premultiplied alpha in lower case.
_PLANE_MODES = {(2, 3): "RGB", (2, 4): "RGBA", (5, 4): "CMYK", (0, 2): "LA", (1, 2): "LA"}


@dataclass(frozen=True)
class _Entry:
    kind: int
    count: int
    value: bytes
    """All of it, whether it stood in the directory or elsewhere."""


@dataclass(frozen=True)
class TiffPage:
    """The first page of a file."""

    planes: tuple[bytes, ...]
    """TIFF files to give to Pillow: one, or one of gray 16-bit values for each plane."""
    mode: str
    """Pillow's mode of all planes together; empty for a single file."""
    bits: int
    """Of a sample."""
    is_white_zero: bool
    """Whether 16-bit values have to be inverted."""
    orientation: int
    profile: bytes | None
    has_more: bool
    """Whether the file has another page."""


def is_tiff(data: bytes) -> bool:
    """Return whether a file begins like a TIFF or a BigTIFF."""
    return data[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


def first_page(data: bytes) -> TiffPage | None:
    """Read the tags of the first page.

    Returns:
        None where they cannot be read.

    Raises:
        DecodeError: Its pixels have no known range, or a layout that nothing here reads; names it.
    """
    try:
        return _page(_Tiff(data))
    except (struct.error, KeyError, IndexError, OverflowError):
        return None


def describe_layout(data: bytes) -> str:
    """Return how the pixels of the first page are stored, in the words of the format; empty where that is not said."""
    try:
        tiff = _Tiff(data)
        bits = tiff.integers(_BITS, (1,))
        tags = (_SAMPLES, _PHOTOMETRIC, _COMPRESSION)
        samples, photometric, compression = (tiff.integers(tag, (1,))[0] for tag in tags)
    except (struct.error, KeyError, IndexError, OverflowError):
        return ""
    order = "in planes" if tiff.integers(_PLANAR) == (2,) else "interleaved"
    kind = _PHOTOMETRICS.get(photometric, f"photometric {photometric}")
    return f"{kind}, {samples} sample(s) of {max(bits)} bits, {order}, compression {compression}"


class _Tiff:
    """Reads and writes directories of one byte order and offset size."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.is_big = 0x2B in data[2:4]
        self.offset = "Q" if self.is_big else "L"
        self.inline = 8 if self.is_big else 4
        self.head = 16 if self.is_big else 8
        (self.start,) = self.unpack(self.offset, self.head - self.inline)
        self.entries, self.next = self.directory(self.start)

    def unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.data, at)

    def directory(self, start: int) -> tuple[dict[int, _Entry], int]:
        count_form, size = ("Q", 20) if self.is_big else ("H", 12)
        (count,) = self.unpack(count_form, start)
        first = start + struct.calcsize(f"={count_form}")
        if first + count * size > len(self.data):
            raise IndexError(start)
        entries: dict[int, _Entry] = {}
        for at in range(first, first + count * size, size):
            tag, kind, length = self.unpack(f"HH{self.offset}", at)
            num_bytes = _TYPE_SIZES.get(kind, 0) * length
            where = at + size - self.inline
            if num_bytes > self.inline:
                (where,) = self.unpack(self.offset, where)
            value = self.data[where : where + num_bytes]
            if len(value) == num_bytes:
                entries.setdefault(tag, _Entry(kind, length, value))
        end = first + count * size
        return entries, self.unpack(self.offset, end)[0] if end + self.inline <= len(self.data) else 0

    def integers(
        self, tag: int, default: tuple[int, ...] = (), entries: dict[int, _Entry] | None = None
    ) -> tuple[int, ...]:
        entry = (self.entries if entries is None else entries).get(tag)
        if entry is None or entry.kind not in _INTEGERS or not entry.count:
            return default
        return struct.unpack(f"{self.order}{entry.count}{_INTEGERS[entry.kind]}", entry.value)

    def offsets(self, *values: int) -> _Entry:
        kind = 16 if self.is_big else 4
        return _Entry(kind, len(values), struct.pack(f"{self.order}{len(values)}{self.offset}", *values))

    def short(self, value: int) -> _Entry:
        return _Entry(3, 1, struct.pack(f"{self.order}H", value))

    def with_entries(self, entries: dict[int, _Entry]) -> bytes:
        """Return the file with one directory of these entries, at its end."""
        start = len(self.data) + len(self.data) % 2
        size = 20 if self.is_big else 12
        place = start + (8 if self.is_big else 2) + len(entries) * size + self.inline
        table, values = [struct.pack(f"{self.order}{'Q' if self.is_big else 'H'}", len(entries))], b""
        for tag, entry in sorted(entries.items()):
            field = entry.value.ljust(self.inline, b"\0")
            if len(entry.value) > self.inline:
                field = struct.pack(self.order + self.offset, place + len(values))
                values += entry.value + bytes(len(entry.value) % 2)
            table.append(struct.pack(f"{self.order}HH{self.offset}", tag, entry.kind, entry.count) + field)
        header = self.data[: self.head - self.inline] + struct.pack(self.order + self.offset, start)
        padding = bytes(len(self.data) % 2)
        return b"".join((header, self.data[self.head :], padding, *table, bytes(self.inline), values))


def _page(tiff: _Tiff) -> TiffPage:
    (samples,), (photometric,) = tiff.integers(_SAMPLES, (1,))[:1], tiff.integers(_PHOTOMETRIC, (1,))[:1]
    bits = tiff.integers(_BITS, (1,))
    _check_range(tiff, bits)
    kept = {tag: entry for tag, entry in tiff.entries.items() if tag in _PIXEL_TAGS}
    planes, mode = (tiff.with_entries(kept),), ""
    if tiff.integers(_PLANAR) == (2,) and samples > 1 and max(bits) == 16:
        planes, mode = _split(tiff, kept, photometric, samples)
    profile = tiff.entries.get(_PROFILE)
    return TiffPage(
        planes,
        mode,
        bits=max(bits),
        is_white_zero=photometric == 0 and max(bits) > 8,
        orientation=tiff.integers(_ORIENTATION, (1,))[0],
        profile=profile.value if profile else None,
        has_more=_has_more(tiff),
    )


def _check_range(tiff: _Tiff, bits: tuple[int, ...]) -> None:
    for number in tiff.integers(_SAMPLE_FORMAT):
        if number in _FORMATS:
            raise DecodeError("unreadable", f"{_FORMATS[number]} have no known range; convert to 8 or 16 bit")
    if max(bits) > 16:
        raise DecodeError("unreadable", f"{max(bits)}-bit integers have no known range; convert to 8 or 16 bit")
    if len(set(bits)) > 1:
        listed = ", ".join(map(str, bits[:8]))
        raise DecodeError("unreadable", f"samples of different depths ({listed} bits); convert to 8 or 16 bit")


def _split(tiff: _Tiff, kept: dict[int, _Entry], photometric: int, samples: int) -> tuple[tuple[bytes, ...], str]:
    extra = tiff.integers(_EXTRA_SAMPLES)
    colours = samples - len(extra)
    used = colours + (1 if extra[:1] in {(1,), (2,)} else 0)
    mode = "L" if used == 1 else _PLANE_MODES.get((photometric, used))
    if mode is None:
        raise DecodeError("unreadable", f"{samples} planes of 16 bits in photometric {photometric} are not supported")
    if extra[:1] == (1,) and used > colours:
        mode = mode[:-1] + "a"  # alpha is premultiplied
    offsets_tag, bytes_tag = (_TILES, _TILE_BYTES) if _TILES in kept else (_STRIPS, _STRIP_BYTES)
    offsets, num_bytes = tiff.integers(offsets_tag), tiff.integers(bytes_tag)
    per_plane = len(offsets) // samples
    dropped = {_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT}
    gray = {tag: entry for tag, entry in kept.items() if tag not in dropped}
    gray |= {_BITS: tiff.short(16), _PHOTOMETRIC: tiff.short(1), _SAMPLES: tiff.short(1)}
    planes = []
    for number in range(used):
        own = slice(number * per_plane, (number + 1) * per_plane)
        place = {offsets_tag: tiff.offsets(*offsets[own]), bytes_tag: tiff.offsets(*num_bytes[own])}
        planes.append(tiff.with_entries(gray | place))
    return tuple(planes), mode


def _has_more(tiff: _Tiff) -> bool:
    try:
        entries = tiff.directory(tiff.next)[0] if tiff.next else None
    except (struct.error, IndexError):
        return False  # a chain that leads nowhere
    if entries is None:
        return False
    (kind,) = tiff.integers(_SUBFILE, (0,), entries)[:1]
    if kind & (_THUMBNAIL | _MASK):
        return False
    # Cameras and scanners do not mark a thumbnail as one.
    sides = [(tiff.integers(tag)[:1], tiff.integers(tag, (), entries)[:1]) for tag in (_WIDTH, _HEIGHT)]
    return not all(first and later and 2 * later[0] <= first[0] for first, later in sides)
