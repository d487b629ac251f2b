"""Scores of photos whose right score is known, and of any photo against a plain computation over single pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from harness import photo
from PIL import Image
from scipy.ndimage import gaussian_filter

from shards.format.curation import SCORE_NAMES, Scores
from shards.write.scores import score_photo
from shards.write.subimages import Position, grid

SIDE_PX = 160


def scores_of(gray: np.ndarray, positions: list[Position] | None = None, sub_image_px: int = 64) -> Scores:
    return score_photo(Image.fromarray(gray.astype(np.uint8)), positions or [], sub_image_px)


def named(gray: np.ndarray) -> dict[str, float]:
    return dict(zip(SCORE_NAMES, (float(value) / 1000 for value in scores_of(gray)[0]), strict=True))


def checkerboard(square_px: int, low: int, high: int) -> np.ndarray:
    rows, columns = np.indices((SIDE_PX, SIDE_PX)) // square_px
    return np.where((rows + columns) % 2, high, low)


def test_constant_image_is_flat_and_has_no_blocks() -> None:
    assert named(np.full((SIDE_PX, SIDE_PX), 90)) == {
        "sharpness": 0.0,
        "blockiness": 1.0,
        "flat_share": 1.0,
        "complexity": 0.0,
    }


@pytest.mark.parametrize(("slope", "flat_share"), [(1, 1.0), (2, 0.0)])
def test_gradient_has_no_sharpness_and_its_slope_as_complexity(slope: int, flat_share: float) -> None:
    # Mean step along rows: the slope; along columns: none.
    gradient = np.tile(np.arange(120) * slope, (SIDE_PX, 1))
    assert named(gradient) == {
        "sharpness": 0.0,
        "blockiness": 1.0,
        "flat_share": flat_share,
        "complexity": slope / 2,
    }


def test_checkerboards_have_the_scores_that_follow_from_their_steps() -> None:
    # Squares of 2 px: every second difference, and every difference across two pixels, is one step of 100; half of the
    # neighbours differ. Of the eight phases four have steps: 7 * 1 / 3.
    squares = named(checkerboard(2, 50, 150))
    assert squares == {"sharpness": 1.0, "blockiness": 2.333, "flat_share": 0.0, "complexity": 50.0}
    # Squares of 1 px: second differences without any difference across two pixels; the largest score.
    assert named(checkerboard(1, 120, 130)) == {
        "sharpness": 65.535,
        "blockiness": 1.0,
        "flat_share": 0.0,
        "complexity": 10.0,
    }


@pytest.mark.parametrize("offset_px", [0, 3])
def test_blocks_without_anything_in_them_have_the_largest_blockiness_at_any_offset(offset_px: int) -> None:
    blocks = np.kron(np.random.default_rng(1).integers(0, 256, (22, 22)), np.ones((8, 8), int))
    cut = blocks[offset_px : offset_px + SIDE_PX, offset_px : offset_px + SIDE_PX]
    assert named(cut)["blockiness"] == 65.535


def test_one_edge_is_not_taken_for_blocks() -> None:
    image = np.asarray(Image.fromarray(photo(5, SIDE_PX, SIDE_PX)).convert("L")) // 2
    image[:, 80:] += 110
    assert named(image)["blockiness"] < 1.3  # 2.02 if the edge counted with its whole height


def test_blockiness_grows_as_jpeg_quality_falls() -> None:
    gray = Image.fromarray(photo(1, 320, 320)).convert("L")
    found = [named(np.asarray(gray))["blockiness"]]
    for quality in (75, 50, 20, 10):
        stream = io.BytesIO()
        gray.save(stream, "JPEG", quality=quality)
        found.append(named(np.asarray(Image.open(stream)))["blockiness"])
    assert found == sorted(found)
    assert found[0] < 1.05
    assert found[3] > 1.3


@pytest.mark.parametrize("sigma_px", [1.0, 2.0])
def test_sharpness_of_blurred_noise_is_that_of_its_autocorrelation(sigma_px: float) -> None:
    # Gaussian noise, so that mean absolute values are as standard deviations; r is its correlation at a distance.
    noise = gaussian_filter(np.random.default_rng(2).standard_normal((800, 800)), sigma_px)
    r1, r2 = (np.exp(-(distance**2) / (4 * sigma_px**2)) for distance in (1, 2))
    expected = np.sqrt((6 - 8 * r1 + 2 * r2) / (2 - 2 * r2))
    scaled = np.clip(128 + noise / noise.std() * 30, 0, 255).round()
    assert named(scaled)["sharpness"] == pytest.approx(expected, rel=0.03)


def test_sharpness_does_not_depend_on_contrast() -> None:
    gray = np.asarray(Image.fromarray(photo(3, 320, 320)).convert("L")).astype(float)
    weak = 128 + (gray - 128) / 2
    assert named(weak.round())["sharpness"] == pytest.approx(named(gray)["sharpness"], rel=0.05)


def plain_scores(gray: np.ndarray, position: Position, size_px: int) -> list[int]:
    """The scores of a sub-image by their definition, pixel by pixel."""
    y = gray.astype(int)
    first = [-(-start // 8) * 8 for start in position]
    last = [min((start + size_px) // 8 * 8, (side - 2) // 8 * 8) for start, side in zip(position, y.shape, strict=True)]
    bends = spans = steps = flat = cells = 0
    phases = np.zeros((2, 8), int)
    for top in range(first[0], last[0], 8):
        for left in range(first[1], last[1], 8):
            here, cells = 0, cells + 1
            for row in range(top, top + 8):
                for column in range(left, left + 8):
                    for axis, (a, b, c) in enumerate(
                        (y[row, column : column + 3].tolist(), y[row : row + 3, column].tolist())
                    ):
                        bends += abs(a - 2 * b + c)
                        spans += abs(a - c)
                        here += abs(a - b)
                        phases[axis, (column, row)[axis] % 8] += min(abs(a - b), 32)
            steps += here
            flat += here < 128
    ratios = [7000 * int(phase.max()) // int(phase.sum() - phase.max()) for phase in phases]
    return [1000 * bends // spans, sum(ratios) // 2, 1000 * flat // cells, 1000 * steps // (128 * cells)]


def test_scores_are_those_of_their_definition_at_any_place_of_a_photo() -> None:
    gray = np.asarray(Image.fromarray(photo(4, 150, 133)).convert("L")).copy()
    gray[40:, :70] = gray[40:, :70] // 64 + 100  # parts are flat
    positions = grid(*gray.shape, scale=1, sub_image_px=70, stride_px=43)
    found = scores_of(gray, positions, 70)
    expected = [plain_scores(gray, Position(0, 0), 10**6), *(plain_scores(gray, place, 70) for place in positions)]
    assert found.tolist() == expected
    assert 0 < found[0][2] < 1000
