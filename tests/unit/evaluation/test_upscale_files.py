"""Upscaled files are what their sources are, and say what is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from photo_files import encode, gradient
from PIL import Image

from pipeline.data.evaluation import read_image
from pipeline.inference.named_model import NamedModel
from pipeline.inference.upscale_files import upscale_file
from pipeline.inference.upscale_many import upscale_files
from pipeline.models.generators import SRVGGNetCompact
from shards.errors import InputError
from shards.format.photos import Picture, read_picture
from shards.format.png import picture_chunks

SCALE = 2
SHAPE = (20, 31)


@pytest.fixture
def model(tmp_path: Path) -> NamedModel:
    return NamedModel(SRVGGNetCompact(4, 1, SCALE).eval(), SCALE, tmp_path / "m.safetensors", None)


def upscaled(model: NamedModel, folder: Path, data: bytes, tile_px: int = 12) -> Picture:
    (folder / "in.png").write_bytes(data)
    assert upscale_file(model, folder / "in.png", folder / "out.png", tile_px=tile_px, overlap_px=4) == ()
    return read_picture((folder / "out.png").read_bytes(), max_pixels=10_000)


def png(pixels: np.ndarray) -> bytes:
    return b"".join(picture_chunks([pixels], len(pixels), {}))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("num_channels", [1, 2, 3, 4])
def test_channels_and_depth_stay(model: NamedModel, tmp_path: Path, num_channels: int, dtype: type) -> None:
    pixels = np.random.RandomState(0).randint(0, np.iinfo(dtype).max + 1, (*SHAPE, num_channels)).astype(dtype)
    picture = upscaled(model, tmp_path, png(pixels))
    assert picture.colour.shape == (40, 62, 1 if num_channels < 3 else 3)
    assert picture.colour.dtype == dtype
    assert (picture.alpha is not None) == (num_channels in {2, 4})


@pytest.mark.parametrize("tile_px", [12, 64])
@pytest.mark.parametrize("full", [255, 65535])
def test_alpha_is_enlarged_without_a_seam_and_opaque_stays_opaque(
    model: NamedModel, tmp_path: Path, full: int, tile_px: int
) -> None:
    pixels = np.zeros((*SHAPE, 4), np.uint8 if full == 255 else np.uint16)
    pixels[5:15, 8:24, 3] = full
    pixels[0, :, 3] = np.linspace(0, full, SHAPE[1])
    picture = upscaled(model, tmp_path, png(pixels), tile_px)
    assert picture.alpha is not None
    assert (picture.alpha[14:26, 22:42] == full).all()
    assert (picture.alpha[34:, :] == 0).all()
    size = (SHAPE[1] * SCALE, SHAPE[0] * SCALE)
    whole = Image.fromarray(pixels[..., 3].astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    assert np.array_equal(picture.alpha, np.clip(np.rint(np.asarray(whole)), 0, full))


def test_colours_are_those_without_alpha(model: NamedModel, tmp_path: Path) -> None:
    pixels = np.dstack([gradient(*SHAPE), np.zeros(SHAPE, np.uint8)])
    with_alpha = upscaled(model, tmp_path, png(pixels)).colour
    assert np.array_equal(with_alpha, upscaled(model, tmp_path, png(pixels[..., :3].copy())).colour)


def test_animation_is_refused_by_name_in_upscaling_and_evaluation(model: NamedModel, tmp_path: Path) -> None:
    first = Image.fromarray(gradient(*SHAPE))
    path = tmp_path / "in.webp"
    path.write_bytes(encode(first, "WEBP", save_all=True, append_images=[first.rotate(180)]))
    with pytest.raises(InputError, match=r"in\.webp .* an animation or has several pages"):
        upscale_file(model, path, tmp_path / "out.png", tile_px=12, overlap_px=4)
    with pytest.raises(InputError, match=r"in\.webp is an animation or has several pages"):
        read_image(path)
    assert not (tmp_path / "out.png").exists()


def test_files_upscaled_two_at_a_time_are_those_of_one_after_another_in_order(
    model: NamedModel, tmp_path: Path
) -> None:
    sources = []
    for number in range(7):
        source = tmp_path / f"{number}.png"
        source.write_bytes(png(gradient(20 + number, 31)) if number != 3 else b"no image")
        sources.append(source)
    pairs = [(source, tmp_path / "two" / source.name) for source in sources]
    outcomes = list(upscale_files(model, pairs, tile_px=12, overlap_px=4, precision="float32"))
    assert [source for source, _ in outcomes] == sources
    assert [number for number, (_, outcome) in enumerate(outcomes) if isinstance(outcome, InputError)] == [3]
    for source, target in pairs:
        if source.name != "3.png":
            upscale_file(model, source, tmp_path / "one.png", tile_px=12, overlap_px=4)
            assert target.read_bytes() == (tmp_path / "one.png").read_bytes()


def test_files_when_the_caller_stops_are_not_upscaled_to_the_last(model: NamedModel, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(png(gradient(300, 300)))
    pairs = [(tmp_path / "in.png", tmp_path / "out" / f"{number}.png") for number in range(50)]
    outcomes = upscale_files(model, pairs, tile_px=12, overlap_px=4, precision="float32")
    next(outcomes)
    outcomes.close()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "0.png" in names
    assert len(names) < 5
    assert not [name for name in names if name.startswith(".")]
