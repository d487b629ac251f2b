"""The key layouts of other projects' state dicts, and how they map onto ours.

Guarantees: each map is one to one, so a state dict goes through import and export unchanged. Only names and
layouts are handled here; what a network needs is checked by `pipeline.models.interop`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Ours on the left, SeD's on the right; applied in turn to a key of a discriminator.
_SED_NAMES = (
    (r"^fusion(\d)\.", r"att\1."),
    (r"^merge(\d)\.", r"conv\g<1>1."),
    (r"\.project_semantics\.", ".proj_in."),
    (r"\.project_image\.", ".proj_context."),
    (r"\.project_out\.", ".proj_out."),
    (r"\.norm_self\.", ".transformer_blocks.0.norm1."),
    (r"\.norm_cross\.", ".transformer_blocks.0.norm2."),
    (r"\.norm_feed_forward\.", ".transformer_blocks.0.norm3."),
    (r"\.self_attention\.", ".transformer_blocks.0.attn1."),
    (r"\.cross_attention\.", ".transformer_blocks.0.attn2."),
    (r"\.feed_forward\.expand\.", ".transformer_blocks.0.ff.net.0.proj."),
    (r"\.feed_forward\.reduce\.", ".transformer_blocks.0.ff.net.2."),
    (r"\.to_query\.", ".to_q."),
    (r"\.to_key\.", ".to_k."),
    (r"\.to_value\.", ".to_v."),
    (r"\.to_out\.", ".to_out.0."),
)
_PARAMETRISED = (
    (r"\.parametrizations\.weight\.original$", ".weight_orig"),
    (r"\.parametrizations\.weight\.0\._u$", ".weight_u"),
    (r"\.parametrizations\.weight\.0\._v$", ".weight_v"),
)
_KAIR_RRDB = (
    (r"^RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
    (r"^trunk_conv\.", "conv_body."),
    (r"^upconv(\d)\.", r"conv_up\1."),
    (r"^HRconv\.", "conv_hr."),
)
_KAIR_RRDB_BACK = (
    (r"^body\.(\d+)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2."),
    (r"^conv_body\.", "trunk_conv."),
    (r"^conv_up(\d)\.", r"upconv\1."),
    (r"^conv_hr\.", "HRconv."),
)


def _rewrite(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def sed_name(name: str, *, is_normalised: bool) -> str:
    """Return SeD's name for a key of our discriminators.

    Args:
        name: Our key.
        is_normalised: Whether it is the weight of a spectrally normalised convolution.
    """
    renamed = _rewrite(name, _SED_NAMES)
    return f"{renamed}_orig" if is_normalised else renamed


def legacy_spectral_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of torch's parametrised spectral norm to those of its first implementation."""
    return {_rewrite(name, _PARAMETRISED): tensor for name, tensor in state.items()}


def rrdb_from_any(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename RRDB keys (first ESRGAN, KAIR and SeD, or Real-ESRGAN) to Real-ESRGAN's, which are ours."""
    if "model.0.weight" in state:
        return _rrdb_from_first_release(state)
    return {_rewrite(name, _KAIR_RRDB): tensor for name, tensor in state.items()}


def rrdb_to_kair(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our RRDB keys to those of KAIR and SeD."""
    return {_rewrite(name, _KAIR_RRDB_BACK): tensor for name, tensor in state.items()}


def _rrdb_from_first_release(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The first release numbers its layers: model.0, the trunk model.1.sub, an upsampling convolution at every
    # third, and the last two at 3n + 2 and 3n + 4.
    top = [int(match.group(1)) for name in state if (match := re.match(r"model\.(\d+)\.(?:weight|bias)$", name))]
    num_steps = (max(top, default=4) - 4) // 3
    layers = {0: "conv_first", 3 * num_steps + 2: "conv_hr", 3 * num_steps + 4: "conv_last"}
    layers |= {3 * step: f"conv_up{step}" for step in range(1, num_steps + 1)}
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = re.sub(r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3.", name)
        name = re.sub(r"^model\.1\.sub\.\d+\.(weight|bias)$", r"conv_body.\1", name)
        name = re.sub(
            r"^model\.(\d+)\.(weight|bias)$",
            lambda found: f"{layers.get(int(found[1]), f'model.{found[1]}')}.{found[2]}",
            name,
        )
        renamed[name] = tensor
    return renamed
