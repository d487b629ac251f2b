"""Separates what concerns a photo's pixels from its metadata, before Pillow sees it.

Pillow reads text chunks, EXIF and maker notes as well, and refuses the photo where one of them is damaged or long.
PNG, JPEG, TIFF and AVIF are therefore reduced to what the pixels need; orientation and colour profile are read here.
Other formats' plugins pass metadata on unread.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from shards.format.photos.orientation import find_orientation
from shards.format.photos.profiles import MAX_PROFILE_BYTES
from shards.format.photos.tiff import first_page, is_tiff

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_MAX_TEXT_BYTES = 2**20
_RAW_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_JPEG = b"\xff\xd8"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_PROFILE = b"ICC_PROFILE\0"
_SOS = 0xDA
_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000, without boxes
_PNM = (b"P2", b"P3", b"P5", b"P6")
_PNM_HEADER_BYTES = 4096
# Tables and frames, JFIF (APP0) and Adobe's colour transform (APP14).
_JPEG_KEPT = frozenset({*range(0xC0, 0xE0), 0xE0, 0xEE})


@dataclass(frozen=True)
class Essentials:
    """What of a file its pixels need."""

    parts: tuple[bytes, ...]
    """Files to decode: one, or one of gray 16-bit values for each plane of `mode`."""
    mode: str = ""
    """Pillow's mode of the planes together."""
    bits: int = 8
    """Of a sample, where the file says it."""
    is_white_zero: bool = False
    """16-bit values have to be inverted."""
    is_gray: bool = False
    """A PNG without colours; Pillow widens such with alpha and 16 bits to RGBA."""
    orientation: int = 1
    """EXIF's, 1 to 8."""
    profile: bytes | None = None
    """ICC profile; empty where there is one that cannot be read."""
    has_more: bool = False
    """The file has further frames or pages."""


def has_signature(data: bytes) -> bool:
    """Return whether a file begins like a PNG, a JPEG or a TIFF, whatever follows."""
    return data.startswith((_PNG, _JPEG)) or is_tiff(data)


def essentials(data: bytes) -> Essentials:
    """Reduce a file to what its pixels need; one that cannot be taken apart stays as it is.

    Raises:
        DecodeError: Its pixels have no known range, or a layout that nothing here reads.
    """
    if data.startswith(_PNG):
        return _of_png(data)
    if data.startswith(_JPEG):
        return _of_jpeg(data)
    if is_tiff(data):
        page = first_page(data)
        if page is not None:
            return Essentials(
                page.planes,
                page.mode,
                page.bits,
                page.is_white_zero,
                orientation=page.orientation,
                profile=page.profile,
                has_more=page.has_more,
            )
    if data[4:8] == b"ftyp":
        return _of_heif(data)
    if data[4:8] == b"jP  ":
        return _of_jpeg_2000(data)
    if data.startswith(_CODESTREAM):
        return Essentials((data,), bits=_bits_of_codestream(data))
    if data[:2] in _PNM:
        return Essentials((data,), bits=_bits_of_pnm(data))
    return Essentials((data,))


def _of_png(data: bytes) -> Essentials:
    kept: list[bytes] = [_PNG]
    found: dict[bytes, bytes] = {}
    for kind, chunk in _png_chunks(data):
        if kind in _PNG_KEPT:
            kept.append(chunk)
        body = chunk[8:-4]
        if kind in {b"tEXt", b"zTXt", b"iTXt"} and not body.startswith((*_RAW_EXIF, _XMP_KEYWORD)):
            continue
        found.setdefault(_XMP_KEYWORD if body.startswith(_XMP_KEYWORD) else kind, body)
    exif = found.get(b"eXIf") or _raw_exif(found)
    xmp = _png_text(b"iTXt", found[_XMP_KEYWORD]) if _XMP_KEYWORD in found else b""
    profile = None
    if b"iCCP" in found:
        profile = _inflate(found[b"iCCP"].partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
    num_frames = int.from_bytes(found.get(b"acTL", b"")[:4], "big")
    return Essentials(
        (b"".join(kept),),
        bits=data[24] if len(data) > 24 else 8,
        is_gray=data[25:26] in {b"\0", b"\4"},
        orientation=find_orientation(exif, xmp),
        profile=profile,
        has_more=num_frames > 1,
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each chunk with its kind; what is cut short comes last, under IDAT, for the decoder to refuse."""
    at = len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">L", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        yield data[at + 4 : at + 8], data[at:end]
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end
    if at < len(data):
        yield b"IDAT", data[at:]


def _raw_exif(found: dict[bytes, bytes]) -> bytes:
    """Return the EXIF that ImageMagick writes as hexadecimal text."""
    for kind in (b"zTXt", b"tEXt", b"iTXt"):
        if found.get(kind, b"").startswith(_RAW_EXIF):
            digits = _png_text(kind, found[kind]).split(b"\n")[3:]
            try:
                return bytes.fromhex(b"".join(digits).decode("ascii"))
            except ValueError:
                return b""
    return b""


def _png_text(kind: bytes, body: bytes) -> bytes:
    _, _, text = body.partition(b"\0")
    if kind == b"tEXt":
        return text[:_MAX_TEXT_BYTES]
    if kind == b"zTXt":
        return _inflate(text[1:], _MAX_TEXT_BYTES, cut=True)
    is_compressed = text[:1] == b"\1"
    text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
    return _inflate(text, _MAX_TEXT_BYTES, cut=True) if is_compressed else text[:_MAX_TEXT_BYTES]


def _inflate(data: bytes, max_bytes: int, *, cut: bool = False) -> bytes:
    """Decompress at most so many bytes; what is damaged, or longer unless it may be cut, is empty."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, max_bytes)
    except zlib.error:
        return b""
    return text if inflater.eof or cut else b""


def _of_jpeg(data: bytes) -> Essentials:
    kept: list[bytes] = [_JPEG]
    exif, xmp = b"", b""
    profile: list[tuple[bytes, bytes]] = []
    at = len(_JPEG)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SOS:
        if data[at + 1] == 0xFF:  # filling
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if data[at + 1] in _JPEG_KEPT:
            kept.append(data[at:end])
        elif data[at + 1] == 0xE1 and body.startswith(b"Exif\0"):
            exif = exif or body
        elif data[at + 1] == 0xE1 and body.startswith(_JPEG_XMP):
            xmp = xmp or body
        elif data[at + 1] == 0xE2 and body.startswith(_JPEG_PROFILE):
            profile.append((body[12:14], body[14:]))
        at = end
    return Essentials(
        (b"".join((*kept, data[at:])),),
        orientation=find_orientation(exif, xmp),
        profile=_join_profile(profile) if profile else None,
    )


def _join_profile(pieces: list[tuple[bytes, bytes]]) -> bytes:
    """Return the profile of all segments, numbered from 1 with their count; empty where one is missing."""
    ordered = sorted(pieces)
    expected = [bytes([number, len(ordered) & 0xFF]) for number in range(1, min(len(ordered), 255) + 1)]
    return b"".join(piece for _, piece in ordered) if [number for number, _ in ordered] == expected else b""


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box of an ISO base media file, or of JPEG 2000."""
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = start + size if size else end
        if stop < start + head or stop > end:
            return
        yield data[start + 4 : start + 8], start + head, stop
        start = stop


def _of_heif(data: bytes) -> Essentials:
    # The decoder turns the image itself. EXIF is hidden by giving its item another name, which keeps all offsets.
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            meta = data[start:end]
            depth = meta.find(b"pixi")
            bits = meta[depth + 9] if 0 <= depth < len(meta) - 9 else 8
            hidden = meta.replace(b"Exif\0", b"none\0").replace(b"mime", b"none")
            return Essentials((b"".join((data[:start], hidden, data[end:])),), bits=bits)
    return Essentials((data,))


def _bits_of_codestream(data: bytes) -> int:
    """Return the bits of the first component of a bare JPEG 2000 codestream."""
    at = 42  # of Ssiz: the markers, and the sizes of image and tiles, are before it
    return (data[at] & 0x7F) + 1 if len(data) > at else 8


def _bits_of_pnm(data: bytes) -> int:
    """Return the bits that the largest value of a PGM or PPM takes."""
    words = re.sub(rb"#[^\r\n]*", b"", data[:_PNM_HEADER_BYTES]).split(maxsplit=4)
    largest = words[3] if len(words) > 3 else b""
    return int(largest).bit_length() if largest.isdigit() else 8


def _of_jpeg_2000(data: bytes) -> Essentials:
    bits, profile = 8, None
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind != b"jp2h":
            continue
        for inner, first, last in _boxes(data, start, end):
            if inner == b"ihdr" and last - first >= 11:
                bits = (data[first + 10] & 0x7F) + 1
            elif inner == b"colr" and data[first : first + 1] == b"\2" and profile is None:
                profile = data[first + 3 : last]  # restricted ICC
    return Essentials((data,), bits=bits, profile=profile)
