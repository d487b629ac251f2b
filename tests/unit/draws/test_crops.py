import numpy as np
import pytest

from shards.degradation.crops import NUM_DIHEDRALS, Crop, draw_crop
from shards.degradation.draws import variant_seed
from shards.errors import InputError


@pytest.mark.parametrize("dihedral", range(NUM_DIHEDRALS))
def test_apply_to_gt_and_lq_shows_the_same_place(dihedral: int) -> None:
    lq = np.arange(12 * 10 * 3).reshape(12, 10, 3)
    gt = lq.repeat(4, axis=0).repeat(4, axis=1)
    crop = Crop(8, 12, 16, dihedral)
    expected = crop.scaled(4).apply(lq).repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(crop.apply(gt), expected)


def test_apply_of_the_eight_symmetries_gives_eight_pictures() -> None:
    image = np.arange(16).reshape(4, 4)
    turned = {Crop(0, 0, 4, dihedral).apply(image).tobytes() for dihedral in range(NUM_DIHEDRALS)}
    assert len(turned) == NUM_DIHEDRALS
    np.testing.assert_array_equal(Crop(0, 0, 4, 7).apply(image), image[::-1, ::-1].T)


def test_draw_crop_over_many_seeds_reaches_every_place_and_stays_inside() -> None:
    seeds = [variant_seed(0, "ab", variant) for variant in range(600)]
    crops = [draw_crop(seed, height_px=48, width_px=56, crop_px=32, multiple_px=4) for seed in seeds]
    assert {crop.top_px for crop in crops} == set(range(0, 17, 4))
    assert {crop.left_px for crop in crops} == set(range(0, 25, 4))
    assert {crop.dihedral for crop in crops} == set(range(8))
    assert crops[0] == draw_crop(seeds[0], height_px=48, width_px=56, crop_px=32, multiple_px=4)


def test_draw_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"crop_px 32 is larger than the image of 30x64 px; sample abab.* 28 px"):
        draw_crop("ab" * 16, height_px=30, width_px=64, crop_px=32, multiple_px=4)
    with pytest.raises(InputError, match="multiple of the scale"):
        draw_crop("ab" * 16, height_px=64, width_px=64, crop_px=30, multiple_px=4)


def test_crop_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="not aligned"):
        Crop(2, 0, 16, 0).scaled(4)
    with pytest.raises(InputError, match="does not lie"):
        Crop(0, 4, 8, 0).apply(np.zeros((8, 8, 3)))
