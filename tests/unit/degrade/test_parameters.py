"""The law of the drawn parameters, on 20,000 draws of fixed seeds, and golden hashes of a few."""

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from scipy import stats

from shards.degradation.draws import variant_seed
from shards.degradation.operation import Step
from shards.degradation.operations.blur import Blur
from shards.degradation.operations.jpeg import Jpeg
from shards.degradation.operations.noise import Noise
from shards.degradation.operations.resize import Resize
from shards.degradation.parameters import SampleParameters, draw_parameters
from shards.degradation.recipe import load_recipe
from shards.errors import InputError

SIZES = {"scale": 4, "canvas_px": 400, "crop_px": 256}
NUM_DRAWS = 20_000
LEAST_P = 1e-4


def _draw(name: str, variant: int) -> SampleParameters:
    return draw_parameters(load_recipe(name), variant_seed(11, "cd" * 32, variant), **SIZES)


@pytest.fixture(scope="module")
def draws() -> list[SampleParameters]:
    return [_draw("realesrgan-1", variant) for variant in range(NUM_DRAWS)]


def _column(draws: Sequence[SampleParameters], index: int) -> list[Any]:
    return [sample.steps[index] for sample in draws]


def _is_uniform(values: Sequence[float], low: float, high: float) -> bool:
    return stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > LEAST_P


def _has_chances(values: Sequence[object], chances: dict[Any, float]) -> bool:
    assert set(values) <= set(chances)
    observed = [list(values).count(value) for value in chances]
    expected = [chance * len(values) for chance in chances.values()]
    return stats.chisquare(observed, expected).pvalue > LEAST_P


@pytest.mark.parametrize(("index", "applied", "sigma"), [(0, 1.0, (0.2, 3.0)), (4, 0.8, (0.2, 1.5))])
def test_blurs_follow_their_law(
    draws: list[SampleParameters], index: int, applied: float, sigma: tuple[float, float]
) -> None:
    blurs: list[Blur] = _column(draws, index)
    gaussians = 0.9 * applied
    chances = {"none": 1 - applied, "sinc": 0.1 * applied, "gaussian": 0.7 * gaussians}
    chances |= {"generalized": 0.15 * gaussians, "plateau": 0.15 * gaussians}
    assert _has_chances([blur.family for blur in blurs], {k: v for k, v in chances.items() if v})
    blurs = [blur for blur in blurs if blur.family != "none"]
    assert _has_chances([blur.size_px for blur in blurs], {size: 1 / 8 for size in range(7, 22, 2)})
    bells = [blur for blur in blurs if blur.family != "sinc"]
    turned = [blur for blur in bells if blur.sigma_x_px != blur.sigma_y_px]
    assert stats.binomtest(len(turned), len(bells), 0.31).pvalue > LEAST_P
    assert _is_uniform([blur.sigma_x_px for blur in bells], *sigma)
    assert _is_uniform([blur.sigma_y_px for blur in turned], *sigma)
    assert _is_uniform([blur.theta_rad for blur in turned], -math.pi, math.pi)


@pytest.mark.parametrize("index", [0, 4])
def test_blur_shapes_are_even_below_and_above_one(draws: list[SampleParameters], index: int) -> None:
    blurs: list[Blur] = _column(draws, index)
    shapes = np.array([blur.beta for blur in blurs if blur.family == "generalized"])
    assert stats.binomtest(int((shapes < 1).sum()), len(shapes), 0.5).pvalue > LEAST_P
    assert _is_uniform(shapes[shapes < 1], 0.5, 1)
    assert _is_uniform(shapes[shapes > 1], 1, 4)
    flat = np.array([blur.beta for blur in blurs if blur.family == "plateau"])
    assert stats.binomtest(int((flat == 1).sum()), len(flat), 0.5).pvalue > LEAST_P
    assert _is_uniform(flat[flat > 1], 1, 2)


def test_sinc_cutoffs_depend_on_the_kernel_size(draws: list[SampleParameters]) -> None:
    sincs = [blur for blur in _column(draws, 0) if blur.family == "sinc"]
    assert _is_uniform([blur.cutoff_rad for blur in sincs if blur.size_px < 13], math.pi / 3, math.pi)
    assert _is_uniform([blur.cutoff_rad for blur in sincs if blur.size_px >= 13], math.pi / 5, math.pi)
    last = [blur for sample in draws for blur in sample.steps[8:10] if isinstance(blur, Blur)]
    assert _has_chances([blur.family for blur in last], {"sinc": 0.8, "none": 0.2})
    sizes_px = [blur.size_px for blur in last if blur.family == "sinc"]
    assert _has_chances(sizes_px, {size: 1 / 8 for size in range(7, 22, 2)})
    assert _is_uniform([blur.cutoff_rad for blur in last if blur.family == "sinc"], math.pi / 3, math.pi)


def test_first_resize_follows_its_law(draws: list[SampleParameters]) -> None:
    resizes: list[Resize] = _column(draws, 1)
    factors = np.array([1 / step.step for step in resizes])
    assert [step.size_px for step in resizes] == [math.floor(400 / step.step + 1e-9) for step in resizes]
    counts = [int((factors > 1).sum()), int((factors < 1).sum()), int((factors == 1).sum())]
    assert stats.chisquare(counts, [0.2 * NUM_DRAWS, 0.7 * NUM_DRAWS, 0.1 * NUM_DRAWS]).pvalue > LEAST_P
    assert _is_uniform(factors[factors > 1], 1, 1.5)
    assert _is_uniform(factors[factors < 1], 0.15, 1)
    assert _has_chances([step.mode for step in resizes], dict.fromkeys(("area", "bilinear", "bicubic"), 1 / 3))


def test_second_resize_is_relative_to_the_output(draws: list[SampleParameters]) -> None:
    for sample in draws[:2000]:
        first, second = sample.steps[1], sample.steps[5]
        assert isinstance(first, Resize)
        assert isinstance(second, Resize)
        assert 30 <= second.size_px <= 120
        assert second.step == first.size_px / second.size_px
    sizes_px = np.array([step.size_px for step in _column(draws, 5)])
    # Factors of [0.3, 1) give 30..99, kept ones 100, and [1, 1.2) gives 100..119.
    counts = [int((sizes_px < 100).sum()), int((sizes_px >= 100).sum())]
    assert stats.chisquare(counts, [0.4 * NUM_DRAWS, 0.6 * NUM_DRAWS]).pvalue > LEAST_P
    assert _has_chances(list(sizes_px[sizes_px < 100]), {size: 1 / 70 for size in range(30, 100)})
    # 100 is a kept size, or enlarged by less than 1.01.
    enlarged = dict.fromkeys(range(101, 120), 0.3 / 20) | {100: 0.3 + 0.3 / 20}
    assert _has_chances(list(sizes_px[sizes_px >= 100]), {size: chance / 0.6 for size, chance in enlarged.items()})


@pytest.mark.parametrize("which", [1, -1])
def test_later_resizes_take_each_filter_as_often(draws: list[SampleParameters], which: int) -> None:
    resizes = [[step for step in sample.steps if isinstance(step, Resize)][which] for sample in draws]
    assert _has_chances([step.mode for step in resizes], dict.fromkeys(("area", "bilinear", "bicubic"), 1 / 3))
    if which == -1:
        assert {step.size_px for step in resizes} == {100}


def test_resize_modes_are_drawn_independently(draws: list[SampleParameters]) -> None:
    modes = [tuple(step.mode for step in sample.steps if isinstance(step, Resize)) for sample in draws]
    triples = itertools.product(("area", "bilinear", "bicubic"), repeat=3)
    assert _has_chances(modes, dict.fromkeys(triples, 1 / 27))


@pytest.mark.parametrize(("index", "sigma", "scale"), [(2, 30, 3.0), (6, 25, 2.5)])
def test_noise_follows_its_law(draws: list[SampleParameters], index: int, sigma: float, scale: float) -> None:
    noises: list[Noise] = _column(draws, index)
    assert _has_chances([noise.kind for noise in noises], {"gaussian": 0.5, "poisson": 0.5})
    assert _has_chances([noise.is_gray for noise in noises], {True: 0.4, False: 0.6})
    assert _is_uniform([noise.strength for noise in noises if noise.kind == "gaussian"], 1, sigma)
    assert _is_uniform([noise.strength for noise in noises if noise.kind == "poisson"], 0.05, scale)


def test_jpeg_and_the_end_follow_their_law(draws: list[SampleParameters]) -> None:
    assert _is_uniform([step.quality for step in _column(draws, 3)], 30, 95)
    ends = [(sample.steps[7], sample.steps[10]) for sample in draws]
    assert all(isinstance(step, Jpeg) for end in ends for step in end)
    before, after = [[step.quality for step in column] for column in zip(*ends, strict=True)]
    assert all((early is None) != (late is None) for early, late in zip(before, after, strict=True))
    assert _has_chances([late is None for late in after], {True: 0.5, False: 0.5})
    assert _is_uniform([early or late for early, late in zip(before, after, strict=True)], 30, 95)


def test_paired_crops_are_even_over_the_aligned_places(draws: list[SampleParameters]) -> None:
    places = {place: 1 / 37 for place in range(0, 145, 4)}
    assert _has_chances([sample.crop_top_px for sample in draws], places)
    assert _has_chances([sample.crop_left_px for sample in draws], places)


def _plain(drawn: SampleParameters) -> dict[str, Any]:
    """The parameters in the layout that the hashes were taken of."""
    steps = [{"name": type(step).__name__.lower(), **asdict(step)} for step in drawn.steps]
    for values in steps:
        if values["name"] == "noise":
            values["operation"] = values.pop("stream")
    return {**asdict(drawn), "steps": steps}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("realesrgan-1", "63291ca5aba0cf71188e1ddb3d7af42917c0dbb1afc591d60cae01f2cd1a230c"),
        ("realesrgan-light-1", "b186cb3e61e780b198cf237aeba1b4f717c3864eb9b83b296343581e3d79ef28"),
        ("bicubic-1", "ae3b1cbf84efe92e76619aed9ff0fc3a90306a531d1e94129be9384812b89419"),
    ],
)
def test_parameters_of_fixed_seeds_keep_their_hash(name: str, expected: str) -> None:
    # A recipe's law never changes under its name: a new law is a new recipe.
    text = json.dumps([_plain(_draw(name, variant)) for variant in range(50)], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == expected


@pytest.mark.parametrize(
    ("step", "values", "text"),
    [
        (Blur, ("haze",), "blur.family must be.*haze"),
        (Blur, ("gaussian", 9, -1.0), "blur.sigma_x_px must be.*-1.0"),
        (Noise, ("gaussian", float("nan"), False, 4), "noise.strength must be.*nan"),
        (Resize, ("lanczos", 40, 1.0), "resize.mode must be.*lanczos"),
        (Jpeg, (0.0, "faithful"), "jpeg.quality must be"),
    ],
)
def test_step_of_impossible_values_names_field_and_value(step: Any, values: tuple[Any, ...], text: str) -> None:
    with pytest.raises(InputError, match=text):
        step(*values)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Blur("none"), ""),
        (Blur("gaussian", 9, 1.0, 1.0), "gaussian 9 px, sigma 1.00"),
        (Blur("plateau", 9, 1.0, 0.5, 0.3, 1.5), "plateau 9 px, sigma 1.00 0.50, beta 1.50"),
        (Blur("sinc", 7, cutoff_rad=2.0), "sinc 7 px, cutoff 2.00 rad"),
        (Resize("matlab_bicubic", 40, 2.0), "resize to 40 px, matlab bicubic"),
        (Noise("none", 0.0, False, 4), ""),
        (Noise("poisson", 1.5, True, 4), "poisson noise 1.50, gray"),
        (Jpeg(None, "faithful"), ""),
        (Jpeg(48.2, "reference"), "JPEG 48"),
    ],
)
def test_caption_says_what_a_step_does(step: Step, expected: str) -> None:
    assert step.caption() == expected


@pytest.mark.parametrize("sizes", [{"crop_px": 404}, {"crop_px": 30}, {"canvas_px": 402}])
def test_draw_of_sizes_that_do_not_fit_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"sample abab.*multiple of 4.*got \d+"):
        draw_parameters(load_recipe("realesrgan-1"), "ab" * 16, **{**SIZES, **sizes})
