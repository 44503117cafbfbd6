"""Initial weights for networks with ReLU (He et al. 2015, section 2.2)."""

from __future__ import annotations

from torch import nn

DENSE_STD = 0.01  # VGG, section 3.1; ResNet's and MobileNetV2's authors too


def he(model: nn.Module) -> None:
    """Initialize convolutions from N(0, 2/fan_out), dense layers from N(0, 10⁻⁴).

    fan_out = f·f·C_out keeps the size of the gradients equal across layers, as in the
    authors' code of ResNet. Biases become zero; batch norms keep weight 1, bias 0.

    Example:
        >>> conv = nn.Conv2d(64, 32, 3)
        >>> he(conv)
        >>> bool((conv.weight.std() - (2 / (9 * 32)) ** 0.5).abs() < 0.002)
        True
    """
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if layer.weight.is_meta:  # it has no values
            continue
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.normal_(layer.weight, std=DENSE_STD)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
