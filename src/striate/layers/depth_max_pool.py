"""Max pooling over windows of channels instead of image positions.

In TensorFlow this is `ksize=(1, 1, 1, 3)`: the largest activation of each group of
maps. Groups of maps that detect one object in several poses become pose invariant.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.conv_arithmetic import output_side
from striate.core.errors import GeometryError
from striate.core.format import count_text


class DepthMaxPool(nn.Module):
    """Maximum over windows of channels; channels after the last window are dropped.

    Args:
        window: Channels in a window.
        stride: Channels from one window to the next; by default `window`.

    Shapes:
        (N, C, H, W) → (N, ⌊(C − window)/stride⌋ + 1, H, W)

    Raises:
        GeometryError: The input has fewer channels than the window.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0, 0.0, 9.0]).view(1, 7, 1, 1)
        >>> DepthMaxPool(3)(x).flatten().tolist()
        [5.0, 4.0]
    """

    def __init__(self, window: int, stride: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.stride = stride or window

    def forward(self, x: Tensor) -> Tensor:
        """Compute the maximum over each window of channels."""
        channels = x.shape[1]
        if channels < self.window:
            what = (
                f"DepthMaxPool got {count_text(channels, 'channel')}, needs "
                f"at least {self.window}"
            )
            raise GeometryError(what)
        # The first maximum of a window takes the whole gradient, as in max pooling.
        pooled = F.max_pool3d(x.unsqueeze(1), (self.window, 1, 1), (self.stride, 1, 1))
        return pooled.squeeze(1)

    def out_channels(self, channels: int) -> int:
        """Return the number of output channels.

        Example:
            >>> DepthMaxPool(3).out_channels(7)
            2
        """
        return output_side(channels, self.window, self.stride)

    def extra_repr(self) -> str:
        """Return the settings as text, for a printed model."""
        return f"{self.window}, stride={self.stride}"
