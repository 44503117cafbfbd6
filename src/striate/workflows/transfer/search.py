"""Search for the best cut point and head by short trials, for a transfer plan.

Fine-tuning is tried from the middle of the model with frozen and with adapting batch
norm statistics. Earlier cut points follow while accuracy improves. If head only is
better, a later cut point is tried instead: the last whose features classify as well as
any, since the later layers have specialized in other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from striate.core.errors import NonFiniteError
from striate.core.hooks import evaluation_mode
from striate.finetune.batch_norm import ADAPTING, FROZEN
from striate.finetune.linear_probe import LinearProbe
from striate.report.format import percent
from striate.run.transfer_plan import LOGISTIC, TUNED, TransferTrial, best_tuned
from striate.workflows.transfer.features import probe_images
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.trials import TrialRunner

Tell = Callable[[str], None]
MAX_FEATURE_BYTES = 4e9  # at a cut point that is tried


@dataclass(kw_only=True)
class CandidateSearch:
    """Search for the best cut point and head."""

    runner: TrialRunner  # trains the candidates
    # options chosen by the user; the search chooses the other options
    options: TransferOptions
    tell: Tell  # called with a line of text for each result
    # finished trials; the first trains only the head
    trials: list[TransferTrial] = field(default_factory=list)
    # candidates that could not be tried, with the reason
    skipped: list[str] = field(default_factory=list)

    def run(self, probes: Sequence[LinearProbe]) -> None:
        """Run the trials: head only, then fine-tuning after several cut points."""
        head_only = self._try(TransferOptions(head=LOGISTIC))
        high = highest_good_cut(probes)
        if self.options.head == LOGISTIC or high < 0:
            return
        middle = self.middle()
        trials = [self._tune(middle, mode) for mode in self._batch_norm_modes(middle)]
        best = min(filter(None, trials), key=lambda trial: trial.loss, default=None)
        if best is None and self.options.head == TUNED:
            what, where = "fine-tuning diverged in every trial", self._name(middle)
            raise NonFiniteError(what, where=f"after {where}", fix="use a lower --lr")
        if best is None:
            return
        if not best.is_worse_than(head_only):
            self._descend(middle, best)
        elif high > middle and self._fits(high):
            self._tune(high, best.batch_norm)

    def _descend(self, index: int, best: TransferTrial) -> None:
        for lower in self.lower(index):
            trial = self._tune(lower, best.batch_norm)
            if trial is None or not best.is_worse_than(trial):
                return
            best = trial

    def middle(self) -> int:
        """Return the index of the cut point at half the depth of the model.

        If the features there are too large to store, a later cut point is returned.
        """
        last = len(self.runner.cut_points.cuts) - 2
        return next(filter(self._fits, range((last + 1) // 2, last)), last)

    def lower(self, index: int) -> Iterator[int]:
        """Yield indices of cut points before `index`: a half, a quarter, and so on."""
        while index:
            index //= 2
            if self._fits(index):
                yield index

    def best_index(self) -> int:
        """Return the index of the best trial; 0 is the trial that trains only the head.

        Head only must be better by a standard error, as short trials favor it.
        """
        best = best_tuned(self.trials)
        free = self.options.head is None
        if best is None or (free and best.is_worse_than(self.trials[0])):
            return 0
        return self.trials.index(best)

    def _batch_norm_modes(self, index: int) -> list[str]:
        """Return the batch norm modes to try at a cut point."""
        if self.options.batch_norm:
            return [self.options.batch_norm]
        head = self.runner.cut_points.cuts[index].head
        norms = any(isinstance(module, _BatchNorm) for module in head.modules())
        return [FROZEN, ADAPTING] if norms else [ADAPTING]

    def _fits(self, index: int) -> bool:
        """Return whether the features of all images at a cut point can be stored."""
        size = feature_bytes(self.runner, index)
        if size > MAX_FEATURE_BYTES:
            self._skip(f"{self._name(index)} ({size / 1e9:.1f} GB of features)")
        return size <= MAX_FEATURE_BYTES

    def _tune(self, index: int, mode: str) -> TransferTrial | None:
        """Fine-tune the layers after a cut point; return None if training diverges."""
        options = replace(
            self.options,
            cut=self._name(index),
            head=TUNED,
            batch_norm=mode,
            views=0,
            unfreeze=0,
        )
        try:
            return self._try(options)
        except NonFiniteError:
            self._skip(f"{options.cut}, batch norm {mode} (diverged: use a lower --lr)")
            return None

    def _try(self, options: TransferOptions) -> TransferTrial:
        trial = self.runner.run(options)
        self.trials.append(trial)
        head_only = trial.head == LOGISTIC
        name = "head only" if head_only else f"fine-tuned after {trial.cut}"
        norm = f", batch norm {trial.batch_norm}" if trial.batch_norm else ""
        result = f"accuracy {percent(trial.accuracy)}, loss {trial.loss:.3f}"
        self.tell(f"{name}{norm}: {result}, {trial.seconds:.0f} s")
        return trial

    def _skip(self, text: str) -> None:
        self.skipped.append(text)
        self.tell(f"skipped: {text}")

    def _name(self, index: int) -> str:
        return self.runner.cut_points.cuts[index].name


def highest_good_cut(probes: Sequence[LinearProbe]) -> int:
    """Return the index of the last cut point with an accuracy near the best accuracy.

    The very last cut point is excluded, as it leaves only the classifier to train.
    """
    best = max(probes, key=lambda probe: probe.accuracy)
    enough = best.accuracy - best.error
    good = [i for i, probe in enumerate(probes[:-1]) if probe.accuracy >= enough]
    return max(good, default=len(probes) - 2)


def feature_bytes(runner: TrialRunner, index: int) -> int:
    """Return the size in bytes of the features of all images at a cut point."""
    with evaluation_mode(runner.model, analysis=False), torch.inference_mode():
        x = probe_images(runner.model, runner.data, 1)
        row = runner.cut_points.cuts[index].features(runner.model, x)
    return row.numel() * 4 * runner.total_images
