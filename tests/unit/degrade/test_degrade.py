import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.degrade import degrade, stack_parameters
from pipeline.degrade.chain import _degrade
from shards.degradation import bicubic
from shards.degradation.draws import variant_seed
from shards.degradation.parameters import SampleParameters, draw_parameters
from shards.degradation.recipe import load_recipe
from shards.errors import InputError

SIZES = {"scale": 4, "canvas_px": 96, "crop_px": 64}


def _parameters(num: int, name: str = "realesrgan-1", first: int = 0, **sizes: int) -> list[SampleParameters]:
    seeds = [variant_seed(3, "ef" * 32, variant) for variant in range(first, first + num)]
    return [draw_parameters(load_recipe(name), seed, **{**SIZES, **sizes}) for seed in seeds]


def _photos(num: int, side_px: int = 96) -> Tensor:
    """Smooth pictures with edges, as 8-bit values."""
    random = np.random.RandomState(1)
    field = np.cumsum(np.cumsum(random.standard_normal((num, 3, side_px, side_px)), axis=2), axis=3)
    field = 0.5 + 0.25 * np.sin(field / 8) + 0.2 * (np.sin(field / 29) > 0)
    return torch.from_numpy(np.round(field * 255) / 255).float()


@pytest.mark.parametrize("name", ["realesrgan-1", "realesrgan-light-1"])
@pytest.mark.parametrize("at_once", [False, True])
def test_degrade_of_a_sample_alone_or_elsewhere_in_a_batch_agrees(
    name: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if at_once:
        # What a GPU does.
        monkeypatch.setattr("pipeline.degrade.chain._degrade_one_by_one", _degrade)
    parameters, photos = _parameters(14, name), _photos(14)
    batch = degrade(photos[:7], stack_parameters(parameters[:7])).lq
    order = [9, 4, 12, 0, 6, 13, 2]
    other = degrade(photos[order], stack_parameters([parameters[k] for k in order])).lq
    for sample in range(7):
        alone = degrade(photos[sample : sample + 1], stack_parameters(parameters[sample : sample + 1])).lq[0]
        for result in [alone, *(other[place] for place, chosen in enumerate(order) if chosen == sample)]:
            levels = (result - batch[sample]).abs() * 255
            assert levels.max() < 1.5
            assert (levels > 0.5).float().mean() <= 0.001


def test_degrade_twice_gives_equal_bits() -> None:
    parameters, photos = stack_parameters(_parameters(5)), _photos(5)
    for dtype in (torch.float64, torch.float32):
        first, second = degrade(photos, parameters, dtype=dtype), degrade(photos, parameters, dtype=dtype)
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_degrade_returns_aligned_eight_bit_crops_in_range() -> None:
    parameters, photos = _parameters(6), _photos(6)
    before = photos.clone()
    lq, gt, gt_sharp = degrade(photos, stack_parameters(parameters))
    assert (lq.shape, gt.shape, gt_sharp.shape) == ((6, 3, 16, 16), (6, 3, 64, 64), (6, 3, 64, 64))
    assert lq.dtype == gt.dtype == gt_sharp.dtype == torch.float32
    assert torch.equal(lq, (lq * 255).round() / 255)
    assert all(image.min() >= 0 and image.max() <= 1 for image in (lq, gt, gt_sharp))
    assert torch.equal(photos, before)
    for sample, drawn in enumerate(parameters):
        top_px, left_px = drawn.crop_top_px, drawn.crop_left_px
        assert torch.equal(gt[sample], photos[sample, :, top_px : top_px + 64, left_px : left_px + 64])
    assert (gt_sharp - gt).abs().max() > 0.01


def test_degrade_of_one_picture_by_a_batch_of_draws_gives_different_images() -> None:
    lq = degrade(_photos(1).repeat(8, 1, 1, 1), stack_parameters(_parameters(8, crop_px=96))).lq
    distances = torch.cdist(lq.flatten(1), lq.flatten(1)) + torch.eye(8) * 9
    assert distances.min() > 0.5


def test_degrade_by_the_classical_recipe_equals_the_shards_bicubic() -> None:
    photos = _photos(3)
    lq, gt, gt_sharp = degrade(photos, stack_parameters(_parameters(3, "bicubic-1", crop_px=96)))
    assert torch.equal(gt, photos)
    assert gt_sharp is gt
    for sample in range(3):
        pixels = (photos[sample].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        expected = bicubic.downscale(pixels, 4)
        ours = (lq[sample].permute(1, 2, 0).numpy() * 255).round()
        # A sum that ends in exactly a half may round either way.
        assert np.abs(ours - expected).max() <= 1
        assert (ours != expected).mean() < 0.001


@pytest.mark.parametrize("name", ["realesrgan-1", "realesrgan-light-1", "bicubic-1"])
def test_degrade_on_a_device_never_asks_for_a_value(name: str) -> None:
    # Tensors on "meta" have no values: whatever would wait for a device to read one fails there.
    photos, parameters = _photos(7).to("meta"), stack_parameters(_parameters(7, name)).to("meta")
    assert _degrade(photos, parameters, torch.float64).lq.shape == (7, 3, 16, 16)
    with pytest.raises(RuntimeError, match="meta"):  # reading a value fails, so the pass above read none
        photos.amax().item()


def test_degrade_in_float32_is_close_on_average() -> None:
    parameters, photos = stack_parameters(_parameters(7)), _photos(7)
    exact, fast = degrade(photos, parameters).lq, degrade(photos, parameters, dtype=torch.float32).lq
    assert (exact - fast).abs().mean() < 0.002


def test_degrade_of_a_batch_at_once_equals_one_by_one() -> None:
    # A CPU goes one by one, a GPU takes the batch at once.
    parameters, photos = stack_parameters(_parameters(7)), _photos(7)
    single, whole = degrade(photos, parameters), _degrade(photos, parameters, torch.float64)
    assert torch.equal(single.gt, whole.gt)
    assert (single.target - whole.target).abs().max() < 1e-6
    assert (single.lq - whole.lq).abs().max() * 255 < 1.5
    assert ((single.lq - whole.lq).abs() * 255 > 0.5).float().mean() <= 0.001


def test_stack_parameters_survives_pickling_as_loader_workers_need() -> None:
    parameters, photos = stack_parameters(_parameters(3)), _photos(3)
    copy = pickle.loads(pickle.dumps(parameters)).to("cpu")
    assert torch.equal(degrade(photos, parameters).lq, degrade(photos, copy).lq)
    assert len(copy) == 3


def test_stack_parameters_of_samples_that_do_not_go_together_names_them() -> None:
    first, other = _parameters(1)[0], _parameters(1, first=1, crop_px=32)[0]
    with pytest.raises(InputError, match=f"one crop_px; sample {first.seed_hex} has 64"):
        stack_parameters([first, other])
    with pytest.raises(InputError, match="at least one"):
        stack_parameters([])


@pytest.mark.parametrize(
    ("photos", "text"),
    [
        (torch.zeros(2, 3, 96, 92), r"shape \(2, 3, 96, 96\); got torch.float32 \(2, 3, 96, 92\)"),
        (torch.zeros(1, 3, 96, 96), r"\(1, 3, 96, 96\)"),
        (torch.zeros(2, 3, 96, 96, dtype=torch.uint8), "torch.uint8"),
    ],
)
def test_degrade_of_unfit_images_is_refused(photos: Tensor, text: str) -> None:
    with pytest.raises(InputError, match=text):
        degrade(photos, stack_parameters(_parameters(2)))
