"""Settings of training: `OptimConfig` and `RuntimeConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from striate.core.errors import SettingError
from striate.core.settings import SeedConfig, SettingsBase, flag_name, setting

# For small networks from scratch; measured in docs/notebook/accuracy-recipes.md.
DEFAULT_LR = {"sgd": 0.05, "adam": 3e-3, "adamw": 3e-3, "muon": 3e-3}
# For pretrained networks: far lower than for training from scratch.
TUNED_LR = {"sgd": 0.01, "adam": 1e-3, "adamw": 1e-3, "muon": 1e-3}
SCHEDULE_NAMES = ("one_cycle", "cosine", "step", "constant")
TTA_NAMES = ("plain", "flip", "flip_shift")
NONFINITE_ACTIONS = ("stop", "skip", "lower-lr")


@dataclass(frozen=True, kw_only=True)
class OptimConfig(SeedConfig):
    """Settings of optimization and regularization.

    Raises:
        SettingError: A value is out of range; the message names the setting.

    Example:
        >>> OptimConfig(optimizer="sgd", lr=0.1).max_lr
        0.1
        >>> OptimConfig(epochs=0)
        Traceback (most recent call last):
        ...
        striate.core.errors.SettingError: epochs must be at least 1, got 0
          where: --epochs
    """

    epochs: int = setting(30, "number of training epochs", low=1)
    batch_size: int | Literal["auto"] = setting(
        64, "batch size in images; auto: the largest that fits in memory", low=1
    )
    accumulate: int = setting(
        1,
        "gradient accumulation: split each batch into this number of micro-batches, to "
        "save memory; 1: off",
        low=1,
    )
    lr: float | Literal["auto"] | None = setting(
        None,
        "maximum learning rate; auto: chosen by a learning-rate range test (default: "
        "0.05 for sgd, 0.003 for other optimizers; 0.01 and 0.001 with --pretrained)",
        above=0,
    )
    optimizer: str = setting("adamw", "optimizer", choices=tuple(DEFAULT_LR))
    momentum: float = setting(
        0.9, "momentum (sgd, muon) or beta1 (adam, adamw)", low=0, below=1
    )
    weight_decay: float = setting(
        0.01, "weight decay; not applied to biases and normalization layers", low=0
    )
    schedule: str = setting(
        "one_cycle", "learning-rate schedule", choices=SCHEDULE_NAMES
    )
    progressive_resize: float = setting(
        1.0,
        "progressive resizing: start training at this fraction of the image size and "
        "increase it to the full size; 1: off",
        above=0,
        high=1,
    )
    label_smoothing: float = setting(
        0.1, "label smoothing factor; 0: off", low=0, below=1
    )
    dropout: float | None = setting(
        None,
        "dropout probability of all dropout layers (default: as the network defines)",
        low=0,
        below=1,
    )
    drop_path: float = setting(
        0.0,
        "stochastic depth: drop probability of the last residual block; earlier blocks "
        "get proportionally lower probabilities; 0: off",
        low=0,
        below=1,
    )
    ema: float = setting(
        0.0,
        "decay of an exponential moving average (EMA) of the weights, e.g. 0.999; the "
        "averaged weights are evaluated and saved; 0: off",
        low=0,
        below=1,
    )
    tta: str = setting(
        "plain",
        "test-time augmentation: plain: off; flip: average over the image and its "
        "mirror image; flip_shift: also over shifts by one pixel",
        choices=TTA_NAMES,
    )
    class_weights: str = setting(
        "none",
        "method for class imbalance; none: off; auto: logit adjustment by class "
        "frequency; loss: class-weighted loss; sampling: class-balanced batches",
        choices=("none", "auto", "loss", "sampling"),
    )
    patience: int = setting(
        0,
        "early stopping: stop after this many epochs without a better validation "
        "accuracy; 0: off",
        low=0,
    )

    @property
    def max_lr(self) -> float:
        """Return the maximum learning rate.

        Raises:
            SettingError: The learning rate is still `auto`.
        """
        if not isinstance(self.lr, float | int):
            raise _undecided_error("lr")
        return self.lr

    @property
    def images_per_step(self) -> int:
        """Return the batch size.

        Raises:
            SettingError: The batch size is still `auto`.
        """
        if not isinstance(self.batch_size, int):
            raise _undecided_error("batch_size")
        return self.batch_size


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig(SettingsBase):
    """Settings of the machine: device, precision, processes and checkpoints.

    Example:
        >>> RuntimeConfig(device="cpu").precision
        'auto'
    """

    device: str = setting(
        "auto",
        "torch device: cpu, cuda, cuda:1, …; auto: the first accelerator, else cpu",
        incidental=True,
    )
    layout: str = setting(
        "auto",
        "memory format of tensors: nhwc (torch.channels_last) or nchw; auto: measure "
        "both and use the faster",
        choices=("auto", "nhwc", "nchw"),
    )
    compile: str = setting(
        "auto",
        "torch.compile; auto: on if it is faster, tried only if the run takes an hour "
        "or more",
        choices=("auto", "on", "off"),
    )
    precision: str = setting(
        "auto",
        "compute precision; auto: bf16 if it is clearly faster on this device, else "
        "fp32",
        choices=("auto", "fp32", "bf16"),
    )
    sync_batch_norm: bool = setting(
        False,
        "with torchrun: compute batch norm statistics over the images of all processes "
        "(default: each process uses only its own images)",
    )
    rank_timeout: float = setting(
        60.0,
        "with torchrun: end the run if a process does not answer for this many seconds",
        above=0,
        incidental=True,
    )
    save_every: float = setting(
        60.0,
        "seconds between checkpoints; 0: a checkpoint after every step",
        low=0,
        incidental=True,
    )
    track_norms: bool = setting(
        False,
        "write activation and gradient norms of each layer to norms.csv in the run "
        "folder",
        incidental=True,
    )
    on_nonfinite: str = setting(
        "stop",
        "action on a NaN or infinite loss or gradient; stop: end the run; skip: skip "
        "the batch; lower-lr: restart from the last checkpoint with a lower --lr",
        choices=NONFINITE_ACTIONS,
        incidental=True,
    )


def _undecided_error(name: str) -> SettingError:
    what = f"{name} must be a number, got auto"
    fix = "give a number; only `striate train` can choose this setting"
    return SettingError(what, where=flag_name(name), fix=fix)
