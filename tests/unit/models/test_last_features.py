"""The features that pictures show are what the last layer reads, and logits have the places that pictures give them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.models.discriminators import (
    Discriminator,
    ImageDiscriminator,
    PatchDiscriminator,
    UNetDiscriminator,
)
from pipeline.models.discriminators.last_features import last_features

NETWORKS = [PatchDiscriminator, UNetDiscriminator, ImageDiscriminator]


def build(network: type[Discriminator], *, semantic: bool, **options: object) -> Discriminator:
    torch.manual_seed(0)
    return network(8, 64 if semantic else None, **options).eval()


@pytest.mark.parametrize("semantic", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_last_features_are_on_the_grid_and_decide(network: type[Discriminator], semantic: bool) -> None:
    discriminator = build(network, semantic=semantic)
    image = torch.rand(2, 3, 64, 48)
    semantics = torch.rand(2, 64, 4, 3) if semantic else None
    features = last_features(discriminator, image, semantics)
    assert features.shape[2:] == (4, 3)
    assert not any(module._forward_pre_hooks for module in discriminator.modules())
    before = discriminator(image, semantics)
    layer = discriminator.get_submodule(discriminator.features_layer)
    with torch.no_grad():
        for parameter in layer.parameters():  # what stands before it does not change, the decision does
            parameter.mul_(2.0)
    assert torch.equal(last_features(discriminator, image, semantics), features)
    if not isinstance(discriminator, ImageDiscriminator):  # whose layer's weight is normalised
        assert not torch.equal(discriminator(image, semantics), before)


@pytest.mark.parametrize("network", NETWORKS)
def test_last_features_stand_behind_every_fusion_block(network: type[Discriminator]) -> None:
    discriminator = build(network, semantic=True)
    order: list[str] = []
    for name, module in discriminator.named_modules():
        if name.startswith("merge") or name == discriminator.features_layer:
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    discriminator(torch.rand(1, 3, 32, 32), torch.rand(1, 64, 2, 2))
    assert len(order) == 4
    assert order[-1] == discriminator.features_layer


@pytest.mark.parametrize("network", NETWORKS)
def test_logits_fill_the_image_but_for_the_margin(network: type[Discriminator]) -> None:
    discriminator = build(network, semantic=False)
    logits = discriminator(torch.rand(1, 3, 96, 96))
    stride_px = discriminator.logit_stride_px
    if stride_px is None:
        assert logits.numel() == 1
    else:
        assert logits.shape[2] * stride_px == 96 - 2 * discriminator.logit_margin_px


def test_logit_of_a_patch_reads_the_image_around_its_place() -> None:
    discriminator = build(PatchDiscriminator, semantic=False)
    nn.init.ones_(discriminator.conv_last.weight)
    image = torch.rand(1, 3, 128, 128, requires_grad=True)
    row, column = 6, 7
    discriminator(image)[0, 0, row, column].backward()
    rows, columns = (image.grad[0].abs().sum(0).sum(axis).nonzero()[:, 0] for axis in (1, 0))
    for seen, number in ((rows, row), (columns, column)):
        first_px = discriminator.logit_margin_px + number * discriminator.logit_stride_px
        assert len(seen) == 70
        assert (seen[0] + seen[-1]) / 2 == first_px + (discriminator.logit_stride_px - 1) / 2
