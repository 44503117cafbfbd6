"""All settings of a training run; flags, YAML files and Python arguments share them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from striate.data.config import AugmentConfig, DataConfig
from striate.engine.config import DEFAULT_LR, OptimConfig, RuntimeConfig
from striate.models.config import ModelConfig

# Settings of the training loop and of distributed training; a linear head on
# extracted features has none of them.
TRAINING_LOOP_SETTINGS = (
    *("accumulate", "sync_batch_norm", "rank_timeout", "drop_path", "ema"),
    *("progressive_resize", "save_every", "on_nonfinite", "layout", "compile"),
    *("precision", "track_norms"),
)


# Fields are in the order of the bases from right to left.
@dataclass(frozen=True, kw_only=True)
class InputConfig(DataConfig, ModelConfig):
    """Settings of the images and the network."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RuntimeConfig, AugmentConfig, OptimConfig):
    """Settings of training: optimizer, augmentation, device and precision."""


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainConfig, InputConfig):
    """All settings of a training run, in one dataclass without nesting.

    A recipe is a `TrainConfig` (`OptimConfig`, `AugmentConfig`, `RuntimeConfig`) and an
    `InputConfig` (`DataConfig`, `ModelConfig`). A function takes the one that it needs.

    Args:
        data: Images, as for `load_data`.

    Raises:
        SettingError: A value is out of range; the message names the setting.

    Example:
        >>> Recipe(data="digits", epochs=5).resolved().lr
        0.003
    """

    data: str

    def resolved(self) -> Recipe:
        """Return the recipe with default learning rate and augmentation filled in."""
        lr = DEFAULT_LR[self.optimizer] if self.lr is None else self.lr
        return replace(self, lr=lr, **asdict(self.augmentation))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, in the order of definition."""
        values = {"data": self.data, **asdict(self)}
        tuples = (name for name, value in values.items() if isinstance(value, tuple))
        return values | {name: list(values[name]) for name in tuples}


# Settings that do not change any result.
NO_EFFECT_SETTINGS = {f.name for f in fields(Recipe) if f.metadata.get("incidental")}
