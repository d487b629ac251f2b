"""NIQE against a plain second implementation, and what it must do on photos that it was not fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import photo, write_photos
from PIL import Image
from scipy import ndimage, special, stats

from pipeline.metrics import METRICS
from pipeline.metrics.choice import find_metric
from pipeline.metrics.niqe import _fit_asymmetric, block_features, fit
from pipeline.metrics.pixels import to_y
from shards.errors import InputError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("niqe") / "pristine", [(480, 576)] * 8)


@pytest.mark.parametrize("shape", [0.8, 2.0, 4.0])
def test_fit_recovers_the_generalised_gaussian_it_was_drawn_from(shape: float) -> None:
    values = stats.gennorm.rvs(shape, scale=1.5, size=200_000, random_state=0)
    # A density without a jump has its mass on each side in proportion to that side's scale.
    is_right = np.random.RandomState(1).uniform(size=len(values)) < 2 / 3
    found = _fit_asymmetric(np.where(is_right, 2, -1) * np.abs(values))
    assert found == pytest.approx((shape, 1.5, 3.0), rel=0.03)


def test_first_features_equal_those_computed_with_scipy() -> None:
    luma = np.rint(to_y(photo(2, 96, 96)))

    def local(plane: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(plane, 7 / 6, radius=3, mode="nearest")

    deviation = np.sqrt(np.abs(local(luma**2) - local(luma) ** 2))
    normalised = (luma - local(luma)) / (deviation + 1)
    shapes = np.arange(0.2, 10.001, 0.001)
    table = special.gamma(2 / shapes) ** 2 / (special.gamma(1 / shapes) * special.gamma(3 / shapes))
    expected = []
    for plane in (
        normalised,
        *(normalised * np.roll(normalised, s, (0, 1)) for s in ((0, 1), (1, 0), (1, 1), (1, -1))),
    ):
        left, right = (np.sqrt(np.mean(side**2)) for side in (plane[plane < 0], plane[plane > 0]))
        skew = left / right
        ratio = np.abs(plane).mean() ** 2 / (plane**2).mean() * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        shape = shapes[np.abs(table - ratio).argmin()]
        left, right = (side * np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape)) for side in (left, right))
        mean = (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape)
        expected += [shape, (left + right) / 2] if not expected else [shape, mean, left, right]
    assert block_features(to_y(photo(2, 96, 96)), sharp_only=False)[0, :18] == pytest.approx(expected, rel=1e-9)


def test_niqe_of_a_held_out_photo_grows_with_noise_and_blur(photos: Path) -> None:
    metric = find_metric(f"niqe:{photos}")
    image = photo(50, 384, 384)
    noise = np.random.RandomState(0).standard_normal(image.shape) * 25
    noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
    blurred = ndimage.gaussian_filter(image, (2, 2, 0))
    clean = metric(image, image, 4)
    assert 0 < clean < min(metric(noisy, image, 4), metric(blurred, image, 4))
    assert metric(blurred, noisy, 4) == metric(blurred, image, 4)


def test_name_carries_the_hash_of_the_photos(photos: Path, tmp_path: Path) -> None:
    first = find_metric(f"niqe:{photos}").name
    assert first == find_metric(f"niqe:{photos}").name
    assert first.startswith("niqe-")
    write_photos(tmp_path / "others", [(480, 570)] * 3)
    assert find_metric(f"niqe:{tmp_path / 'others'}").name != first


def test_niqe_without_photos_is_not_computed_and_bad_folders_are_refused(tmp_path: Path) -> None:
    assert "niqe:FOLDER" in str(METRICS["niqe"].missing())
    with pytest.raises(InputError, match="no such folder"):
        find_metric(f"niqe:{tmp_path / 'none'}")
    with pytest.raises(InputError, match="holds no photos"):
        find_metric(f"niqe:{tmp_path}")
    Image.fromarray(photo(1, 100, 100)).save(tmp_path / "one.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "gone.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"gone\.png cannot be used: it is a link to nothing"):
        find_metric(f"niqe:{tmp_path / 'bad'}")
    (tmp_path / "bad" / "gone.png").unlink()
    (tmp_path / "bad" / "short.png").write_bytes((tmp_path / "one.png").read_bytes()[:999])
    with pytest.raises(InputError, match=r"short\.png cannot be used: .*truncated"):
        find_metric(f"niqe:{tmp_path / 'bad'}")
    with pytest.raises(InputError, match=r"at least 100 sharp blocks of 96 px"):
        fit((tmp_path / "one.png",))
