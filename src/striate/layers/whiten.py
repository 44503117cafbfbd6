"""Whitening layer: a first convolution with filters that are computed, not trained."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 5e-4  # share of the largest variance; limits the gain of rare directions
PATCHES = 200_000  # enough for a covariance matrix of 75 × 75
MAX_PATCH_IMAGES = 3000  # enough to contain every kind of patch
MAX_VALUES = 4_000_000  # values of these images in memory, 16 MB


class Whiten(nn.Module):
    """Convolution with patch-whitening filters and the negated filters, then ReLU.

    Each filter is an eigenvector of the covariance of k×k patches, divided by the root
    of its eigenvalue. So the outputs are uncorrelated with equal variance, and the next
    layer learns from the first step on (Coates & Ng 2012, section 3.2; Page 2019;
    Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.1). ReLU removes negative
    outputs, which the negated filters preserve. Only the biases are trained. Before
    `fit` the filters are random and orthogonal.

    Args:
        channels: Channels of an image.
        width: Number of filters, even: one half are the negatives of the other half.
        kernel_size: Side k of the patches.
        stride: Stride of the convolution.

    Shapes:
        (N, C, H, W) → (N, width, ⌈H/s⌉, ⌈W/s⌉)

    Example:
        >>> layer = Whiten(1, 8, kernel_size=3, stride=2)
        >>> layer.fit(torch.rand(50, 1, 12, 12))
        >>> out = layer.conv(torch.rand(50, 1, 12, 12))[:, :4, 1:-1, 1:-1]
        >>> spread = out.transpose(0, 1).flatten(1).var(1)
        >>> bool(((spread - 1).abs() < 0.25).all())
        True
    """

    def __init__(
        self, channels: int, width: int, kernel_size: int = 5, stride: int = 2
    ) -> None:
        super().__init__()
        half = kernel_size // 2
        self.conv = nn.Conv2d(channels, width, kernel_size, stride, padding=half)
        self.conv.weight.requires_grad = False
        self.relu = nn.ReLU()
        if not self.conv.weight.is_meta:
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
            filters = torch.empty(width // 2, self.conv.weight[0].numel())
            self._set_filters(nn.init.orthogonal_(filters))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution, then ReLU."""
        out: Tensor = self.relu(self.conv(x))
        return out

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Compute the filters from images with the network's preprocessing.

        The result is not random: the patches are evenly spaced over all images.

        Args:
            images: Normalized images, (N, C, H, W); for their number see
                `num_images_for_fit`.
        """
        side = self.conv.kernel_size[0]
        positions = len(images) * images.shape[2] * images.shape[3]
        stride = max(isqrt(positions // PATCHES), 1)
        columns = F.unfold(images.float().cpu(), side, stride=stride)
        patches = columns.transpose(1, 2).flatten(0, 1).double()
        centered = patches - patches.mean(0)
        variances, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))
        scale = (variances + EPSILON * variances[-1].clamp(min=1e-12)).rsqrt()
        # The sign of an eigenvector is arbitrary: make its largest entry positive.
        largest = vectors.gather(0, vectors.abs().argmax(0)[None])
        filters = (vectors * scale * largest.sign()).T.flip(0)
        self._set_filters(filters[: self.conv.out_channels // 2].float())

    @torch.no_grad()
    def _set_filters(self, filters: Tensor) -> None:
        """Set the convolution's weights to the filters and the negated filters."""
        weight = self.conv.weight
        both = torch.zeros(weight.shape[0], weight[0].numel())
        count = len(filters)
        both[:count], both[len(both) // 2 :][:count] = filters, -filters
        weight.copy_(both.view(weight.shape))


def num_images_for_fit(channels: int, height: int, width: int) -> int:
    """Return the number of images that `fit` needs; large images need fewer.

    Example:
        >>> num_images_for_fit(1, 28, 28), num_images_for_fit(3, 224, 224)
        (3000, 64)
    """
    return min(max(MAX_VALUES // (channels * height * width), 64), MAX_PATCH_IMAGES)


def whiten_layers(model: nn.Module) -> list[Whiten]:
    """Return the whitening layers of a network; call `fit` on each before training.

    Example:
        >>> len(whiten_layers(nn.Sequential(Whiten(1, 4), nn.ReLU())))
        1
    """
    return [m for m in model.modules() if isinstance(m, Whiten)]
