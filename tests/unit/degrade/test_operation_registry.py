"""A degradation operation from outside the package: a recipe names it, its draws replay, batches are degraded by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from pipeline.degrade import degrade, stack_parameters
from pipeline.degrade.operations import APPLICATIONS
from pipeline.degrade.step_batch import Application, StepBatch
from shards.degradation.draws import variant_seed
from shards.degradation.operation import Operation, Place, Step
from shards.degradation.operations import OPERATIONS
from shards.degradation.parameters import SampleParameters, draw_parameters
from shards.degradation.recipe import Recipe, parse_recipe
from shards.degradation.rules import Range, require_range
from shards.errors import InputError

# The operation: all channels times one factor per image.


@dataclass(frozen=True)
class FadeRecipe:
    factor: Range

    def __post_init__(self) -> None:
        require_range("factor", self.factor, least=0.0)


@dataclass(frozen=True)
class Fade(Step):
    application: ClassVar[str] = "fade"

    factor: float

    def caption(self) -> str:
        return f"fade {self.factor:.2f}"


def draw_fade(recipe: FadeRecipe, place: Place) -> Fade:
    return Fade(place.stream.uniform(*recipe.factor))


@dataclass(frozen=True)
class FadeBatch(StepBatch):
    factor: Tensor

    def select(self, samples: list[int]) -> FadeBatch:
        return FadeBatch(self.factor[samples])

    def apply(self, image: Tensor, size_px: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        return image * self.factor.to(image.dtype).view(-1, 1, 1, 1), size_px


def stack_fades(steps: Sequence[Fade], _: Sequence[int]) -> FadeBatch:
    return FadeBatch(torch.tensor([step.factor for step in steps], dtype=torch.float64))


FADE = Operation("fade", FadeRecipe, streams=(1000, 1001), draw=draw_fade)


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the operation for one test."""
    for registry in (OPERATIONS, APPLICATIONS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    OPERATIONS.add(FADE)
    APPLICATIONS.add(Application("fade", stack_fades))


END = {
    "area_probability": 0.0,
    "bilinear_probability": 0.0,
    "bicubic_probability": 0.0,
    "matlab_bicubic_probability": 1.0,
}
NOISE = {
    "probability": 1.0,
    "gaussian_probability": 1.0,
    "gray_probability": 0.5,
    "sigma_255": [1.0, 9.0],
    "poisson_scale": [1.0, 1.0],
}


def _recipe(*stages: dict[str, Any]) -> Recipe:
    return parse_recipe({"format": 1, "name": "faded-1", "end": END, "stages": list(stages)}, "faded.toml")


def _draw(recipe: Recipe, num: int = 5) -> list[SampleParameters]:
    seeds = [variant_seed(3, "ef" * 32, variant) for variant in range(num)]
    return [draw_parameters(recipe, seed, scale=4, canvas_px=32, crop_px=32) for seed in seeds]


FADED = {"order": ["fade", "noise"], "fade": {"factor": [0.25, 0.75]}, "noise": NOISE}


def test_operation_that_a_recipe_names_is_drawn_and_replays() -> None:
    drawn = _draw(_recipe(FADED))
    assert drawn == _draw(_recipe(FADED))
    factors = [sample.steps[0].factor for sample in drawn if isinstance(sample.steps[0], Fade)]
    assert len(set(factors)) == 5
    assert all(0.25 <= factor <= 0.75 for factor in factors)
    assert drawn[0].steps[0].caption() == f"fade {factors[0]:.2f}"


def test_operation_in_a_stage_shifts_no_other_draw() -> None:
    plain = [sample.steps for sample in _draw(_recipe({"order": ["noise"], "noise": NOISE}))]
    assert [sample.steps[1:] for sample in _draw(_recipe(FADED))] == plain


def test_operation_in_two_stages_draws_from_two_streams() -> None:
    fade = {"order": ["fade"], "fade": {"factor": [0.25, 0.75]}}
    for sample in _draw(_recipe(fade, fade)):
        assert sample.steps[0] != sample.steps[1]


def test_batch_is_degraded_by_the_operation_of_each_image() -> None:
    drawn = _draw(_recipe({"order": ["fade"], "fade": {"factor": [0.25, 0.75]}}))
    lq = degrade(torch.full((5, 3, 32, 32), 0.8), stack_parameters(drawn)).lq
    for image, sample in zip(lq, drawn, strict=True):
        step = sample.steps[0]
        assert isinstance(step, Fade)
        assert torch.allclose(image, torch.tensor(0.8 * step.factor), atol=0.51 / 255)


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ({"order": ["fade"], "fade": {"factor": [0.75, 0.25]}}, r"factor must be.*low <= high.*stages\[0\]\.fade"),
        ({"order": ["fade"], "fade": {"factr": [0.25, 0.75]}}, "unknown key 'factr', did you mean 'factor'"),
        ({"order": ["fade", "fade"], "fade": {"factor": [0.2, 0.3]}}, "each once"),
        ({"order": ["fate"], "fade": {"factor": [0.2, 0.3]}}, "operation is named 'fate'; did you mean fade"),
        (
            {"order": ["fade"], "fade": {"factor": [0.2, 0.3]}, "haze": {}},
            "unknown key 'haze', known keys: order, blur",
        ),
    ],
)
def test_fault_in_the_operation_of_a_recipe_is_named(stage: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        _recipe(stage)


@pytest.mark.parametrize("streams", [(2, 1002), (1001, 1003), (0, 1002), (1002, 1002), (-1, 1002)])
def test_operation_on_a_stream_that_is_taken_is_refused(streams: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="streams of operation 'other' must be two unused numbers"):
        OPERATIONS.add(Operation("other", FadeRecipe, streams, draw_fade))


def test_sinc_is_an_operation_of_stages_too() -> None:
    sinc = {"order": ["sinc"], "sinc": {"probability": 1.0, "size_px": [7, 9], "cutoff_pi": [0.5, 1.0]}}
    drawn = _draw(_recipe(sinc, sinc))
    photos = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert all(sample.steps[0] != sample.steps[1] for sample in drawn)
    filtered = degrade(photos, stack_parameters(drawn)).lq
    assert not torch.equal(filtered, degrade(photos, stack_parameters(_draw(_recipe()))).lq)
