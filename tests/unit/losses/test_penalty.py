"""The approximate gradient penalty, against the gradient itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.losses import GradientPenalty


def squared_gradient_norm(network: nn.Module, images: Tensor) -> float:
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images).sum(), images)
    return gradient.square().sum(dim=(1, 2, 3)).mean().item()


@pytest.mark.parametrize("weights", [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)])
def test_penalty_is_half_the_weighted_squared_norm_of_the_gradient(weights: tuple[float, float]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Flatten(), nn.Linear(8 * 36, 1)).double()
    # One image many times: the mean over the noise.
    real, fake = (torch.rand(1, 3, 8, 8).double().expand(20_000, -1, -1, -1) for _ in range(2))
    penalty = GradientPenalty(*weights, sigma=1e-3)
    with torch.no_grad():
        noisy = penalty.noisy((real, fake))
        terms = penalty((network(real), network(fake)), [network(images) for images in noisy])
    expected = {
        name: weight / 2 * squared_gradient_norm(network, images[:1])
        for name, weight, images in zip(("r1", "r2"), weights, (real, fake), strict=True)
        if weight
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=0.05)


def test_penalty_without_weights_adds_no_pass_and_no_term() -> None:
    images = (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    assert GradientPenalty().noisy(images) == []
    assert GradientPenalty()((torch.rand(2), torch.rand(2)), []) == {}
