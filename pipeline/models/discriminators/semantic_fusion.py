"""The semantic-aware fusion block (SeFB): image features, read through the eyes of a frozen vision model.

With S the semantics of the HR crop and F the discriminator's image features, the block computes

    S1 = SelfAttention(LN(P_s(GN(S))))                  what is where                      `queries`
    Q  = LN(S1) W_q,   K = C W_k,   V = C W_v,          with C = P_c(F)
    S2 = softmax(Q K^T / sqrt(d)) V W_o                 what this image shows there        `attend`
    out = Conv(Shuffle(P_o(GEGLU(LN(S2)))))             back to the resolution of F        `forward`

The first line and Q depend on the semantics and on weights alone, and Conv, Shuffle and P_o are one kernel of
weights; so a caller may compute all that once (`prepare`) and judge any number of images with it. There are no skip
connections: the released code comments them out, and every path of the block's output runs through the image. For
ablations, `fusion` puts something else in the place of the cross-attention and `residual` brings the skip connections
back.

References:
    Li et al. 2024, SeD, arXiv:2402.19387, Sec. 3.3; the released models/module_attention.py, lines 236-337.
    The paper's figure draws a GELU and a normalisation where the code has a GEGLU feed-forward layer; this
    follows the code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.ops.autocast import without_autocast

NUM_GROUPS = 32
FUSIONS = ("cross_attention", "concatenation", "modulation")


class SelfAttention(nn.Module):
    """Single-head self-attention over the semantics' tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_query = nn.Linear(dim, dim, bias=False)
        self.to_key = nn.Linear(dim, dim, bias=False)
        self.to_value = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, tokens, dim) to the same shape."""
        attended = _attend(self.to_query(tokens), self.to_key(tokens), self.to_value(tokens))
        return self.to_out(attended)


class CrossAttention(nn.Module):
    """Single-head attention from the semantics' tokens (queries) to the image's tokens (keys and values)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_query = nn.Linear(dim, dim, bias=False)
        self.to_key = nn.Linear(dim, dim, bias=False)
        self.to_value = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def queries(self, tokens: Tensor) -> Tensor:
        """Map semantic tokens (n, tokens, dim) to queries of the same shape."""
        return self.to_query(tokens)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Attend from `queries` (n, tokens, dim) to `context` (n, image tokens, dim)."""
        return self.to_out(_attend(queries, self.to_key(context), self.to_value(context)))


class GegluFeedForward(nn.Module):
    """Linear, gate by GELU, linear; four times as wide inside.

    References:
        Shazeer 2020, GLU Variants Improve Transformer, arXiv:2002.05202.
    """

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * expansion * dim)
        self.reduce = nn.Linear(expansion * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, tokens, dim) to the same shape."""
        value, gate = self.expand(tokens).chunk(2, dim=-1)
        return self.reduce(value * F.gelu(gate))


class PreparedFusion(NamedTuple):
    """What a fusion block makes of the semantics and of its weights before it sees an image, with its graph.

    It holds until the next optimiser step.

    Attributes:
        queries: (n, h * w, attention_channels); tokens row by row. Twice the channels where the block has skip
            connections: the queries, then what the skip carries.
        kernel: (attention_channels, channels out, k, k): what a token channel spreads over the pixels around its cell.
        offset: (1, channels out, height, width): what the output projection's bias adds to every image.
    """

    queries: Tensor
    kernel: Tensor
    offset: Tensor

    def of_rows(self, rows: slice) -> PreparedFusion:
        """Return what belongs to some of the images."""
        return self._replace(queries=self.queries[rows])


class SemanticFusionBlock(nn.Module):
    """Fuse semantics on a coarse grid with image features on a finer one.

    Args:
        semantic_channels: Channels of the semantics; a multiple of 32 and of `upscale` squared.
        image_channels: Channels of the image features.
        upscale: Image grid over semantic grid, each way.
        attention_channels: Width of both attentions.
        trims_one: The image grid is one smaller each way than `upscale` says, as after a 4x4 convolution of
            stride 1 with padding 1; the last convolution then trims alike.
        fusion: How image and semantics meet. "cross_attention": the paper's. "concatenation": not at all in
            here; the spread semantics are the output, and the discriminator's merge alone brings both
            together. "modulation": the spread semantics give a scale and a shift for the projected image
            features, as in SFT-GAN (arXiv:1804.02815).
        residual: Skip connections around both attentions and the feed-forward layer, which the released code
            comments out.

    Raises:
        ValueError: The channels do not divide, or no such fusion exists.
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
        self.self_attention = SelfAttention(attention_channels)
        if fusion == "cross_attention":
            self.project_image = nn.Conv2d(image_channels, attention_channels, 1)
            self.norm_cross = nn.LayerNorm(attention_channels)
            self.cross_attention = CrossAttention(attention_channels)
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

    def prepare(self, semantics: Tensor) -> PreparedFusion:
        """Do the part that needs no image, for semantics (n, semantic_channels, h, w)."""
        queries = self._queries(semantics)
        kernel, constant = self._spread_kernel()
        # The bias of P_o, which the zero padding of the convolution cuts at the border.
        everywhere = queries.new_ones((1, 1, *semantics.shape[-2:]))
        return PreparedFusion(queries, kernel, F.conv_transpose2d(everywhere, constant, None, *self._strides))

    def _queries(self, semantics: Tensor) -> Tensor:
        tokens = _to_tokens(self.project_semantics(self.norm(semantics)))
        attended = self.self_attention(self.norm_self(tokens))
        tokens = tokens + attended if self.residual else attended
        if self.fusion != "cross_attention":
            return tokens
        queries = self.cross_attention.queries(self.norm_cross(tokens))
        return torch.cat((queries, tokens), dim=-1) if self.residual else queries

    def forward(self, semantics: Tensor | PreparedFusion, features: Tensor) -> Tensor:
        """Fuse.

        Args:
            semantics: (n, semantic_channels, h, w), or what `prepare` gave for it.
            features: (n, image_channels, height, width) with height = h * upscale, less one if `trims_one`.

        Returns:
            (n, semantic_channels / upscale**2, height, width).

        Raises:
            ValueError: The grids do not fit; names both.
        """
        grid = self.semantic_grid(features)
        prepared = self.prepare(semantics) if isinstance(semantics, Tensor) else semantics
        if prepared.offset.shape[-2:] != features.shape[-2:]:
            is_map = isinstance(semantics, Tensor)
            got = "x".join(map(str, semantics.shape[-2:])) if is_map else f"{prepared.queries.shape[1]} cells"
            raise ValueError(
                f"semantics must have the grid {grid[0]}x{grid[1]} for image features of "
                f"{features.shape[-2]}x{features.shape[-1]}; got {got}"
            )
        queries = prepared.queries
        tokens = self._look_at_image(queries, features) if self.fusion == "cross_attention" else queries
        fed = self.feed_forward(self.norm_feed_forward(tokens))
        tokens = tokens + fed if self.residual else fed
        spread = self._spread(_to_map(tokens, *grid), prepared)
        if self.fusion != "modulation":
            return spread
        scale, shift = spread.chunk(2, dim=1)
        return self.project_image(features) * (1 + scale) + shift

    def _look_at_image(self, queries: Tensor, features: Tensor) -> Tensor:
        context = _to_tokens(self.project_image(features))
        if not self.residual:
            return self.cross_attention(queries, context)
        queries, skipped = queries.chunk(2, dim=-1)
        return skipped + self.cross_attention(queries, context)

    def semantic_grid(self, features: Tensor) -> tuple[int, int]:
        """Return the height and width of the semantics that belong to `features`."""
        trimmed = int(self.trims_one)
        return (features.shape[-2] + trimmed) // self.upscale, (features.shape[-1] + trimmed) // self.upscale

    def _spread(self, tokens: Tensor, prepared: PreparedFusion) -> Tensor:
        """Compute Conv(Shuffle(P_o(tokens))) of (n, attention_channels, h, w) in one transposed convolution.

        All three are linear, and the tokens have a quarter to a sixteenth of their outputs' channels or fewer, on a
        coarser grid; so multiplying the weights first leaves a fraction of the work. Equal up to rounding.
        """
        spread = F.conv_transpose2d(tokens, prepared.kernel, self.conv_out.bias, *self._strides)
        return spread.add_(prepared.offset)

    @property
    def _strides(self) -> tuple[int, int]:
        """Stride and padding of the transposed convolution."""
        return self.upscale, self.conv_out.kernel_size[0] - 2

    def _spread_kernel(self) -> tuple[Tensor, Tensor]:
        """Return what one token channel, and what the bias of P_o, spreads over the pixels around its cell."""
        with without_autocast(self.conv_out.weight.device):
            weight = self.project_out.weight.flatten(1).t()
            rows = torch.cat((weight, self.project_out.get_parameter("bias")[None]))
            # Channels become pixels, each block column by column as in the reference, unlike PixelShuffle.
            blocks = rows.unflatten(1, (-1, self.upscale, self.upscale)).transpose(2, 3)
            kernel = F.conv_transpose2d(blocks, self.conv_out.weight.flip(2, 3).transpose(0, 1))
            return kernel[:-1], kernel[-1:]


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    # The fused kernels want an axis of heads.
    # They also want contiguous tokens; else the attention matrix itself is built, 16 MiB a sample at 128 x 128.
    key, value = key.contiguous(), value.contiguous()
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]


def _to_tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose(1, 2)


def _to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, height, width)
