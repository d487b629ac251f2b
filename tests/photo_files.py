"""Photo files as cameras, scanners and editors write them, built byte by byte, and what is decoded of them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from shards.format.photos import decode_photo, read_photo

Entry = tuple[int, int, int, bytes]
"""EXIF or TIFF: tag, type, count, value in little-endian bytes."""

ORIENTATION_6 = (0x0112, 3, 1, struct.pack("<H", 6))


MAX_PIXELS = 10_000


def decode(data: bytes) -> np.ndarray:
    return decode_photo(data, max_pixels=MAX_PIXELS)


def notes(data: bytes) -> tuple[str, ...]:
    return read_photo(data, max_pixels=MAX_PIXELS).notes


def colours() -> Image.Image:
    """Two colours side by side."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, :3], image[:, 3:] = (200, 30, 60), (10, 220, 90)
    return Image.fromarray(image)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def gradient(height_px: int = 24, width_px: int = 32) -> np.ndarray:
    """A colour gradient, uint8."""
    rows, columns = np.mgrid[:height_px, :width_px]
    return np.stack([rows * 255 // height_px, columns * 255 // width_px, (rows + columns) * 3], axis=-1).astype(
        np.uint8
    )


def directory(entries: list[Entry], start: int) -> bytes:
    """A directory of a little-endian TIFF that begins at `start`, followed by its values."""
    values, table = b"", b""
    place = start + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in sorted(entries):
        if len(value) > 4:
            field = struct.pack("<L", place + len(values))
            values += value + bytes(len(value) % 2)
        else:
            field = value.ljust(4, b"\0")
        table += struct.pack("<HHL", tag, kind, count) + field
    return struct.pack("<H", len(entries)) + table + bytes(4) + values


def exif(*entries: Entry) -> bytes:
    return b"Exif\0\0II*\0" + struct.pack("<L", 8) + directory(list(entries), 8)


def tiff(planes: list[np.ndarray], photometric: int, *, sample_format: int = 1, extra: int | None = None) -> bytes:
    """A little-endian TIFF: one plane is (height, width) or (height, width, samples); several are stored apart."""
    height_px, width_px = planes[0].shape[:2]
    samples = len(planes) if len(planes) > 1 else planes[0].size // (height_px * width_px)
    bits = planes[0].dtype.itemsize * 8
    content = [plane.astype(plane.dtype.newbyteorder("<")).tobytes() for plane in planes]
    offsets = np.cumsum([8, *(len(strip) for strip in content)])
    shorts = {256: width_px, 257: height_px, 259: 1, 262: photometric, 277: samples, 278: height_px, 284: 1}
    if len(planes) > 1:
        shorts[284] = 2
    if extra is not None:
        shorts[338] = extra
    entries = [(tag, 3, 1, struct.pack("<H", value)) for tag, value in shorts.items()]
    for tag, value in ((258, bits), (339, sample_format)):
        entries.append((tag, 3, samples, struct.pack("<H", value) * samples))
    entries.append((273, 4, len(planes), struct.pack(f"<{len(planes)}L", *offsets[:-1])))
    entries.append((279, 4, len(planes), struct.pack(f"<{len(planes)}L", *map(len, content))))
    start = int(offsets[-1])
    return b"II*\0" + struct.pack("<L", start) + b"".join(content) + directory(entries, start)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_png_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Insert a chunk after the header."""
    return data[:33] + png_chunk(kind, body) + data[33:]


def icc_profile(description: str, gamma: float, *, gray: bool = False, omit: tuple[bytes, ...] = ()) -> bytes:
    """A small ICC profile, version 2: sRGB's primaries (or gray) with one gamma."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">lll", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + (struct.pack(">L", 0) if gamma == 1.0 else struct.pack(">LH", 1, round(gamma * 256)))
    name = description.encode()
    tags: Mapping[bytes, bytes] = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">L", len(name) + 1) + name + b"\0" + bytes(78),
        b"wtpt": xyz(0.9642, 1, 0.8249),
        **({b"kTRC": curve} if gray else {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}),
    }
    if not gray:
        tags |= {b"rXYZ": xyz(0.436, 0.2225, 0.0139), b"gXYZ": xyz(0.3851, 0.7169, 0.0971)}
        tags |= {b"bXYZ": xyz(0.1431, 0.0606, 0.7141)}
    tags = {name: value for name, value in tags.items() if name not in omit}
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += name + struct.pack(">LL", offset + len(body), len(padded))
        body += padded
    head = struct.pack(
        ">L4sL4s4s4s", offset + len(body), b"lcms", 0x02100000, b"mntr", b"GRAY" if gray else b"RGB ", b"XYZ "
    )
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acspAPPL" + bytes(24) + struct.pack(">lll", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">L", len(tags)) + table + body


def one_of_every_format() -> dict[str, bytes]:
    """Small files of every format that is read, with EXIF and a profile where the format holds them."""
    colours = Image.fromarray(gradient(16, 16))
    gray = colours.convert("L")
    extras = {"exif": exif(ORIENTATION_6, (0x010F, 2, 5, b"Maker")), "icc_profile": icc_profile("linear", 1.0)}
    deep = gradient(16, 16).astype(np.uint16) * 257
    return {
        "png": encode(colours, exif=extras["exif"][6:], icc_profile=extras["icc_profile"]),
        "png16": encode(Image.fromarray(deep[..., 0]), icc_profile=icc_profile("gray", 1.8, gray=True)),
        "palette": encode(colours.quantize(8)),
        "jpeg": encode(colours, "JPEG", **extras),
        "progressive": encode(colours, "JPEG", progressive=True, comment=b"hello"),
        "cmyk": encode(colours.convert("CMYK"), "JPEG"),
        "webp": encode(colours, "WEBP", lossless=True, **extras),
        "tiff": encode(colours, "TIFF", compression="tiff_lzw", **extras),
        "tiff16": tiff(list(np.moveaxis(deep, 2, 0)), 2),
        "fax": encode(gray.convert("1"), "TIFF", compression="group4"),
        "bmp": encode(colours, "BMP"),
        "gif": encode(colours, "GIF", save_all=True, append_images=[colours.rotate(90)]),
        "avif": encode(colours, "AVIF", **extras),
        "jp2": encode(colours, "JPEG2000"),
        "ppm": encode(colours, "PPM"),
    }


def mutations(files: Mapping[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Damaged copies of files, each named by its format and number."""
    random = np.random.default_rng(seed)
    names = sorted(files)
    for number in range(count):
        name = names[number % len(names)]
        data = bytearray(files[name])
        for _ in range(random.integers(1, 6)):
            at = int(random.integers(len(data)))
            length = int(random.integers(1, 9))
            damage = random.integers(6)
            if damage == 0:
                data[at] ^= 1 << int(random.integers(8))
            elif damage == 1:
                data[at : at + length] = random.bytes(length)
            elif damage == 2:
                data[at : at + length] = bytes([random.choice([0, 127, 128, 255])]) * length
            elif damage == 3:
                del data[at : at + length]
            elif damage == 4:
                data[at:at] = data[at // 2 : at // 2 + 4 * length]
            else:
                del data[max(at, 8) :]
        yield f"{name} {number}", bytes(data)
