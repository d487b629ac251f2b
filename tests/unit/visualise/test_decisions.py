"""Decision maps are the discriminator's logits, at their places."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from harness import photo

from pipeline.inference.upscale import to_tensor
from pipeline.inference.visualise.decision_figure import DecidedPhoto, colour_reach
from pipeline.inference.visualise.decisions import DecisionMap, decide, numbers_of, ordered_share
from pipeline.inference.visualise.photos import Photo, lay_windows
from pipeline.models.discriminators import ImageDiscriminator, PatchDiscriminator, UNetDiscriminator

CPU = torch.device("cpu")
BUILT = {"patch": PatchDiscriminator, "unet": UNetDiscriminator, "image": ImageDiscriminator}


def look(gt: torch.Tensor) -> torch.Tensor:
    """Semantics that depend on the crop: 32 channels of its local mean."""
    return torch.nn.functional.avg_pool2d(gt, 16).mean(1, keepdim=True) * torch.linspace(-1, 1, 64).view(1, 64, 1, 1)


@pytest.mark.parametrize("name", BUILT)
def test_map_of_one_crop_is_the_discriminators_logits(name: str) -> None:
    discriminator = BUILT[name](8, 64).eval()
    gt, sr = photo(0, 64, 64), photo(1, 64, 64)
    decisions = decide(discriminator, look, gt, sr, crop_px=64)
    logits = discriminator(to_tensor(sr, CPU), look(to_tensor(gt, CPU))).detach().numpy()
    assert np.array_equal(decisions.logits, logits[0].reshape(decisions.logits.shape))
    assert decisions.sigmoid == pytest.approx(1 / (1 + np.exp(-logits[0].reshape(decisions.logits.shape))))
    assert (decisions.top_px, decisions.left_px) == (discriminator.logit_margin_px,) * 2


@pytest.mark.parametrize(
    ("name", "shape", "cell_px"), [("patch", (10, 16), 8), ("unet", (64, 128), 1), ("image", (1, 2), 64)]
)
def test_maps_of_crops_adjoin(name: str, shape: tuple[int, int], cell_px: int) -> None:
    discriminator = BUILT[name](8, None).eval()
    gt = photo(0, 100, 150)
    decisions = decide(discriminator, lambda _: None, gt, gt, crop_px=64)
    step_px = 64 - 2 * discriminator.logit_margin_px
    windows = lay_windows(gt, 64, step_px)
    assert decisions.logits.shape == (shape if name != "patch" else (len(windows) * 6, len(windows[0]) * 6))
    assert decisions.cell_px == cell_px
    last = windows[-1][-1]
    crop = discriminator(to_tensor(last.cut(gt), CPU)).detach().numpy().reshape(-1)
    side = int(len(crop) ** 0.5)
    assert np.array_equal(decisions.logits[-side:, -side:], crop.reshape(side, side))
    left, right, bottom, top = decisions.extent_px
    margin_px = discriminator.logit_margin_px
    assert (left + 0.5, top + 0.5) == (windows[0][0].left_px + margin_px, windows[0][0].top_px + margin_px)
    assert (right + 0.5, bottom + 0.5) == (last.left_px + 64 - margin_px, last.top_px + 64 - margin_px)


@pytest.mark.parametrize(("height_px", "width_px"), [(48, 48), (95, 200), (96, 97), (500, 333)])
@pytest.mark.parametrize("step_px", [48, 32])
def test_windows_are_in_the_picture_as_many_as_fit(height_px: int, width_px: int, step_px: int) -> None:
    rows = lay_windows(np.zeros((height_px, width_px, 3), np.uint8), 48, step_px)
    assert len(rows) == 1 + (height_px - 48) // step_px
    for number, row in enumerate(rows):
        assert [window.left_px for window in row] == [row[0].left_px + step_px * at for at in range(len(row))]
        assert row[0].top_px == rows[0][0].top_px + step_px * number
        assert all(window.cut(np.zeros((height_px, width_px, 3))).shape == (48, 48, 3) for window in row)
    unused_px = width_px - (rows[0][-1].left_px + 48)
    assert abs(unused_px - rows[0][0].left_px) <= 15
    assert unused_px + rows[0][0].left_px < step_px


@pytest.mark.parametrize(("values", "reach"), [({0.0: 4}, 0.02), ({-9.0: 4}, 0.49988), ({1.0: 99, -1.0: 99}, 0.23106)])
def test_colours_reach_equally_far_on_both_sides(values: Mapping[float, int], reach: float) -> None:
    logits = np.repeat(list(values), list(values.values()))[None]
    decisions = DecisionMap(logits, 0, 0, 1)
    blank = np.zeros((4, 4, 3), np.uint8)
    found = colour_reach([DecidedPhoto(Photo("a", blank, blank, blank), decisions, decisions)])
    assert found == pytest.approx(reach, abs=1e-4)


@pytest.mark.parametrize(("loss", "on_hr", "on_sr"), [
    ("vanilla", 0.75, 0.5),  # real above 0
    ("least_squares", 0.5, 0.75),  # above 0.5
    ("relativistic_average", 0.75, 0.75),  # above the other side's mean
])  # fmt: skip
def test_accuracy_is_the_fraction_on_the_right_side_of_the_loss_s_boundary(
    loss: str, on_hr: float, on_sr: float
) -> None:
    hr = DecisionMap(np.array([[-1.0, 0.25], [1.0, 3.0]], np.float32), 0, 0, 1)
    sr = DecisionMap(np.array([[-2.0, -1.0, 0.25, 2.0]], np.float32), 0, 0, 1)
    numbers = numbers_of(hr, sr, loss)
    assert (numbers["hr"]["accuracy"], numbers["sr"]["accuracy"]) == (on_hr, on_sr)
    assert numbers["hr"]["mean_logit"] == 0.8125


def test_ordered_share_is_blind_to_what_hr_and_sr_have_in_common() -> None:
    sr = DecisionMap(np.array([[-2.0, -1.0, 0.25, 2.0]], np.float32), 0, 0, 1)
    hr = DecisionMap(sr.logits + np.array([[0.5, 0.5, -0.5, 0.0]], np.float32), 0, 0, 1)
    assert ordered_share(hr, sr) == 0.625  # two of four, and half of the tie
    biased = [DecisionMap(one.logits - 9, 0, 0, 1) for one in (hr, sr)]
    assert numbers_of(*biased, "vanilla")["hr"]["accuracy"] == 0
    assert ordered_share(*biased) == 0.625
