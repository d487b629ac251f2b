import dataclasses
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from shards.errors import InputError
from shards.format.manifest import Reject
from shards.format.photos import DecodeError, decode_photo
from shards.write.sources import SourceFile, discover
from shards.write.survey import (
    Photo,
    SurveyTask,
    check_rejects,
    count_reasons,
    excluded_pixels,
    reject_duplicates,
    survey,
)

LIMIT = 10_000


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def colours() -> Image.Image:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, :3], image[:, 3:] = (200, 30, 60), (10, 220, 90)
    return Image.fromarray(image)


def decode(data: bytes) -> np.ndarray:
    return decode_photo(data, max_pixels=LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_decode_when_lossless_gives_the_pixels(kind: str) -> None:
    assert np.array_equal(decode(encode(colours(), kind)), np.asarray(colours()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_decode_when_lossy_is_near(kind: str) -> None:
    # Chroma is stored at half the resolution, so colours only agree away from edges.
    large = colours().resize((96, 64), Image.Resampling.NEAREST)
    difference = decode(encode(large, kind, quality=95)).astype(int) - np.asarray(large)
    assert np.abs(difference[:, :40]).max() <= 6


def test_decode_when_palette_or_gray_gives_rgb() -> None:
    assert np.array_equal(decode(encode(colours().convert("P", palette=Image.Palette.ADAPTIVE))), colours())
    gray = Image.fromarray(np.full((2, 3), 77, np.uint8))
    assert np.array_equal(decode(encode(gray)), np.full((2, 3, 3), 77))
    bilevel = Image.fromarray(np.array([[True, False]]))
    assert decode(encode(bilevel))[0, :, 0].tolist() == [255, 0]


def test_decode_when_16_bit_takes_the_high_byte() -> None:
    values = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    assert decode(encode(Image.fromarray(values)))[0, :, 1].tolist() == [0, 0, 1, 0x12, 255]


def test_decode_when_cmyk_gives_rgb() -> None:
    ink = Image.new("CMYK", (2, 2), (255, 0, 0, 0))
    assert decode(encode(ink, "TIFF"))[0, 0].tolist() == [0, 255, 255]


def test_decode_when_transparent_is_composited_on_white() -> None:
    image = Image.new("RGBA", (3, 1), (100, 0, 0, 255))
    image.putpixel((1, 0), (100, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))
    assert decode(encode(image))[0].tolist() == [[100, 0, 0], [255, 255, 255], [204, 204, 204]]


def test_decode_when_exif_says_rotated_turns_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    turned = decode(encode(colours(), "PNG", exif=exif))
    assert np.array_equal(turned, np.rot90(np.asarray(colours()), -1))


def test_decode_when_profile_is_not_srgb_converts() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    same = decode(encode(colours(), "PNG", icc_profile=lab.tobytes()))
    assert np.array_equal(same, np.asarray(colours()))
    with pytest.raises(DecodeError, match="profile"):
        decode(encode(colours(), "PNG", icc_profile=b"no profile at all"))


def test_decode_when_the_profile_has_other_primaries_moves_the_colours() -> None:
    # sRGB with the places of red and green exchanged, under another name.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    named = swapped.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    converted = decode(encode(colours(), "PNG", icc_profile=named)).astype(int)
    expected = np.asarray(colours())[..., [1, 0, 2]]
    assert np.abs(converted - expected).max() <= 3


def test_decode_when_colour_has_16_bits_takes_the_high_bytes() -> None:
    values = np.array([[[0x1234, 0xFFFF, 0x00FF], [0x0100, 0x80FF, 0xABCD]]], ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    assert decode(data)[0].tolist() == [[0x12, 0xFF, 0x00], [0x01, 0x80, 0xAB]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_when_not_wanted_is_rejected_and_opaque_alpha_is_not(mode: str, tmp_path: Path) -> None:
    opaque = colours().convert(mode)
    holed = colours().convert("RGBA")
    holed.putpixel((0, 0), (1, 2, 3, 254))
    holed = holed.quantize() if mode == "P" else holed.convert(mode)
    for name, image in {"opaque.png": opaque, "holed.png": holed}.items():
        image.save(tmp_path / name)
    task = SurveyTask(discover([tmp_path]), 1, LIMIT, {}, "reject")
    found = {type(result).__name__: result for result in survey(task)}
    assert found["Photo"].name.endswith("/opaque.png")
    assert (found["Reject"].reason, found["Reject"].path.rpartition("/")[2]) == ("transparent", "holed.png")
    assert "--alpha composite" in found["Reject"].detail
    assert all(isinstance(result, Photo) for result in survey(dataclasses.replace(task, alpha="composite")))


def test_decode_when_a_jpeg_has_ink_gives_rgb() -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = decode(encode(ink, "JPEG", quality=95))[8, 8].tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_decode_when_cut_short_is_refused_and_pillow_is_left_alone(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    data = encode(noise, kind)
    limits = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    with pytest.raises(DecodeError):
        decode(data[: len(data) * 2 // 3])
    assert limits == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)


def survey_files(folder: Path, min_side_px: int = 8, known: dict[str, Photo] | None = None) -> dict:
    results = survey(SurveyTask(discover([folder]), min_side_px, LIMIT, known or {}))
    return {result.path if isinstance(result, Reject) else result.name: result for result in results}


def test_survey_when_files_are_bad_rejects_each_by_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    good = encode(noise)
    contents = {
        "good.png": good,
        "copy.png": encode(noise, compress_level=0),
        "cut.png": good[: len(good) // 2],
        "empty.png": b"",
        "text.jpg": b"this is a letter, not a picture",
        "tiny.png": encode(colours()),
        "bomb.png": encode(Image.new("RGB", (200, 200))),
        "flipped.png": good[:200] + bytes([good[200] ^ 0xFF]) + good[201:],
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    photos, rejects = reject_duplicates(survey_files(folder).values(), {})
    assert [photo.name for photo in photos] == ["in/copy.png"]
    assert {reject.path.removeprefix("in/"): reject.reason for reject in rejects} == {
        "good.png": "duplicate",
        "cut.png": "truncated",
        "empty.png": "truncated",
        "text.jpg": "not-an-image",
        "tiny.png": "too-small",
        "bomb.png": "too-large",
        "flipped.png": "unreadable",
    }
    assert all(" at 0x" not in reject.detail and str(tmp_path) not in reject.detail for reject in rejects)
    assert count_reasons(rejects)["truncated"] == 2
    with pytest.raises(InputError, match="7 of 8 photos are rejected"):
        check_rejects(photos, rejects, 0.5)
    check_rejects(photos, rejects, 0.9)
    # A photo equal to an evaluation image goes too, and then nothing is left at all.
    evaluation = excluded_pixels([survey_files(folder)["in/good.png"]])
    photos, rejects = reject_duplicates(survey_files(folder).values(), evaluation)
    assert not photos
    with pytest.raises(InputError, match="8 of 8"):
        check_rejects(photos, rejects, 1.0)


def test_survey_when_the_file_is_known_does_not_decode_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(colours()))
    seen = survey_files(tmp_path, min_side_px=1)
    name = f"{tmp_path.name}/a.png"
    marked = Photo(**{**vars(seen[name]), "pixels_sha256": "from before"})
    assert survey_files(tmp_path, 1, {name: marked})[name] == marked
    (tmp_path / "a.png").write_bytes(encode(colours().rotate(180)))
    assert survey_files(tmp_path, 1, {name: marked})[name].pixels_sha256 != "from before"


def test_excluded_when_undecodable_is_refused() -> None:
    with pytest.raises(InputError, match=r"--exclude image a/b\.png"):
        excluded_pixels([Reject("a/b.png", "truncated", "the file is empty")])


def test_discover_when_nested_sorts_and_passes_over_the_rest(tmp_path: Path) -> None:
    for name in ("x/b.PNG", "x/sub/a.jpeg", "x/.hidden.png", "x/notes.txt", "y/x/a.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = discover([tmp_path / "x", tmp_path / "y" / "x"])
    assert [file.name for file in found] == ["x/b.PNG", "x/sub/a.jpeg", "x~2/a.webp"]
    assert found[1] == SourceFile("x/sub/a.jpeg", tmp_path.resolve() / "x/sub/a.jpeg")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is no folder"),
        (lambda path: path.mkdir(), "an empty folder"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("x")), r"1 other file\(s\), such as a.txt"),
    ],
)
def test_discover_when_there_is_no_photo_says_what_to_do(make, text: str, tmp_path: Path) -> None:
    make(tmp_path / "in")
    with pytest.raises(InputError, match=text) as caught:
        discover([tmp_path / "in"])
    assert "--source" in str(caught.value)
    assert "give a folder" in str(caught.value)
