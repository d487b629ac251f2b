"""The names of SeD's discriminator files, one to one with ours.

The same rules read Real-ESRGAN's U-Net discriminator, which SeD builds on, and the weights of either implementation of
spectral norm that torch has had.

References:
    The released models/sed.py, lines 52-193, and models/module_attention.py, lines 236-337.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

# Ours on the left, SeD's on the right; applied in this order.
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
# torch.nn.utils.parametrizations.spectral_norm on the left, torch.nn.utils.spectral_norm, which SeD has, on the right.
_PARAMETRISED_NAMES = (
    (r"\.parametrizations\.weight\.original$", ".weight_orig"),
    (r"\.parametrizations\.weight\.0\._u$", ".weight_u"),
    (r"\.parametrizations\.weight\.0\._v$", ".weight_v"),
)


def to_sed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of our P, P+SeD, U or U+SeD to SeD's names."""
    names = _sed_names(state)
    return {names[name]: tensor for name, tensor in state.items()}


def from_sed(state: Mapping[str, Tensor], own_names: Collection[str]) -> dict[str, Tensor]:
    """Rename SeD's tensors to a network's own names; its own names, and unknown ones, stay."""
    ours = {theirs: name for name, theirs in _sed_names(own_names).items()}
    legacy = {_rewrite(name, _PARAMETRISED_NAMES): tensor for name, tensor in state.items()}
    return {ours.get(name, name): tensor for name, tensor in legacy.items()}


def _sed_names(own_names: Collection[str]) -> dict[str, str]:
    return {name: _sed_name(name, is_normalised=f"{name}_u" in own_names) for name in own_names}


def _sed_name(name: str, *, is_normalised: bool) -> str:
    renamed = _rewrite(name, _SED_NAMES)
    return f"{renamed}_orig" if is_normalised else renamed


def _rewrite(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
