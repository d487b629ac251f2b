"""What a generator file is taken for: networks that cannot be used here are refused as what they are."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from pipeline.errors import CheckpointError
from pipeline.models.generators import RRDBNet, SRVGGNetCompact, SwinIR, recognise_generator


def with_channels(network: nn.Module, first: str, last: str, channels_in: int, channels_out: int) -> dict:
    state = dict(network.state_dict())
    state[f"{first}.weight"] = torch.zeros(state[f"{first}.weight"].shape[0], channels_in, 3, 3)
    state[f"{last}.weight"] = torch.zeros(channels_out, *state[f"{last}.weight"].shape[1:])
    state[f"{last}.bias"] = torch.zeros(channels_out)
    return state


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ((1, 1), "takes 1 channel;"),
        ((2, 2), "takes 2 channels;"),
        ((4, 4), "takes 4 channels;"),
        ((4, 1), "takes 1 channel;"),  # gray, folded by 2, for x2
        ((4, 3), "takes 4 channels and returns 3;"),
        ((1, 3), "takes 1 channel and returns 3;"),
    ],
)
def test_rrdb_for_other_than_rgb_is_refused_by_its_channels(channels, words):
    state = with_channels(RRDBNet(8, 1, 4), "conv_first", "conv_last", *channels)
    with pytest.raises(CheckpointError, match=f"{words} only RGB networks can be used here"):
        recognise_generator(state)


@pytest.mark.parametrize("channels", [1, 4])
def test_compact_for_other_than_rgb_is_refused_by_its_channels(channels):
    state = with_channels(SRVGGNetCompact(8, 2, 2), "body.0", "body.6", channels, channels * 4)
    with pytest.raises(CheckpointError, match=rf"\(compact\) takes {channels} channels?; only RGB networks"):
        recognise_generator(state)


def test_swinir_for_gray_or_without_upsampling_is_refused_as_what_it_is():
    state = SwinIR(4, embed_dim=12, depths=[2], num_heads=[2]).state_dict()
    with pytest.raises(CheckpointError, match=r"\(swinir\) takes 1 channel and returns 3; only RGB"):
        recognise_generator(state | {"conv_first.weight": torch.zeros(12, 1, 3, 3)})
    denoiser = {name: t for name, t in state.items() if not re.match(r"conv_before|upsample", name)}
    with pytest.raises(CheckpointError, match=r"a SwinIR without upsampling layers .* not supported"):
        recognise_generator(denoiser)
