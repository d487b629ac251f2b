import numpy as np
import pytest

from shards.degradation import bicubic
from shards.errors import InputError


def _image(height_px: int, width_px: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (height_px, width_px, 3)).astype(np.uint8)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_weights_sum_to_one_and_keep_a_flat_image(scale: int) -> None:
    flat = np.full((scale * 2, scale, 1), 77, dtype=np.uint8)
    assert sum(weight for _, weight in bicubic.downscale_taps(scale)) == pytest.approx(1)
    assert (bicubic.downscale(flat, scale) == 77).all()
    assert (bicubic.upscale(flat, scale) == 77).all()


def test_downscale_by_two_equals_the_filter_written_out() -> None:
    # Keys' cubic at quarter steps, halved: what one bright column gives its neighbours.
    row = np.zeros((2, 32, 1), dtype=np.uint8)
    row[:, 16] = 255
    weights = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    expected = np.clip(np.floor(255 * weights[1::2][::-1] + 0.5), 0, 255)
    np.testing.assert_array_equal(bicubic.downscale(row, 2)[0, 6:10, 0], expected)


@pytest.mark.parametrize(
    ("image", "scale", "text"),
    [
        (_image(10, 12), 4, "crop to a multiple of 4 first, 8x12 px"),
        (_image(10, 12), 5, "scales"),
        (_image(12, 12).astype(float), 4, "uint8"),
        (_image(12, 12)[..., 0], 4, "uint8"),
    ],
)
def test_downscale_of_unfit_input_says_what_to_do(image: np.ndarray, scale: int, text: str) -> None:
    with pytest.raises(InputError, match=text):
        bicubic.downscale(image, scale)
