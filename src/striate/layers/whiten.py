"""A first layer that decorrelates patches: its filters are computed, not learnt."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 5e-4  # of the largest variance; keeps rare directions from being blown up
PATCHES = 200_000  # are enough for a covariance of 75 × 75 numbers
PICTURES = 3000  # are enough to show every kind of patch
VALUES = 4_000_000  # of pictures held at once, 16 MB


class Whiten(nn.Module):
    """Convolution with the leading eigenvectors of patches, and their negatives; ReLU.

    Each filter is an eigenvector of the covariance of k×k patches over the root of
    its variance: what comes out is uncorrelated and of even size, so that the next
    layer learns from the first step on (Coates & Ng 2012, section 3.2; Page 2019;
    Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.1). The negatives are
    there because the ReLU would lose them. The filters do not learn, the biases do.
    Before `fit` has seen pictures they are orthogonal at random.

    Args:
        channels: Channels of a picture.
        width: Filters; even, half of them negatives of the others.
        kernel_size: Side k of the patches.
        stride: Step between them.

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
            self._put(nn.init.orthogonal_(filters))

    def forward(self, x: Tensor) -> Tensor:
        """Filter and rectify."""
        out: Tensor = self.relu(self.conv(x))
        return out

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> None:
        """Compute the filters from pictures as the network sees them.

        Nothing is drawn: the patches are evenly spaced over all there are.

        Args:
            pictures: Normalised, (N, C, H, W); see `pictures_wanted`.
        """
        side = self.conv.kernel_size[0]
        positions = len(pictures) * pictures.shape[2] * pictures.shape[3]
        stride = max(isqrt(positions // PATCHES), 1)
        columns = F.unfold(pictures.float().cpu(), side, stride=stride)
        patches = columns.transpose(1, 2).flatten(0, 1).double()
        centred = patches - patches.mean(0)
        variances, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        scale = (variances + EPSILON * variances[-1].clamp(min=1e-12)).rsqrt()
        # eigh leaves the sign open; the largest entry of each is made positive.
        best = vectors.gather(0, vectors.abs().argmax(0)[None])
        filters = (vectors * scale * best.sign()).T.flip(0)
        self._put(filters[: self.conv.out_channels // 2].float())

    @torch.no_grad()
    def _put(self, filters: Tensor) -> None:
        """Lay filters, and then their negatives, into the convolution's weights."""
        weight = self.conv.weight
        both = torch.zeros(weight.shape[0], weight[0].numel())
        count = len(filters)
        both[:count], both[len(both) // 2 :][:count] = filters, -filters
        weight.copy_(both.view(weight.shape))


def pictures_wanted(channels: int, height: int, width: int) -> int:
    """Return how many pictures of a size `fit` wants to see: fewer of large ones.

    Example:
        >>> pictures_wanted(1, 28, 28), pictures_wanted(3, 224, 224)
        (3000, 64)
    """
    return min(max(VALUES // (channels * height * width), 64), PICTURES)


def whitening(model: nn.Module) -> list[Whiten]:
    """Return the layers of a network that want to see pictures before it learns.

    Example:
        >>> len(whitening(nn.Sequential(Whiten(1, 4), nn.ReLU())))
        1
    """
    return [m for m in model.modules() if isinstance(m, Whiten)]
