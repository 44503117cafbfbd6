"""Which ways a plan tries, and which of them it chooses.

Tuning is tried from the middle of the network with batch-norm statistics frozen and
adapting, then from lower cuts as long as it pays, or, where the head alone is better,
from a higher one: the highest that knows as much as any, for what lies behind it has
learned too much of other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from striate.core import device as devices
from striate.core.errors import NonFiniteError
from striate.core.hooks import evaluation_mode
from striate.finetune.linear_probe import Probe
from striate.finetune.split_model import probe
from striate.finetune.unfreezing import ADAPTING, FROZEN
from striate.report.format import percent
from striate.run.transfer_plan import LOGISTIC, TUNED, TransferTrial, best_tuned
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.trials import Bench

Tell = Callable[[str], None]
MOST_BYTES = 4e9  # of features at a cut that is tried


@dataclass(kw_only=True)
class Ways:
    """What has been tried so far.

    Args:
        bench: The network and its images.
        asked: What the user wants; the rest is chosen.
        tell: Gets a line when something is known.
        trials: The head alone first.
        left_out: What could not be tried, and why.
    """

    bench: Bench
    asked: TransferOptions
    tell: Tell
    trials: list[TransferTrial] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def explore(self, probes: Sequence[Probe]) -> None:
        """Try the head alone, tuned ones from the middle, then up or down from there.

        Raises:
            NonFiniteError: A tuned head is asked for, and all that was tried diverged.
        """
        alone = self._try(TransferOptions(head=LOGISTIC))
        high = first_rung(probes)
        if self.asked.head == LOGISTIC or high < 0:
            return
        rung = self.middle()
        found = [self._tune(rung, mode) for mode in self._modes(rung)]
        best = min(filter(None, found), key=lambda trial: trial.cost, default=None)
        if best is None:
            self._check_left(rung)
        elif not best.behind(alone):
            self._descend(rung, best)
        elif high > rung and self._fits(high):
            self._tune(high, best.batch_norm)

    def _descend(self, rung: int, best: TransferTrial) -> None:
        for lower in self.lower(rung):
            trial = self._tune(lower, best.batch_norm)
            if trial is None or not best.behind(trial):
                return
            best = trial

    def middle(self) -> int:
        """Return the cut at half the depth, or the next whose features can be kept.

        Never the last; the one before it is tried however large its features are.
        """
        last = len(self.bench.ladder.cuts) - 2
        rungs = range((last + 1) // 2, last)
        return next(filter(self._fits, rungs), last)

    def lower(self, rung: int) -> Iterator[int]:
        """Yield lower cuts, each at half the depth, whose features can be kept."""
        while rung:
            rung //= 2
            if self._fits(rung):
                yield rung

    def chosen(self) -> int:
        """Return the number of the best tuned one, or of the head alone if better.

        Better by a standard error, as the head alone is hardly held back.
        """
        best = best_tuned(self.trials)
        may = self.asked.head is None
        if best is None or (may and best.behind(self.trials[0])):
            return 0
        return self.trials.index(best)

    def _modes(self, rung: int) -> list[str]:
        """Return what batch norms may do: of a few images, statistics are poor."""
        if self.asked.batch_norm:
            return [self.asked.batch_norm]
        tail = self.bench.ladder.cuts[rung].tail
        norms = any(isinstance(module, _BatchNorm) for module in tail.modules())
        return [FROZEN, ADAPTING] if norms else [ADAPTING]

    def _fits(self, rung: int) -> bool:
        """Say whether the features of all images behind a cut can be kept."""
        size = bytes_behind(self.bench, rung)
        if size > MOST_BYTES:
            self._leave_out(f"{self._name(rung)} ({size / 1e9:.1f} GB of features)")
        return size <= MOST_BYTES

    def _tune(self, rung: int, mode: str) -> TransferTrial | None:
        """Fine-tune behind a cut; nothing comes of it where it diverges."""
        wanted = replace(self.asked, cut=self._name(rung), head=TUNED, batch_norm=mode)
        wanted = replace(wanted, views=0, unfreeze=0)
        try:
            return self._try(wanted)
        except NonFiniteError:
            self._leave_out(f"{wanted.cut}, batch norm {mode} (diverged: lower --lr)")
            return None

    def _try(self, wanted: TransferOptions) -> TransferTrial:
        trial = self.bench.run(wanted)
        self.trials.append(trial)
        what = "head alone" if trial.head == LOGISTIC else f"tuned behind {trial.cut}"
        norm = f", batch norm {trial.batch_norm}" if trial.batch_norm else ""
        came = f"{percent(trial.accuracy)}, cost {trial.cost:.3f}"
        self.tell(f"{what}{norm}: {came}, {trial.seconds:.0f} s")
        return trial

    def _leave_out(self, what: str) -> None:
        self.left_out.append(what)
        self.tell(f"left out: {what}")

    def _check_left(self, rung: int) -> None:
        """Refuse to propose the head alone where fine-tuning is asked for."""
        if self.asked.head == TUNED:
            what = "every way of fine-tuning that was tried diverged"
            where = f"behind {self._name(rung)}"
            raise NonFiniteError(what, where=where, fix="lower --lr")

    def _name(self, rung: int) -> str:
        return self.bench.ladder.cuts[rung].name


def first_rung(probes: Sequence[Probe]) -> int:
    """Return the highest cut that is as good as the best, by one standard error.

    Never the last: that would leave nothing but the head to learn.
    """
    best = max(probes, key=lambda one: one.accuracy)
    enough = best.accuracy - best.error
    good = [i for i, one in enumerate(probes[:-1]) if one.accuracy >= enough]
    return max(good, default=len(probes) - 2)


def bytes_behind(bench: Bench, rung: int) -> int:
    """Return how large the features of all images behind a cut would be."""
    size = bench.data.in_chans, *bench.data.image_size
    x = probe(size, 1).to(devices.select_device(bench.recipe.device))
    with evaluation_mode(bench.model), torch.inference_mode():
        row = bench.ladder.cuts[rung].features(bench.model, x)
    return row.numel() * 4 * bench.every[0]
