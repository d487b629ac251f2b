"""Which generator is this? Reads the architecture and its sizes off the keys and shapes of a state dict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.models.generators.compact import SRVGGNetCompact
from pipeline.models.generators.rrdb import RRDBNet
from pipeline.models.generators.swinir.network import SwinIR
from pipeline.models.key_layouts import rrdb_from_any
from pipeline.weights.files import strip_wrappers


def infer_generator(state_dict: Mapping[str, Tensor], scale: int | None = None) -> nn.Module:
    """Build the generator that a state dict belongs to; its weights are not loaded yet.

    Args:
        state_dict: In any layout that `load_reference_state_dict` reads.
        scale: Upscaling factor, where it is known. Keys alone cannot tell an RRDBNet's x3 from its unfolded
            x2, which is then assumed.

    Returns:
        RRDBNet, SwinIR or SRVGGNetCompact.

    Raises:
        CheckpointError: It is none of these.
    """
    state = strip_wrappers(state_dict)
    try:
        if "layers.0.residual_group.blocks.0.norm1.weight" in state:
            return _infer_swinir(state)
        if "body.0.weight" in state:
            return _infer_srvgg(state)
        renamed = rrdb_from_any(state)
        if "body.0.rdb1.conv1.weight" in renamed:
            return _infer_rrdb(renamed, scale)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"the state dict looks like a known generator but its sizes do not fit together ({error}); "
            "use a file that holds the whole network"
        ) from error
    sample = ", ".join(list(state)[:4]) or "no tensors"
    raise CheckpointError(
        f"the state dict is of no generator known here (RRDBNet, SwinIR, SRVGGNetCompact); its keys begin "
        f"with {sample}; a discriminator or another architecture cannot upscale images"
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    found = [int(match.group(1)) for name in state if (match := re.match(pattern, name))]
    return max(found, default=-1) + 1


def _infer_rrdb(state: Mapping[str, Tensor], scale: int | None) -> RRDBNet:
    first = state["conv_first.weight"]
    fold = math.isqrt(first.shape[1] // 3)
    num_steps = len({name for name in state if re.match(r"conv_up\d+\.weight$", name)})
    total = scale * fold if scale else 2**num_steps
    return RRDBNet(
        num_features=first.shape[0],
        num_blocks=_count(state, r"body\.(\d+)\."),
        growth_channels=state["body.0.rdb1.conv1.weight"].shape[0],
        scale=total // fold,
        unshuffle_factor=fold,
    )


def _infer_srvgg(state: Mapping[str, Tensor]) -> SRVGGNetCompact:
    last = _count(state, r"body\.(\d+)\.") - 1
    return SRVGGNetCompact(
        num_features=state["body.0.weight"].shape[0],
        num_convs=(last - 2) // 2,
        scale=math.isqrt(state[f"body.{last}.weight"].shape[0] // 3),
        activation="prelu" if "body.1.weight" in state else "relu",
    )


def _infer_swinir(state: Mapping[str, Tensor]) -> SwinIR:
    num_groups = _count(state, r"layers\.(\d+)\.")
    blocks = [rf"layers\.{group}\.residual_group\.blocks\.(\d+)\." for group in range(num_groups)]
    table = "layers.{}.residual_group.blocks.0.attn.relative_position_bias_table"
    embed_dim = state["conv_first.weight"].shape[0]
    window_px = (math.isqrt(state[table.format(0)].shape[0]) + 1) // 2
    mask = state.get("layers.0.residual_group.blocks.1.attn_mask")
    upsampler, scale = _infer_tail(state)
    return SwinIR(
        scale,
        embed_dim=embed_dim,
        depths=[_count(state, pattern) for pattern in blocks],
        num_heads=[state[table.format(group)].shape[1] for group in range(num_groups)],
        window_px=window_px,
        mlp_ratio=state["layers.0.residual_group.blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
        upsampler=upsampler,
        residual_connection="1conv" if "conv_after_body.weight" in state else "3conv",
        training_size_px=64 if mask is None else math.isqrt(mask.shape[0]) * window_px,
    )


def _infer_tail(state: Mapping[str, Tensor]) -> tuple[str, int]:
    if "conv_up1.weight" in state:
        return "nearest+conv", 2 ** len({name for name in state if re.match(r"conv_up\d+\.weight$", name)})
    if "conv_before_upsample.0.weight" not in state:
        return "pixelshuffledirect", math.isqrt(state["upsample.0.weight"].shape[0] // 3)
    scale = 1
    for name, tensor in state.items():
        if re.match(r"upsample\.\d+\.weight$", name):
            scale *= math.isqrt(tensor.shape[0] // tensor.shape[1])
    return "pixelshuffle", scale
