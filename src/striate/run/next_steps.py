"""Commands that fit a verdict, each with its purpose; never the command just run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from striate.core.format import count_text
from striate.data.sources.named import NAMED
from striate.report.format import percent
from striate.run import layout as names
from striate.run.build_network import CUSTOM
from striate.run.choose_recipe import PHOTO_SIDE
from striate.run.curve_forecast import find_forecast
from striate.run.run import Run
from striate.run.scorecard import ci_text
from striate.run.transfer_plan import LOGISTIC
from striate.run.verdict_facts import VerdictFacts
from striate.run.verdict_rules import (
    ABOVE_BASELINE,
    CLASS_NEVER_PREDICTED,
    CLOSE_TO_BASELINE,
    NOT_ABOVE_BASELINE,
    ONE_CLASS,
    OVERFITTING,
    SPLITS_DIFFER,
    TOO_FEW,
    can_train_longer,
    has_train_gap,
)

MAX_STEPS = 4
MANY_IMAGES_PER_CLASS = (
    1000  # per class; from then on, training from scratch can be as good
)
FEW_FOR_CURVE = 100  # training images; with fewer, a learning curve says nothing
ENOUGH_IMAGES = 50  # images per class that a first collection should have
HIGH_ACCURACY = 0.98  # from this accuracy on, fine-tuning has little to gain


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """What to do next; `command` is empty if there is no command for it."""

    command: str
    purpose: str


def next_steps(
    run: Run, facts: VerdictFacts, kind: str, other_data: str | None = None
) -> tuple[NextStep, ...]:
    """Return at most `MAX_STEPS` steps for a verdict, the most useful first.

    `other_data` is the path of the evaluated images, if they are not those of the run.
    """
    steps = _Steps(run, facts, kind, other_data)
    return tuple(islice(steps.in_order(), MAX_STEPS))


@dataclass(frozen=True)
class _Steps:
    """The steps that fit a run and the kind of its verdict."""

    run: Run
    facts: VerdictFacts
    kind: str
    other_data: str | None

    def in_order(self) -> Iterator[NextStep]:
        """Yield the steps that fit, the most useful first."""
        kind = self.kind
        if kind == ABOVE_BASELINE:
            yield self._predict()
        if kind in (
            NOT_ABOVE_BASELINE,
            SPLITS_DIFFER,
            CLASS_NEVER_PREDICTED,
            CLOSE_TO_BASELINE,
        ):
            yield from self._check()
        if kind != ABOVE_BASELINE or self.facts.evaluated.accuracy < HIGH_ACCURACY:
            yield from self._improvements()
        if kind not in (NOT_ABOVE_BASELINE, TOO_FEW):
            yield self._explain()
        if kind not in (ABOVE_BASELINE, NOT_ABOVE_BASELINE):
            yield self._predict()

    def _improvements(self) -> Iterator[NextStep]:
        kind = self.kind
        if kind in (ONE_CLASS, SPLITS_DIFFER):
            return
        yield from self._transfer()
        if has_train_gap(self.facts):
            yield from self._augment()
        if kind in (CLASS_NEVER_PREDICTED, CLOSE_TO_BASELINE):
            yield from self._class_weights()
        yield from self._train_longer()
        if kind in (OVERFITTING, TOO_FEW) or not self._is_scratch:
            yield from self._more_images()
        yield from self._fine_tune()

    @property
    def _data(self) -> str:
        """Return the data of the run as a command-line argument; empty for arrays."""
        typed = self.run.recipe.data
        if not self.run.origin:
            return ""
        # os.path, because Path.exists raises an error in a folder without permission.
        is_typed = typed in NAMED or os.path.exists(typed)  # noqa: PTH110
        return shlex.quote(typed if is_typed else self.run.origin)

    @property
    def _folder(self) -> str:
        return shlex.quote(str(self.run.path))

    @property
    def _is_scratch(self) -> bool:
        return self.run.recipe.pretrained is None

    @property
    def _is_retrainable(self) -> bool:
        """Return whether `striate train --config` can repeat the run."""
        is_custom = self.run.recipe.model.startswith(CUSTOM)
        return bool(self._data) and not is_custom and self._transfer_facts is None

    @property
    def _multi_label(self) -> bool:
        return self.run.labels.multi_label

    @property
    def _transfer_facts(self) -> dict[str, object] | None:
        return self.run.manifest.get("transfer")

    def _predict(self) -> NextStep:
        return NextStep(
            command=f"striate predict {self._folder} IMAGE_OR_FOLDER",
            purpose="classify new images",
        )

    def _explain(self) -> NextStep:
        purpose = "show which parts of an image support the predicted class"
        return NextStep(command=f"striate explain {self._folder}", purpose=purpose)

    def _check(self) -> Iterator[NextStep]:
        data = self._data if self.other_data is None else shlex.quote(self.other_data)
        if data:
            command = f"striate data check {data}"
            purpose = "search for duplicates and near-duplicates"
            if not self._multi_label:  # label errors need one class per image
                command += " --labels"
                purpose = "search for label errors, duplicates and near-duplicates"
            yield NextStep(command=command, purpose=purpose)

    def _transfer(self) -> Iterator[NextStep]:
        counts = self.facts.train_counts
        is_small = sum(counts.values()) < MANY_IMAGES_PER_CLASS * len(counts)
        side = min(self.run.preprocess.height, self.run.preprocess.width)
        if self._is_scratch and self._data and is_small and side >= PHOTO_SIDE:
            purpose = "use a pretrained network: it needs far fewer images"
            yield NextStep(command=f"striate transfer {self._data}", purpose=purpose)

    def _augment(self) -> Iterator[NextStep]:
        recipe = self.run.recipe
        if self._is_scratch and not recipe.augmentation.is_active:
            yield from self._retrain(
                "--augment six",
                "random changes of the training images reduce overfitting",
            )

    def _class_weights(self) -> Iterator[NextStep]:
        if self.run.recipe.class_weights == "none":
            yield from self._retrain(
                "--class-weights auto",
                "rare classes then count as much as frequent ones",
            )

    def _retrain(self, flags: str, effect: str) -> Iterator[NextStep]:
        """Yield a command that repeats the training with other settings."""
        config = shlex.quote(str(self.run.path / names.ARGS))
        purpose = f"repeat the command with {flags}: {effect}"
        if self._is_retrainable:
            command = f"striate train --config {config} {flags}"
            yield NextStep(command=command, purpose=purpose)
        elif self._transfer_facts is not None and not self._is_scratch:
            yield NextStep(command="", purpose=purpose)

    def _train_longer(self) -> Iterator[NextStep]:
        if can_train_longer(self.facts) and self._is_retrainable:
            epochs = 2 * self.facts.epochs
            command = f"striate train --resume {self._folder} --epochs {epochs}"
            yield NextStep(command=command, purpose="train longer")

    def _more_images(self) -> Iterator[NextStep]:
        unused = self.run.manifest["data"].get("unused", 0)
        train = sum(self.facts.train_counts.values())
        if unused:
            images = count_text(unused, "training image")
            purpose = f"train on all images: --fraction left out {images}"
            yield NextStep(command="", purpose=purpose)
        elif (forecast := find_forecast(self.run)) is not None:
            accuracy = f"{percent(forecast.expected)} ({ci_text(forecast.interval)})"
            text = f"collect more images: with {forecast.images:,} training images, "
            text += f"{forecast.metric} {accuracy} is expected (see {forecast.path})"
            yield NextStep(command="", purpose=text)
        elif train < FEW_FOR_CURVE:
            text = f"collect more images, at least {ENOUGH_IMAGES} of each class"
            yield NextStep(command="", purpose=text)
        elif self._data and self._is_scratch and not self._multi_label:
            purpose = "estimate the accuracy with more images"
            yield NextStep(command=f"striate data curve {self._data}", purpose=purpose)

    def _fine_tune(self) -> Iterator[NextStep]:
        facts = self._transfer_facts or {}
        if facts.get("head") != LOGISTIC or "plan" in facts or not self._data:
            return
        model, weights = self.run.recipe.model, str(self.run.recipe.pretrained)
        flags = "" if model == weights else f" --model {shlex.quote(model)}"
        flags += f" --pretrained {shlex.quote(weights)}"
        command = f"striate train {self._data}{flags}"
        purpose = "fine-tune all layers: often more accurate, takes minutes on a CPU"
        yield NextStep(command=command, purpose=purpose)
