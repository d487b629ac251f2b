"""SwinIR, the window-attention generator of the paper's second set of experiments.

Guarantees: any input size (padded by reflection to whole windows and cut back); no buffer and no weight
depends on the image's size; the official keys for everything that is learned. The two index buffers of the
official files are computed here; `architecture.py` adds them on export.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.models.generators.contract import Generator
from pipeline.models.generators.swinir.upsampling import build_tail
from pipeline.models.generators.swinir.windows import (
    join_windows,
    relative_position_index,
    shifted_window_mask,
    split_windows,
)

_RGB_MEAN = (0.4488, 0.4371, 0.4040)


class WindowAttention(nn.Module):
    """Self-attention inside each window, with a learned bias for each relative position.

    Args:
        dim: Channels in and out.
        num_heads: Attention heads; divides `dim`.
        window_px: Side of a window.
    """

    position_index: Tensor

    def __init__(self, dim: int, num_heads: int, window_px: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_px - 1) ** 2, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("position_index", relative_position_index(window_px), persistent=False)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(
        self, tokens: Float[Tensor, "n windows tokens dim"], mask: Float[Tensor, "windows tokens tokens"] | None
    ) -> Float[Tensor, "n windows tokens dim"]:
        """Attend within windows; `mask` is added to the scores of a shifted grid."""
        n, num_windows, num_tokens, dim = tokens.shape
        heads = self.num_heads
        qkv = self.qkv(tokens).view(n, num_windows, num_tokens, 3, heads, dim // heads)
        # Windows and heads share one axis, so that the bias is materialised once per batch.
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).reshape(3, n, num_windows * heads, num_tokens, -1)
        bias = self._scores_bias(num_windows, mask).to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        attended = attended.view(n, num_windows, heads, num_tokens, -1).transpose(2, 3)
        return self.proj(attended.reshape(n, num_windows, num_tokens, dim))

    def _scores_bias(self, num_windows: int, mask: Tensor | None) -> Tensor:
        num_tokens = self.position_index.shape[0]
        bias = self.relative_position_bias_table[self.position_index.reshape(-1)]
        bias = bias.view(1, num_tokens, num_tokens, self.num_heads).permute(0, 3, 1, 2)
        bias = bias.expand(num_windows, -1, -1, -1) if mask is None else bias + mask[:, None].to(bias.dtype)
        return bias.reshape(1, num_windows * self.num_heads, num_tokens, num_tokens)


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n dim"]:
        """Apply both layers to each token."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class SwinBlock(nn.Module):
    """Window attention and an MLP, each normalised before and added to its input.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        window_px: Side of a window.
        shift_px: How far the grid of windows is moved; 0 for every other block.
        mlp_ratio: Hidden width of the MLP over `dim`.
        drop_path_probability: Probability, per image, that a branch is skipped in training.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_px: int,
        *,
        shift_px: int,
        mlp_ratio: float,
        drop_path_probability: float,
    ) -> None:
        super().__init__()
        self.window_px = window_px
        self.shift_px = shift_px
        self.drop_path_probability = drop_path_probability
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_px)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self, features: Float[Tensor, "n h w dim"], mask: Float[Tensor, "windows tokens tokens"]
    ) -> Float[Tensor, "n h w dim"]:
        """Attend, then mix channels; h and w are whole windows."""
        features = features + self._drop_path(self._attend(self.norm1(features), mask))
        return features + self._drop_path(self.mlp(self.norm2(features)))

    def _attend(self, features: Tensor, mask: Tensor) -> Tensor:
        height, width = features.shape[1:3]
        shift = self.shift_px
        if shift:
            features = torch.roll(features, (-shift, -shift), dims=(1, 2))
        windows = split_windows(features, self.window_px)
        windows = self.attn(windows, mask if shift else None)
        features = join_windows(windows, height, width, self.window_px)
        return torch.roll(features, (shift, shift), dims=(1, 2)) if shift else features

    def _drop_path(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path_probability == 0.0:
            return branch
        keep_probability = 1.0 - self.drop_path_probability
        kept = branch.new_empty(branch.shape[0], 1, 1, 1).bernoulli_(keep_probability)
        return branch * (kept / keep_probability)


class _BlockGroup(nn.Module):
    """Holds `blocks`, so that the keys read `residual_group.blocks.N` as in the official files."""

    def __init__(self, blocks: Sequence[SwinBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class ResidualSwinGroup(nn.Module):
    """A run of Swin blocks and a convolution, added to the group's input (RSTB in the paper)."""

    def __init__(self, dim: int, blocks: Sequence[SwinBlock], residual_connection: str) -> None:
        super().__init__()
        self.residual_group = _BlockGroup(blocks)
        self.conv = build_connection(dim, residual_connection)

    def forward(self, features: Tensor, mask: Tensor, *, recompute: bool) -> Tensor:
        """Map (n, h, w, dim) to the same shape."""
        out = features
        for block in self.residual_group.blocks:
            out = checkpoint(block, out, mask, use_reentrant=False) if recompute else block(out, mask)
        return features + self.conv(out.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def build_connection(dim: int, kind: str) -> nn.Module:
    """Build the end of a group: "1conv", or "3conv" with a narrow middle for large networks."""
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, padding=1),
    )


class _PatchEmbedding(nn.Module):
    """Holds the first normalisation under its official name, `patch_embed.norm`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)


class SwinIR(Generator):
    """Image restoration with shifted-window attention.

    Args:
        scale: Upscaling factor.
        embed_dim: Channels of the trunk.
        depths: Blocks in each group.
        num_heads: Attention heads in each group.
        window_px: Side of a window.
        mlp_ratio: Hidden width of the MLPs over `embed_dim`.
        upsampler: "pixelshuffle" (classical), "pixelshuffledirect" (light) or "nearest+conv" (real-world).
        residual_connection: "1conv" or "3conv".
        training_size_px: LR crop of the training; used only to write the official index buffers on export.
        drop_path_probability: Of the last block; it grows linearly from 0 at the first.
        gradient_checkpointing: Recompute each block in the backward pass.

    Raises:
        ValueError: The settings do not fit together; the text names them.

    References:
        Liang et al. 2021, SwinIR, arXiv:2108.10257, Sec. 3. The defaults are SwinIR-M for x4, the paper's
        generator.
    """

    rgb_mean: Tensor
    upsample: nn.Sequential
    conv_before_upsample: nn.Sequential
    conv_hr: nn.Conv2d
    conv_last: nn.Conv2d

    def __init__(
        self,
        scale: int = 4,
        *,
        embed_dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window_px: int = 8,
        mlp_ratio: float = 2.0,
        upsampler: str = "pixelshuffle",
        residual_connection: str = "1conv",
        training_size_px: int = 64,
        drop_path_probability: float = 0.1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check_settings(embed_dim, depths, num_heads, residual_connection)
        self.scale = scale
        self.window_px = window_px
        self.upsampler = upsampler
        self.training_size_px = training_size_px
        self.gradient_checkpointing = gradient_checkpointing
        self.register_buffer("rgb_mean", torch.tensor(_RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(3, embed_dim, 3, padding=1)
        self.patch_embed = _PatchEmbedding(embed_dim)
        shape = (embed_dim, window_px, mlp_ratio)
        ramp = _linear_ramp(drop_path_probability, sum(depths))
        self.layers = nn.ModuleList(
            ResidualSwinGroup(embed_dim, _build_blocks(depth, heads, shape, ramp), residual_connection)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = build_connection(embed_dim, residual_connection)
        for name, module in build_tail(upsampler, embed_dim, scale).items():
            self.add_module(name, module)
        self.apply(_initialise)

    def forward(self, lq: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 height width"]:
        """Upscale a batch of RGB images in [0, 1], of any size; the output is not clamped.

        Raises:
            ValueError: `lq` is not a batch of RGB images, or (checked in evaluation mode, on the CPU) not finite.
        """
        self.check_input(lq)
        height, width = lq.shape[-2:]
        mean = self.rgb_mean.to(lq.dtype)
        shallow = self.conv_first(_pad_to_windows(lq, self.window_px) - mean)
        deep = shallow + self.conv_after_body(self._run_body(shallow))
        sr = self._upsample(deep) + mean
        return sr[..., : height * self.scale, : width * self.scale]

    def _run_body(self, shallow: Tensor) -> Tensor:
        features = self.patch_embed.norm(shallow.permute(0, 2, 3, 1))
        mask = shifted_window_mask(features.shape[1], features.shape[2], self.window_px, features.device)
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for group in self.layers:
            features = group(features, mask, recompute=recompute)
        return self.norm(features).permute(0, 3, 1, 2)

    def _upsample(self, deep: Tensor) -> Tensor:
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(deep)
        features = self.conv_before_upsample(deep)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(features))
        for index in range(int(math.log2(self.scale))):
            features = F.interpolate(features, scale_factor=2, mode="nearest")
            features = F.leaky_relu(self.get_submodule(f"conv_up{index + 1}")(features), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(features), 0.2))


def _check_settings(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], residual_connection: str) -> None:
    if len(depths) != len(num_heads):
        raise ValueError(f"depths and num_heads must be equally long; got {list(depths)} and {list(num_heads)}")
    if any(embed_dim % heads for heads in num_heads):
        raise ValueError(f"embed_dim must be a multiple of every num_heads; got {embed_dim} and {list(num_heads)}")
    if residual_connection not in ("1conv", "3conv"):
        raise ValueError(f"residual_connection must be 1conv or 3conv; got {residual_connection!r}")


def _build_blocks(
    depth: int, num_heads: int, shape: tuple[int, int, float], drop_path: Iterator[float]
) -> list[SwinBlock]:
    embed_dim, window_px, mlp_ratio = shape
    return [
        SwinBlock(
            embed_dim,
            num_heads,
            window_px,
            shift_px=window_px // 2 if index % 2 else 0,
            mlp_ratio=mlp_ratio,
            drop_path_probability=next(drop_path),
        )
        for index in range(depth)
    ]


def _linear_ramp(last: float, count: int) -> Iterator[float]:
    return (last * index / max(count - 1, 1) for index in range(count))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _pad_to_windows(lq: Tensor, window_px: int) -> Tensor:
    height, width = lq.shape[-2:]
    bottom, right = -height % window_px, -width % window_px
    if not bottom and not right:
        return lq
    # Reflection needs more pixels than it adds; a smaller image repeats its border instead.
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(lq, (0, right, 0, bottom), mode=mode)
