"""CLIP's vision transformer, up to the block in use and no further.

Guarantees: OpenAI's parameter names; any image whose sides are multiples of the patch, by resizing the
learned positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class _Attention(nn.Module):
    """Multi-head self-attention with the parameter names of `nn.MultiheadAttention`."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, tokens, width) to the same shape."""
        n, count, width = tokens.shape
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.view(n, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(attended.transpose(1, 2).reshape(n, count, width))


class _Mlp(nn.Module):
    """Two linear layers with the sigmoid approximation of GELU that OpenAI trained with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, tokens, width) to the same shape."""
        hidden = self.c_fc(tokens)
        return self.c_proj(hidden * torch.sigmoid(1.702 * hidden))


class _Block(nn.Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _Attention(width, num_heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, tokens, width) to the same shape."""
        tokens = tokens + self.attn(self.ln_1(tokens))
        return tokens + self.mlp(self.ln_2(tokens))


class _Transformer(nn.Module):
    """Holds the blocks under OpenAI's name, `transformer.resblocks.N`."""

    def __init__(self, width: int, num_blocks: int, num_heads: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(_Block(width, num_heads) for _ in range(num_blocks)))


class ClipVisionTransformer(nn.Module):
    """The visual tower of CLIP ViT, its patch tokens laid out as a map.

    Args:
        num_blocks: Blocks in use.
        width: Channels.
        patch_px: Side of a patch.
        grid: Side of the grid of learned positions.

    References:
        Radford et al. 2021, CLIP, arXiv:2103.00020, Sec. 2.4; openai/CLIP, clip/model.py, VisionTransformer.
    """

    def __init__(self, num_blocks: int, width: int = 768, patch_px: int = 16, grid: int = 14) -> None:
        super().__init__()
        self.channels = width
        self.native_stride_px = patch_px
        self.grid = grid
        self.conv1 = nn.Conv2d(3, width, patch_px, stride=patch_px, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _Transformer(width, num_blocks, width // 64)

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c rows columns"]:
        """Return the features of a normalised image, one cell per `native_stride_px`."""
        patches = self.conv1(image)
        n, width, height, columns = patches.shape
        cls = self.class_embedding.to(patches.dtype).expand(n, 1, -1)
        tokens = torch.cat((cls, patches.flatten(2).transpose(1, 2)), dim=1)
        tokens = self.ln_pre(tokens + self._positions(height, columns).to(patches.dtype))
        tokens = self.transformer.resblocks(tokens)
        return tokens[:, 1:].transpose(1, 2).reshape(n, width, height, columns)

    def _positions(self, height: int, columns: int) -> Tensor:
        if (height, columns) == (self.grid, self.grid):
            return self.positional_embedding
        learned = self.positional_embedding[1:].T.reshape(1, -1, self.grid, self.grid).float()
        resized = F.interpolate(learned, (height, columns), mode="bicubic", antialias=True, align_corners=False)
        flat = resized.flatten(2)[0].T.to(self.positional_embedding.dtype)
        return torch.cat((self.positional_embedding[:1], flat))
