"""State of the training loop (epoch, step, history), saved for an exact resume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from striate.engine.callbacks import EpochResult, StepResult


@dataclass(kw_only=True)
class TrainState:
    """Training state that is needed to resume, in addition to weights and optimizer.

    Example:
        >>> state = TrainState()
        >>> _ = state.record_step(loss=2.0, lr=0.1, images=3)
        >>> _ = state.record_step(loss=math.nan, lr=0.1, images=3)
        >>> state.batch, state.loss_sum, state.images, state.skipped
        (2, 6.0, 3, 1)
    """

    epoch: int = 0  # number of completed epochs
    # index of the next batch; the number of batches if validation is next
    batch: int = 0
    step: int = 0  # index of the next step of the run
    # sum of the losses of the images trained on in this epoch, in nats
    loss_sum: float = 0.0
    images: int = 0  # number of images trained on in this epoch
    lr: float = 0.0  # learning rate of the last step
    # factor on the learning rate; below 1 after a NaN with `lower-lr`
    lr_scale: float = 1.0
    skipped: int = 0  # number of consecutive skipped batches
    history: list[EpochResult] = field(default_factory=list)

    def record_step(self, loss: float, lr: float, images: int) -> StepResult:
        """Record the loss of a batch (NaN if skipped) and return the step's result."""
        epoch = self.epoch + 1
        result = StepResult(epoch, self.batch, self.step, loss, lr, images)
        self.batch, self.step, self.lr = self.batch + 1, self.step + 1, lr
        if math.isnan(loss):
            self.skipped += 1
        else:
            self.loss_sum, self.skipped = self.loss_sum + loss * images, 0
            self.images += images
        return result

    def record_epoch(
        self,
        val_loss: float,
        val_accuracy: float,
        val_balanced_accuracy: float,  # mean recall over the classes of that split
        val_map: float | None = None,  # mAP, for several labels per image
        # Choose the best epoch by balanced accuracy instead of accuracy.
        balanced: bool = False,
    ) -> EpochResult:
        """Record the results of an epoch and advance to the next epoch.

        The best epoch is that of the best mAP if there is one, and otherwise of the
        best accuracy; with `balanced` of the best balanced accuracy.
        """
        metric = "val_balanced_accuracy" if balanced else "val_accuracy"
        metric = metric if val_map is None else "val_map"
        epoch = EpochResult(
            epoch=self.epoch + 1,
            train_loss=self.loss_sum / max(self.images, 1),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            val_balanced_accuracy=val_balanced_accuracy,
            lr=self.lr,
            best=False,
            val_map=val_map,
        )
        epoch = replace(epoch, best=_is_best(epoch, metric, self.history))
        self.history.append(epoch)
        self.epoch, self.batch, self.loss_sum, self.images = self.epoch + 1, 0, 0.0, 0
        return epoch

    def is_finished(self, epochs: int, patience: int) -> bool:
        """Return whether all epochs are done or early stopping applies."""
        best = max((i for i, epoch in enumerate(self.history) if epoch.best), default=0)
        waited = len(self.history) - 1 - best
        return self.epoch >= epochs or 0 < patience <= waited

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary of JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrainState:
        """Create a state from a dictionary that `as_dict` has returned.

        Example:
            >>> state = TrainState(epoch=2, loss_sum=0.1 + 0.2)
            >>> TrainState.from_dict(state.as_dict()) == state
            True
        """
        history = [EpochResult(**epoch) for epoch in fields["history"]]
        return cls(**{**fields, "history": history})


def _is_best(epoch: EpochResult, metric: str, history: Sequence[EpochResult]) -> bool:
    # Small validation splits tie often; the lower loss then decides.
    current, *earlier = ((getattr(e, metric), -e.val_loss) for e in (epoch, *history))
    return all(current > other for other in earlier)
