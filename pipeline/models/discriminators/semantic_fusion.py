"""The semantic-aware fusion block (SeFB): image features, interpreted through a frozen vision model.

With S the semantics of the HR crop and F the discriminator's image features, the block computes

    S1  = SelfAttention(LN(P_s(GN(S))))                            what is where
    S2  = softmax(Q K^T / sqrt(d)) V W_o,                          what this image shows there
          Q = LN(S1) W_q,  K = P_c(F) W_k,  V = P_c(F) W_v
    out = Conv(Shuffle(P_o(GEGLU(LN(S2)))))                        back to the resolution of F

There are no skip connections: the released code comments them out, so every path to the output runs through the image.
For ablations, `fusion` replaces the cross-attention and `residual` restores the skip connections.

References:
    Li et al. 2024, SeD, arXiv:2402.19387, Sec. 3.3; the released models/module_attention.py, lines 236-337.
    The paper's figure draws a GELU and a normalisation where the code has a GEGLU feed-forward layer; this
    follows the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NUM_GROUPS = 32
FUSIONS = ("cross_attention", "concatenation", "modulation")


class Attention(nn.Module):
    """Single-head attention from some tokens (queries) to a context (keys and values)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_query = nn.Linear(dim, dim, bias=False)
        self.to_key = nn.Linear(dim, dim, bias=False)
        self.to_value = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(
        self, tokens: Float[Tensor, "n queries dim"], context: Float[Tensor, "n keys dim"]
    ) -> Float[Tensor, "n queries dim"]:
        """Attend from `tokens` to `context`."""
        query, key, value = self.to_query(tokens), self.to_key(context), self.to_value(context)
        # The fused kernels require an axis of heads.
        attended = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])
        return self.to_out(attended[:, 0])

    def weights(
        self, tokens: Float[Tensor, "n queries dim"], context: Float[Tensor, "n keys dim"]
    ) -> Float[Tensor, "n queries keys"]:
        """Return softmax(Q K^T / sqrt(d)), which `forward` applies to the values without keeping it."""
        query, key = self.to_query(tokens), self.to_key(context)
        return (query @ key.mT / math.sqrt(query.shape[-1])).softmax(dim=-1)


class GegluFeedForward(nn.Module):
    """Linear, gate by GELU, linear; four times as wide inside.

    References:
        Shazeer 2020, GLU Variants Improve Transformer, arXiv:2002.05202.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * 4 * dim)
        self.reduce = nn.Linear(4 * dim, dim)

    def forward(self, tokens: Float[Tensor, "n tokens dim"]) -> Float[Tensor, "n tokens dim"]:
        """Transform each token."""
        value, gate = self.expand(tokens).chunk(2, dim=-1)
        return self.reduce(value * F.gelu(gate))


class SemanticFusionBlock(nn.Module):
    """Fuse semantics on a coarse grid with image features on a finer one.

    Args:
        semantic_channels: Channels of the semantics; a multiple of 32 and of `upscale` squared.
        image_channels: Channels of the image features.
        upscale: Image grid over semantic grid, along each axis.
        attention_channels: Width of both attentions.
        trims_one: The image grid is one smaller along each axis than `upscale` times the semantic grid, as after a 4x4
            convolution of stride 1 with padding 1; the last convolution then trims alike.
        fusion: How image and semantics are combined. "cross_attention": the paper's. "concatenation": the output
            depends on the semantics alone, and the discriminator's merge combines both. "modulation": the
            semantics give a scale and a shift for the projected image features, as in SFT-GAN (arXiv:1804.02815).
        residual: Skip connections around both attentions and the feed-forward layer, which the released code
            comments out.

    Raises:
        ValueError: The channels do not divide, or the fusion does not exist.
    """

    def __init__(
        self,
        semantic_channels: int,
        image_channels: int,
        upscale: int,
        *,
        attention_channels: int = 64,
        trims_one: bool = False,
        fusion: str = "cross_attention",
        residual: bool = False,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}; got {fusion!r}")
        if semantic_channels % NUM_GROUPS or semantic_channels % upscale**2:
            raise ValueError(
                f"semantic_channels must be a multiple of {NUM_GROUPS} and of upscale squared "
                f"({upscale**2}); got {semantic_channels}"
            )
        self.upscale = upscale
        self.trims_one = trims_one
        self.fusion = fusion
        self.residual = residual
        self.semantic_channels = semantic_channels
        self.out_channels = semantic_channels // upscale**2
        self.norm = nn.GroupNorm(NUM_GROUPS, semantic_channels, eps=1e-6)
        self.project_semantics = nn.Conv2d(semantic_channels, attention_channels, 1)
        self.norm_self = nn.LayerNorm(attention_channels)
        self.self_attention = Attention(attention_channels)
        if fusion == "cross_attention":
            self.project_image = nn.Conv2d(image_channels, attention_channels, 1)
            self.norm_cross = nn.LayerNorm(attention_channels)
            self.cross_attention = Attention(attention_channels)
        elif fusion == "modulation":
            self.project_image = nn.Conv2d(image_channels, self.out_channels, 1)
        self.norm_feed_forward = nn.LayerNorm(attention_channels)
        self.feed_forward = GegluFeedForward(attention_channels)
        # A modulation needs two maps, scale and shift.
        num_maps = 2 if fusion == "modulation" else 1
        spread_channels = num_maps * self.out_channels
        self.project_out = nn.Conv2d(attention_channels, num_maps * semantic_channels, 1)
        kernel_px = 4 if trims_one else 3
        self.conv_out = nn.Conv2d(spread_channels, spread_channels, kernel_px, padding=1)
        for parameter in self.project_out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, semantics: Float[Tensor, "n c_s grid_h grid_w"], features: Float[Tensor, "n c_f h w"]
    ) -> Float[Tensor, "n c_out h w"]:
        """Fuse the semantics of the HR crop with features of an image.

        Args:
            semantics: The map of the extractor.
            features: On a grid `upscale` times as fine along each axis; less one if `trims_one`.

        Raises:
            ValueError: The grids do not fit; names both.
        """
        tokens = self._interpret(semantics, features)
        if self.fusion == "cross_attention":
            context = _to_tokens(self.project_image(features))
            tokens = self._around(lambda inner: self.cross_attention(self.norm_cross(inner), context), tokens)
        tokens = self._around(lambda inner: self.feed_forward(self.norm_feed_forward(inner)), tokens)
        spread = self.conv_out(_shuffle(self.project_out(_to_map(tokens, *semantics.shape[-2:])), self.upscale))
        if self.fusion != "modulation":
            return spread
        scale, shift = spread.chunk(2, dim=1)
        return self.project_image(features) * (1 + scale) + shift

    def cross_attention_weights(
        self, semantics: Float[Tensor, "n c_s grid_h grid_w"], features: Float[Tensor, "n c_f h w"]
    ) -> Float[Tensor, "n grid_h grid_w h w"]:
        """Return where each cell of the semantics looks in an image; training never computes it.

        Args:
            semantics: As for `forward`.
            features: As for `forward`.

        Returns:
            For each cell its weights over the positions of the features, whose sum is 1.

        Raises:
            ValueError: The block has no cross-attention, or the grids do not fit.
        """
        if self.fusion != "cross_attention":
            raise ValueError(f"a block with fusion={self.fusion!r} has no cross-attention")
        tokens = self.norm_cross(self._interpret(semantics, features))
        weights = self.cross_attention.weights(tokens, _to_tokens(self.project_image(features)))
        return weights.unflatten(2, features.shape[-2:]).unflatten(1, semantics.shape[-2:])

    def _interpret(self, semantics: Tensor, features: Tensor) -> Float[Tensor, "n cells dim"]:
        """Return S1, what is where, if the grids fit."""
        grid = self._semantic_grid(features)
        if semantics.shape[-2:] != grid:
            raise ValueError(
                f"semantics must have the grid {grid[0]}x{grid[1]} for image features of "
                f"{features.shape[-2]}x{features.shape[-1]}; got {semantics.shape[-2]}x{semantics.shape[-1]}"
            )
        return self._around(self._attend_to_semantics, _to_tokens(self.project_semantics(self.norm(semantics))))

    def _around(self, layer: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        """Apply a layer, with a skip connection around it if the block has them."""
        return tokens + layer(tokens) if self.residual else layer(tokens)

    def _attend_to_semantics(self, tokens: Tensor) -> Tensor:
        normalised = self.norm_self(tokens)
        return self.self_attention(normalised, normalised)

    def _semantic_grid(self, features: Tensor) -> tuple[int, int]:
        """Return the height and width of the semantics that belong to `features`."""
        trimmed = int(self.trims_one)
        return (features.shape[-2] + trimmed) // self.upscale, (features.shape[-1] + trimmed) // self.upscale


def _shuffle(features: Tensor, upscale: int) -> Tensor:
    """Move channels to pixels, each block column by column as in the released code, unlike PixelShuffle."""
    return F.pixel_shuffle(features.mT, upscale).mT


def _to_tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose(1, 2)


def _to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, height, width)
