"""A registered version as MLflow loads it: arrays and pictures in, upscaled ones out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from harness import photo
from mlflow.exceptions import MlflowException
from served_versions import SCALE, URI, build_served, decoded, encoded

from pipeline.inference.upscale import upscale
from pipeline.models.generators import Generator
from pipeline.tracking.packages import import_path_restored


@pytest.fixture(scope="module")
def generator() -> Generator:
    return build_served()


@pytest.fixture(scope="module")
def served(served_folder: Path) -> Any:
    with import_path_restored():
        return mlflow.pyfunc.load_model(URI)


def test_8_bit_images_come_back_as_8_bits_rounded_and_clamped(served: Any, generator: Generator) -> None:
    images = np.stack([photo(1, 13, 19), photo(2, 13, 19)])
    sr = served.predict(images)
    with torch.inference_mode():
        plain = generator(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    assert plain.min() < 0 or plain.max() > 1
    assert sr.dtype == np.uint8
    assert np.array_equal(sr, (plain.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    assert np.array_equal(served.predict(images[0]), sr[0])
    assert np.array_equal(served.predict(images.astype(np.int64)), sr)  # JSON's integers


def test_floats_come_back_as_floats_within_0_and_1_in_the_layout_given(served: Any, generator: Generator) -> None:
    images = photo(0, 11, 7)[None].astype(np.float32) / 255
    channels_first = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    with torch.inference_mode():
        expected = generator(torch.from_numpy(channels_first)).clamp(0, 1).numpy()
    sr = served.predict(channels_first)
    assert sr.dtype == np.float32
    assert np.array_equal(sr, expected)
    assert np.array_equal(served.predict(images), np.moveaxis(expected, 1, -1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: pd.DataFrame({"image": [text]}),
        lambda text: {"image": [text]},
        lambda text: {"image": np.array(text)},
        lambda text: [text],
        lambda text: text,
        lambda text: "data:image/png;base64," + text,
        lambda text: "\n".join([text[:76], text[76:]]),
    ],
)
def test_picture_as_text_comes_back_as_png(served: Any, generator: Generator, wrap: Any) -> None:
    lq = photo(0, 9, 14)
    (answer,) = served.predict(wrap(encoded(lq)))
    assert np.array_equal(decoded(answer["image"]), upscale(generator, lq, SCALE))


def test_tiles_give_the_same_picture_and_their_size_is_a_parameter(served: Any, generator: Generator) -> None:
    lq = photo(0, 70, 90)
    whole, tiled = served.predict(lq), served.predict(lq, params={"tile_px": 32})
    assert np.array_equal(whole, upscale(generator, lq, SCALE))
    assert np.array_equal(tiled, upscale(generator, lq, SCALE, tile_px=32, overlap_px=16))
    assert int(np.abs(tiled.astype(int) - whole).max()) <= 1
    with pytest.raises(MlflowException, match="tile_px=0 must be at least 1"):
        served.predict(lq, params={"tile_px": 0})


@pytest.mark.parametrize(("file_format", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_other_formats_are_read(served: Any, file_format: str, options: dict[str, Any]) -> None:
    (answer,) = served.predict([encoded(photo(0, 8, 8), file_format, **options)])
    assert decoded(answer["image"]).shape == (8 * SCALE, 8 * SCALE, 3)


@pytest.mark.parametrize(("data", "message"), [
    (np.zeros((4, 4), np.uint8), r"an array of shape \(4, 4\) is no RGB image; give n x height x width x 3"),
    (np.zeros((1, 3, 4, 4), np.uint8), r"shape \(1, 3, 4, 4\) is no RGB image"),
    (np.zeros((0, 4, 4, 3), np.uint8), r"shape \(0, 4, 4, 3\) is no RGB image"),
    (np.full((4, 4, 3), 255.0), r"reach from 255 to 255; give floats in \[0, 1\]"),
    (np.full((4, 4, 3), np.nan), r"give floats in \[0, 1\]"),
    (np.full((4, 4, 3), 300), r"reach from 300 to 300; give integers in 0\.\.255"),
    ({"picture": ["AAAA"]}, "the request has 'picture', and no 'image'"),
    ({"image": []}, "holds no image"),
    (["no base64!"], "image 1 is not base64 text .it begins with 'no base64!'"),
    ([base64.b64encode(b"no picture at all").decode()], "image 1 cannot be used: not-an-image"),
    ([encoded(photo(0, 8, 8))[:-40]], "image 1 (cannot be used: truncated|is not base64)"),
    ([7], "image 1 is int, not text"),
])  # fmt: skip
def test_what_is_no_image_is_refused_with_what_to_give(served: Any, data: Any, message: str) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        served.predict(data)
    assert caught.value.get_http_status_code() == 400
    assert "Traceback" not in caught.value.serialize_as_json()


def test_picture_larger_than_the_limit_is_refused_and_the_limit_is_a_setting(served_folder: Path) -> None:
    with import_path_restored():
        small = mlflow.pyfunc.load_model(URI, model_config={"max_pixels": 100})
    with pytest.raises(MlflowException, match="too-large"):
        small.predict([encoded(photo(0, 11, 10))])
