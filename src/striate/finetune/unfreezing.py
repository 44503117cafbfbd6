"""Gradual unfreezing: train the last stage first, then also earlier stages one by one.

Howard & Ruder 2018, "Universal language model fine-tuning for text classification".
"""

from __future__ import annotations

from striate.engine.callbacks import Callback, EpochResult
from striate.finetune.batch_norm import FROZEN, freeze_batch_norm_stats
from striate.finetune.discriminative_lr import TrainableStages
from striate.finetune.freeze import freeze, unfreeze


class GradualUnfreezing(Callback):
    """Callback that unfreezes one more stage every `unfreeze` epochs.

    All stages except the last are frozen on creation.
    """

    def __init__(self, stages: TrainableStages) -> None:
        self._stages = stages
        self._unfrozen = len(stages.stages)
        parameters = stages.model.parameters()
        self._never = [p for p in parameters if not p.requires_grad]
        if stages.config.unfreeze and stages.stages[1:]:
            self._unfrozen = 1
            below = [name for stage in stages.stages[:-1] for name in stage.layers]
            freeze(stages.model, below)

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Unfreeze the next stage after every `unfreeze` epochs."""
        every = self._stages.config.unfreeze
        if every:
            self._unfreeze_up_to(1 + epoch.epoch // every)

    def end(self) -> None:
        """Unfreeze all remaining stages, in case training has ended early."""
        self._unfreeze_up_to(len(self._stages.stages))

    def _unfreeze_up_to(self, count: int) -> None:
        stages, model = self._stages.stages, self._stages.model
        if self._unfrozen >= min(count, len(stages)):
            return
        while self._unfrozen < min(count, len(stages)):
            self._unfrozen += 1
            unfreeze(model, stages[-self._unfrozen].layers)
        for parameter in self._never:  # filters that are never trained, like whitening
            parameter.requires_grad_(False)
        if self._stages.always_frozen:
            freeze(model, self._stages.always_frozen)
        if self._stages.config.batch_norm == FROZEN:
            freeze_batch_norm_stats(model)
