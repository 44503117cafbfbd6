"""Standalone PyTorch code of the layers that torch does not provide, for `--code`."""

from __future__ import annotations

from typing import Any

from torch import nn

from striate.layers.blur import BlurPool
from striate.layers.lrn import LRN
from striate.layers.partial_conv import PartialConv2d
from striate.layers.rbf import RBFOutput
from striate.layers.residual import PadShortcut
from striate.layers.scaled_tanh import ScaledTanh
from striate.layers.subsample import Subsample2d
from striate.layers.whiten import Whiten

SCALED_TANH = '''
class ScaledTanh(nn.Module):
    """Activation 1.7159 · tanh(2x/3) (LeCun et al. 1998)."""

    def forward(self, x):
        return 1.7159 * torch.tanh(2 / 3 * x)
'''

SUBSAMPLE = '''
class Subsample2d(nn.Module):
    """Sum of each window, times a trainable gain, plus a bias (LeCun et al. 1998)."""

    def __init__(self, channels, kernel_size=2):
        super().__init__()
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.full((channels,), 1 / kernel_size**2))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        mean = F.avg_pool2d(x, self.kernel_size)
        gain = self.weight * self.kernel_size**2
        return mean * gain.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
'''

PARTIAL_CONV = '''
class PartialConv2d(nn.Module):
    """Convolution in which each output map reads only some of the input maps."""

    def __init__(self, table, kernel_size):
        super().__init__()
        self.kernel_size = kernel_size
        self.out_channels = len(table)
        self.in_channels = 1 + max(max(inputs) for inputs in table)
        index = [
            output * self.in_channels + i
            for output, inputs in enumerate(table)
            for i in inputs
        ]
        self.weight = nn.Parameter(torch.empty(len(index), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(self.out_channels))
        self.register_buffer("index", torch.tensor(index), persistent=False)
        nn.init.uniform_(self.weight, -0.02, 0.02)

    def forward(self, x):
        side = self.kernel_size
        full = self.weight.new_zeros(self.out_channels * self.in_channels, side, side)
        full = full.index_copy(0, self.index, self.weight)
        full = full.view(self.out_channels, self.in_channels, side, side)
        return F.conv2d(x, full, self.bias)
'''

RBF_OUTPUT = '''
class RBFOutput(nn.Module):
    """Logits: minus the squared distances to a fixed code of ±1 for each class."""

    def __init__(self, codes):
        super().__init__()
        rows = [[1.0 if sign == "+" else -1.0 for sign in code] for code in codes]
        self.register_buffer("codes", torch.tensor(rows))

    def forward(self, x):
        squares = x.square().sum(1, keepdim=True) + self.codes.square().sum(1)
        return 2 * x @ self.codes.T - squares
'''

BLUR_POOL = '''
class BlurPool(nn.Module):
    """Binomial filter of each channel, then subsampling (Zhang 2019)."""

    def __init__(self, channels, kernel_size=3, stride=2):
        super().__init__()
        row = [math.comb(kernel_size - 1, i) for i in range(kernel_size)]
        line = torch.tensor(row, dtype=torch.float32) / sum(row)
        filters = torch.outer(line, line).expand(channels, 1, -1, -1).contiguous()
        self.register_buffer("weight", filters, persistent=False)
        self.stride = stride
        before = (kernel_size - 1) // 2
        self.padding = (before, kernel_size - 1 - before) * 2

    def forward(self, x):
        x = F.pad(x, self.padding, mode="reflect")
        return F.conv2d(x, self.weight, stride=self.stride, groups=len(self.weight))
'''

PAD_SHORTCUT = '''
class PadShortcut(nn.Module):
    """Shortcut without parameters: subsampling, and new channels of zeros."""

    def __init__(self, added, stride):
        super().__init__()
        self.added = added
        self.stride = stride

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.added))
'''

LRN_CODE = '''
class LRN(nn.Module):
    """Local response normalization; alpha is not divided by the size."""

    def __init__(self, size=5, alpha=0.0001, beta=0.75, k=2.0):
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x):
        channels = x.shape[1]
        margin = (0, 0, 0, 0, self.size // 2, self.size - 1 - self.size // 2)
        squares = F.pad(x.square(), margin)
        total = sum(squares[:, i : i + channels] for i in range(self.size))
        return x * (self.k + self.alpha * total) ** -self.beta
'''

WHITEN = '''
class Whiten(nn.Module):
    """Convolution with filters that are computed, not trained, then ReLU."""

    def __init__(self, channels, width, kernel_size=5, stride=2):
        super().__init__()
        half = kernel_size // 2
        self.conv = nn.Conv2d(channels, width, kernel_size, stride, padding=half)
        self.conv.weight.requires_grad = False
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x))
'''

SOURCES: dict[type[nn.Module], str] = {
    ScaledTanh: SCALED_TANH,
    Subsample2d: SUBSAMPLE,
    PartialConv2d: PARTIAL_CONV,
    RBFOutput: RBF_OUTPUT,
    BlurPool: BLUR_POOL,
    PadShortcut: PAD_SHORTCUT,
    LRN: LRN_CODE,
    Whiten: WHITEN,
}


def special_arguments(module: nn.Module) -> dict[str, Any]:
    """Return the constructor arguments of a layer of `SOURCES`, as plain values.

    Example:
        >>> special_arguments(PadShortcut(2, 5, stride=2))
        {'added': 3, 'stride': 2}
    """
    match module:
        case Subsample2d():
            channels, size = module.weight.numel(), module.kernel_size
            return {"channels": channels, "kernel_size": size}
        case PartialConv2d():
            rows: list[list[int]] = [[] for _ in range(module.out_channels)]
            for position in module.index.tolist():
                rows[position // module.in_channels].append(
                    position % module.in_channels
                )
            table = tuple(tuple(row) for row in rows)
            return {"table": table, "kernel_size": module.kernel_size}
        case RBFOutput():
            signs = [["+" if v > 0 else "-" for v in row] for row in module.codes]
            return {"codes": tuple("".join(row) for row in signs)}
        case BlurPool():
            channels, _, side, _ = module.weight.shape
            return {"channels": channels, "kernel_size": side, "stride": module.stride}
        case PadShortcut():
            return {"added": module.added, "stride": module.stride}
        case LRN():
            values = {"alpha": module.alpha, "beta": module.beta, "k": module.k}
            return {"size": module.size, **values}
        case Whiten():
            conv = module.conv
            return {
                "channels": conv.in_channels,
                "width": conv.out_channels,
                "kernel_size": conv.kernel_size[0],
                "stride": conv.stride[0],
            }
        case _:
            return {}
