"""Settings of the network: `ModelConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from striate.core.settings import SeedConfig, setting


@dataclass(frozen=True, kw_only=True)
class ModelConfig(SeedConfig):
    """Settings of the network: its name, pretrained weights and frozen layers.

    Raises:
        SettingError: A value is out of range; the message names the setting.

    Example:
        >>> ModelConfig(model="resnet18").head_hidden
        0
    """

    model: str = setting(
        "auto",
        "network: a name listed by `striate models`; timm:NAME; your own FILE.py:CLASS "
        "(executes the file); or a sketch such as '28x28x1 > conv 5x5 8 same > pool 2 "
        "> dense 10'; auto: the network of --pretrained, else chosen by the size and "
        "the number of the images",
    )
    pretrained: str | None = setting(
        None,
        "pretrained weights: a run folder, a .safetensors, .pth or .pt file, "
        "timm:NAME, or a name listed by `striate models --weights`",
    )
    freeze: tuple[str, ...] | None = setting(
        None,
        "layers to freeze: comma-separated names, or patterns such as 'layer1*' "
        "(default: none)",
    )
    offline: bool = setting(
        False,
        "never download pretrained weights; use only weights on this machine",
        incidental=True,
    )
    trust: bool = setting(
        False,
        "open a .pth file with other objects than tensors, which runs code in it, and "
        "execute the network code of a run folder from another machine",
        incidental=True,
    )
    head_hidden: int = setting(
        0, "units of an extra hidden layer in the classifier head; 0: none", low=0
    )
