"""How SwinIR is built from its options, and how its official files are recognised and written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.models.generators.contract import (
    GeneratorArchitecture,
    check_rgb,
    count_layers,
)
from pipeline.models.generators.options import GENERATORS
from pipeline.models.generators.swinir.network import SwinIR
from pipeline.models.generators.swinir.options import SwinIROptions
from pipeline.models.generators.swinir.windows import relative_position_index, shifted_window_mask

_GROUP = "layers.{}.residual_group.blocks."
_OFFICIAL_BUFFER = re.compile(r"layers\.\d+\.residual_group\.blocks\.\d+\.(attn\.relative_position_index|attn_mask)$")


class SwinIRArchitecture(GeneratorArchitecture[SwinIROptions]):
    """SwinIR; official files have the network's own names, and two kinds of index buffers besides."""

    name = "swinir"
    options = SwinIROptions
    network = SwinIR
    modelspec = "swinir"

    def build(self, options: SwinIROptions) -> SwinIR:
        """See `GeneratorArchitecture`."""
        return SwinIR(
            options.scale,
            embed_dim=options.num_features,
            depths=_per_block(options.layers_per_block, options.num_blocks),
            num_heads=_per_block(options.num_heads, options.num_blocks),
            window_px=options.window_size,
            mlp_ratio=options.mlp_ratio,
            upsampler=options.upsampler,
            residual_connection=options.residual_connection,
            training_size_px=options.training_size_px,
            drop_path_probability=options.drop_path_rate,
            gradient_checkpointing=options.gradient_checkpointing,
        )

    def recognise(self, state: Mapping[str, Tensor], scale: int | None) -> SwinIROptions | None:
        """See `GeneratorArchitecture`."""
        first = _GROUP.format(0)
        # HAT and Swin2SR have blocks of these names too, with more in them.
        others = {f"{first}0.conv_block.cab.0.weight", f"{first}0.attn.logit_scale"}
        if f"{first}0.norm1.weight" not in state or others & state.keys():
            return None
        check_rgb(self, state["conv_first.weight"].shape[1], 3)
        num_blocks = count_layers(state, r"layers\.(\d+)\.")
        tables = [state[f"{_GROUP.format(block)}0.attn.relative_position_bias_table"] for block in range(num_blocks)]
        depths = [count_layers(state, re.escape(_GROUP.format(block)) + r"(\d+)\.") for block in range(num_blocks)]
        num_features = state["conv_first.weight"].shape[0]
        window_px = (math.isqrt(tables[0].shape[0]) + 1) // 2
        mask = state.get(f"{first}1.attn_mask")
        upsampler, upscaling = _recognise_tail(state)
        return SwinIROptions(
            scale=upscaling,
            num_features=num_features,
            num_blocks=num_blocks,
            layers_per_block=_one_or_all(depths),
            num_heads=_one_or_all([table.shape[1] for table in tables]),
            window_size=window_px,
            mlp_ratio=state[f"{first}0.mlp.fc1.weight"].shape[0] / num_features,
            upsampler=upsampler,
            residual_connection="1conv" if "conv_after_body.weight" in state else "3conv",
            training_size_px=64 if mask is None else math.isqrt(mask.shape[0]) * window_px,
        )

    def import_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `GeneratorArchitecture`. The index buffers are dropped; the network computes them from its sizes."""
        return {name: tensor for name, tensor in state.items() if not _OFFICIAL_BUFFER.match(name)}

    def export_state(self, network: SwinIR) -> dict[str, Tensor]:
        """See `GeneratorArchitecture`. Official code loads strictly, so its index buffers are written too."""
        side_px = -(-network.training_size_px // network.window_px) * network.window_px
        mask = shifted_window_mask(side_px, side_px, network.window_px)
        index = relative_position_index(network.window_px)
        state = network.state_dict()
        for name, block in network.named_modules():
            if name.endswith(".attn"):
                state[f"{name}.relative_position_index"] = index
            elif getattr(block, "shift_px", 0):
                state[f"{name}.attn_mask"] = mask
        return state


GENERATORS.add(SwinIRArchitecture())


def _per_block(value: int | tuple[int, ...], num_blocks: int) -> list[int]:
    values = [value] * num_blocks if isinstance(value, int) else list(value)
    if len(values) != num_blocks:
        raise ValueError(f"num_blocks={num_blocks} needs as many layers_per_block and num_heads; got {values}")
    return values


def _one_or_all(values: list[int]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else tuple(values)


def _recognise_tail(
    state: Mapping[str, Tensor],
) -> tuple[Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv"], int]:
    """Return the upsampler and its upscaling factor."""
    num_steps = sum(re.match(r"conv_up\d+\.weight$", name) is not None for name in state)
    if num_steps:
        return "nearest+conv", 2**num_steps
    if "conv_before_upsample.0.weight" not in state:
        if "conv_last.weight" in state:
            raise CheckpointError(
                "it is a SwinIR without upsampling layers (x1, for denoising or JPEG artifacts), which is not "
                "supported; use a SwinIR for super-resolution"
            )
        return "pixelshuffledirect", math.isqrt(state["upsample.0.weight"].shape[0] // 3)
    shuffles = [tensor for name, tensor in state.items() if re.match(r"upsample\.\d+\.weight$", name)]
    return "pixelshuffle", math.prod(math.isqrt(weight.shape[0] // weight.shape[1]) for weight in shuffles)
