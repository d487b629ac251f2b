"""The reference's networks as functions of a state dict in its own layout, written out plainly.

An oracle for sizes that no golden output has: no algebra, no reuse, no module of ours. Spectral norms as in evaluation
mode.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def convolve(state: State, name: str, features: Tensor, *, stride: int = 1) -> Tensor:
    """A convolution with padding 1, divided by its spectral norm where it has one."""
    weight = state.get(f"{name}.weight")
    if weight is None:
        weight = state[f"{name}.weight_orig"]
        weight = weight / (state[f"{name}.weight_u"] @ weight.flatten(1) @ state[f"{name}.weight_v"])
    return F.conv2d(features, weight, state.get(f"{name}.bias"), stride=stride, padding=1)


def bend(features: Tensor) -> Tensor:
    """The discriminators' activation."""
    return torch.where(features > 0, features, 0.2 * features)


def fusion(state: State, prefix: str, semantics: Tensor, features: Tensor, up: int) -> Tensor:
    """SeFB from the reference's keys as module_attention.py reads, with explicit softmax."""
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

    def linear(name: str, tokens: Tensor) -> Tensor:
        return F.linear(tokens, own[f"{name}.weight"].flatten(1), own.get(f"{name}.bias"))

    def norm(index: int, tokens: Tensor) -> Tensor:
        name = f"transformer_blocks.0.norm{index}"
        return F.layer_norm(tokens, (64,), own[f"{name}.weight"], own[f"{name}.bias"])

    def attend(name: str, tokens: Tensor, context: Tensor) -> Tensor:
        query, key, value = (
            linear(f"{name}.to_{part}", of) for part, of in (("q", tokens), ("k", context), ("v", context))
        )
        return linear(f"{name}.to_out.0", (query @ key.mT / 8).softmax(-1) @ value)

    n, _, h, w = semantics.shape
    normalised = F.group_norm(semantics, 32, own["norm.weight"], own["norm.bias"], eps=1e-6)
    tokens = linear("proj_in", normalised.flatten(2).mT)
    context = linear("proj_context", features.flatten(2).mT)
    tokens = norm(1, tokens)
    tokens = attend("transformer_blocks.0.attn1", tokens, tokens)
    tokens = attend("transformer_blocks.0.attn2", norm(2, tokens), context)
    value, gate = linear("transformer_blocks.0.ff.net.0.proj", norm(3, tokens)).chunk(2, -1)
    tokens = linear("transformer_blocks.0.ff.net.2", value * F.gelu(gate))
    fused = linear("proj_out", tokens).mT.reshape(n, -1, up, up, h, w)
    spread = torch.einsum("ncuvhw->nchvwu", fused).reshape(n, -1, h * up, w * up)
    return F.conv2d(spread, own["conv_out.weight"], own["conv_out.bias"], padding=1)


def merge(state: State, level: int, features: Tensor, semantics: Tensor | None, up: int) -> Tensor:
    """What a fusion block adds, and the convolution after it; nothing for a plain network."""
    if semantics is None:
        return features
    fused = fusion(state, f"att{level}.", semantics, features, up)
    return convolve(state, f"conv{level}1", torch.cat((features, fused), dim=1))


def patch(state: State, image: Tensor, semantics: Tensor | None) -> Tensor:
    """P and P+SeD, sed.py lines 52-116."""
    features = bend(convolve(state, "conv_first", image, stride=2))
    features = bend(merge(state, 1, convolve(state, "conv1", features, stride=2), semantics, 4))
    features = bend(merge(state, 2, convolve(state, "conv2", features, stride=2), semantics, 2))
    features = bend(merge(state, 3, convolve(state, "conv3", features), semantics, 2))
    return convolve(state, "conv_last", features)


def unet(state: State, image: Tensor, semantics: Tensor | None) -> Tensor:
    """U and U+SeD, sed.py lines 119-193."""

    def doubled(features: Tensor) -> Tensor:
        return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)

    level0 = bend(convolve(state, "conv0", image))
    level1 = bend(convolve(state, "conv1", level0, stride=2))
    level2 = bend(convolve(state, "conv2", level1, stride=2))
    features = bend(merge(state, 3, convolve(state, "conv3", level2, stride=2), semantics, 2))
    features = bend(convolve(state, "conv4", doubled(features))) + level2
    features = merge(state, 2, features, semantics, 4)
    features = bend(convolve(state, "conv5", doubled(features))) + level1
    features = merge(state, 1, features, semantics, 8)
    features = bend(convolve(state, "conv6", doubled(features))) + level0
    features = bend(convolve(state, "conv8", bend(convolve(state, "conv7", features))))
    return convolve(state, "conv9", features)


def rrdb(state: State, lq: Tensor, scale: int, num_blocks: int) -> Tensor:
    """RRDBNet in KAIR's keys; x3 in one step, x2 from pixels folded by two as Real-ESRGAN has it."""
    features = convolve(state, "conv_first", F.pixel_unshuffle(lq, 2) if scale == 2 else lq)
    trunk = features
    for block in range(num_blocks):
        inside = trunk
        for dense in (1, 2, 3):
            seen = [inside]
            for index in (1, 2, 3, 4):
                name = f"RRDB_trunk.{block}.RDB{dense}.conv{index}"
                seen.append(bend(convolve(state, name, torch.cat(seen, dim=1))))
            last = convolve(state, f"RRDB_trunk.{block}.RDB{dense}.conv5", torch.cat(seen, dim=1))
            inside = inside + 0.2 * last
        trunk = trunk + 0.2 * inside
    features = features + convolve(state, "trunk_conv", trunk)
    for step, factor in enumerate((3,) if scale == 3 else (2, 2), start=1):
        larger = features.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        features = bend(convolve(state, f"upconv{step}", larger))
    return convolve(state, "conv_last", bend(convolve(state, "HRconv", features)))


def to_kair(state: State) -> State:
    """Rename an RRDBNet's tensors, named as in Real-ESRGAN, to the names of KAIR and SeD."""
    rules = (
        (r"^body\.(\d+)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2."),
        (r"^conv_body\.", "trunk_conv."),
        (r"^conv_up(\d)\.", r"upconv\1."),
        (r"^conv_hr\.", "HRconv."),
    )

    def rename(name: str) -> str:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return name

    return {rename(name): tensor for name, tensor in state.items()}
