"""Verdict on a run with several labels per image: facts, and rules in order.

The mAP is compared with that of shuffled images (permutation test), with the training
images, and with the other evaluated split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from striate.core.format import count_text
from striate.metrics.average_precision import map_by_chance
from striate.metrics.multi_label import LabelMetrics, MultiLabelMetrics
from striate.report.format import NO_BREAK_SPACE, percent
from striate.run import layout as names
from striate.run.multi_label_predictions import MultiLabelPredictions
from striate.run.multi_label_scorecard import interval_text
from striate.run.run import Run
from striate.run.train_accuracy import CorrectCount
from striate.run.verdict_facts import (
    SPLIT_WORDS,
    ClassCount,
    VerdictFacts,
    run_facts,
)
from striate.run.verdict_rules import (
    ABOVE_BASELINE,
    CLASS_NEVER_PREDICTED,
    FEW_EVALUATED,
    MAJORITY_ALPHA,
    MIN_CLASS_IMAGES,
    MIN_SPLIT_GAP,
    MIN_TRAIN_GAP,
    NAMES_SHOWN,
    NOT_ABOVE_BASELINE,
    OVERFITTING,
    RECALL_ZERO_ALPHA,
    SPLITS_DIFFER,
    TOO_FEW,
    WIDE_INTERVAL,
    Statement,
    can_train_longer,
    too_few_training,
)

WEAK_AP = 0.5  # a class with a lower average precision is named


@dataclass(frozen=True, kw_only=True)
class LabelFacts(VerdictFacts):
    """Metrics of a run with several labels per image, and its circumstances."""

    score: MultiLabelMetrics
    chance: float  # mean mAP of shuffled images
    p_value: float  # of "the mAP is no better than chance"
    # scores of the reference split, as in `scores.json`
    reference_score: Mapping[str, Any] | None = None

    @property
    def evaluated(self) -> CorrectCount:
        """Return the number of images whose labels are all correct."""
        score = self.score
        return CorrectCount(round(score.accuracy * score.count), score.count, score.map)

    @property
    def accuracy_name(self) -> str:
        """Return `the test mAP`, or `the mAP on 'DATA'` for other images."""
        if self.split in SPLIT_WORDS:
            return f"the {SPLIT_WORDS[self.split]} mAP"
        return f"the mAP on '{self.split}'"

    @property
    def mean_ap(self) -> float:
        """Return the mAP; 0 if no image has a label."""
        return self.score.map or 0.0

    @property
    def is_above_baseline(self) -> bool:
        """Return whether the mAP is clearly better than chance."""
        return self.p_value < MAJORITY_ALPHA


def label_facts(
    run: Run, split: str | None, predictions: MultiLabelPredictions
) -> LabelFacts:
    """Return the facts of a run with several labels per image on a split."""
    score = predictions.metrics()
    chance, p_value = map_by_chance(predictions.truth, predictions.probs)
    common = run_facts(run, split)
    reference = common["reference_split"]
    scores = run.scores if (run.path / names.SCORES).is_file() else {}
    return LabelFacts(
        **common,
        classes=tuple(
            ClassCount(
                name=c.name, images=c.support, correct=c.tp, predicted=c.predicted
            )
            for c in score.classes
        ),
        predicted_classes=tuple(c.name for c in score.classes if c.predicted),
        is_rising=_is_rising(run, scores.get("val")),
        score=score,
        chance=chance,
        p_value=p_value,
        reference_score=scores.get(reference),
    )


def _is_rising(run: Run, val: Mapping[str, Any] | None) -> bool:
    """Return whether the last epoch is the best by more than the standard error."""
    history = run.history
    early = history[: len(history) * 3 // 4]
    if val is None or not early or not history[-1].get("best"):
        return False
    low, high = val["map_interval"]
    before = max(row["val_map"] for row in early)
    return bool(history[-1]["val_map"] - before > (high - low) / 4)


def conclude_labels(facts: LabelFacts) -> tuple[str, tuple[str, ...]]:
    """Return the kind of a verdict, and its sentences, the most important first."""
    statements = [s for rule in LABEL_RULES if (s := rule(facts)) is not None]
    kind = next((s.kind for s in statements if s.kind), NOT_ABOVE_BASELINE)
    statements.sort(key=lambda s: s.kind != kind)
    return kind, tuple(s.sentence for s in statements)


def _percent(share: float) -> str:
    return percent(share).replace(" ", NO_BREAK_SPACE)


def _too_few_evaluated(facts: LabelFacts) -> Statement | None:
    is_tiny = facts.score.count < FEW_EVALUATED
    low, high = facts.score.map_interval
    if not is_tiny and high - low <= WIDE_INTERVAL:
        return None
    images = facts.images_text(facts.score.count)
    text = f"There are only {images}: the 95 % interval of the mAP is "
    return Statement(f"{text}{interval_text((low, high))}.", TOO_FEW if is_tiny else "")


def _too_few_training(facts: LabelFacts) -> Statement | None:
    return too_few_training(
        facts.train_counts, is_above_baseline=facts.is_above_baseline
    )


def _no_labels(facts: LabelFacts) -> Statement | None:
    if facts.score.map is not None:
        return None
    images = facts.images_text(facts.score.count)
    return Statement(f"None of the {images} has a label, so there is no mAP.", TOO_FEW)


def _not_above_baseline(facts: LabelFacts) -> Statement | None:
    if facts.score.map is None or facts.is_above_baseline:
        return None
    if facts.score.count < FEW_EVALUATED:
        return None
    weak = "no" if facts.p_value > 10 * MAJORITY_ALPHA else "not clearly"
    value, chance = _percent(facts.mean_ap), _percent(facts.chance)
    name = _capitalize_first(facts.accuracy_name)
    return Statement(
        f"{name} ({value}) is {weak} better than chance ({chance}).", NOT_ABOVE_BASELINE
    )


def _capitalize_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _splits_differ(facts: LabelFacts) -> Statement | None:
    other = facts.reference_score
    if other is None or other.get("map") is None or facts.score.map is None:
        return None
    (low, high), (low_2, high_2) = facts.score.map_interval, other["map_interval"]
    is_apart = high < low_2 or high_2 < low
    if not is_apart or abs(other["map"] - facts.mean_ap) < MIN_SPLIT_GAP:
        return None
    reference = SPLIT_WORDS[facts.reference_split] + " images"
    text = f"The mAP is {_percent(other['map'])} on {reference} but "
    text += f"{_percent(facts.mean_ap)} on {facts.images_name}"
    return Statement(f"{text}; their 95 % intervals do not overlap.", SPLITS_DIFFER)


def _overfitting(facts: LabelFacts) -> Statement | None:
    train = facts.train.mean_ap if facts.train else None
    if train is None or facts.score.map is None:
        return None
    if train - facts.mean_ap <= MIN_TRAIN_GAP or train <= facts.score.map_interval[1]:
        return None
    pair = f"{_percent(train)} on training images and {_percent(facts.mean_ap)} on "
    pair += facts.images_name
    if facts.cross_validated is not None:
        text = f"The mAP is {pair}"
        return Statement(f"{text}: such a gap is usual for a linear head.")
    return Statement(f"Overfitting: the mAP is {pair}.", OVERFITTING)


def _class_never_predicted(facts: LabelFacts) -> Statement | None:
    """State classes without a true positive, if chance does not explain it."""
    error, classes = 1 - facts.score.micro_recall, facts.score.classes
    alpha = RECALL_ZERO_ALPHA / len(classes)
    missed = [
        c
        for c in classes
        if not c.tp and c.support >= MIN_CLASS_IMAGES and error**c.support < alpha
    ]
    if not missed:
        return None
    which = _listed(missed)
    verb = "is" if len(missed) == 1 else "are"
    text = f"{which} {verb} never predicted correctly"
    return Statement(f"{text}.", CLASS_NEVER_PREDICTED)


def _listed(classes: list[LabelMetrics]) -> str:
    """Return the names of some classes with their numbers of images."""
    if len(classes) == 1:
        images = count_text(classes[0].support, "image")
        return f"The class '{classes[0].name}' ({images})"
    shown = ", ".join(f"'{c.name}'" for c in classes[:NAMES_SHOWN])
    more = ", …" if len(classes) > NAMES_SHOWN else ""
    return f"{count_text(len(classes), 'class', 'classes')} ({shown}{more})"


def _above_baseline(facts: LabelFacts) -> Statement | None:
    if not facts.is_above_baseline:
        return None
    score, name = facts.score, _capitalize_first(facts.accuracy_name)
    limits = f"95 % interval {interval_text(score.map_interval)}"
    text = f"{name} ({_percent(facts.mean_ap)}, {limits}) is clearly better than chance"
    extra = f"micro F1 {_percent(score.micro_f1)}, macro F1 {_percent(score.macro_f1)}"
    exact = f"all labels are right for {_percent(score.accuracy)} of the images"
    return Statement(
        f"{text} ({_percent(facts.chance)}); {extra}; {exact}.", ABOVE_BASELINE
    )


def _weak_classes(facts: LabelFacts) -> Statement | None:
    weak = [
        c
        for c in facts.score.classes
        if c.average_precision is not None
        and c.average_precision < WEAK_AP
        and c.support >= MIN_CLASS_IMAGES
    ]
    if not weak or not facts.is_above_baseline:
        return None
    weak.sort(key=lambda c: (c.average_precision or 0.0, c.name))
    texts = [f"'{c.name}' {_percent(c.average_precision or 0.0)}" for c in weak]
    more = ", …" if len(texts) > NAMES_SHOWN else ""
    return Statement(
        f"Lowest average precision: {', '.join(texts[:NAMES_SHOWN])}{more}."
    )


def _still_rising(facts: LabelFacts) -> Statement | None:
    if not can_train_longer(facts):
        return None
    epochs = count_text(facts.epochs, "epoch")
    return Statement(f"The validation mAP was still rising after {epochs}.")


LABEL_RULES: tuple[Callable[[LabelFacts], Statement | None], ...] = (
    _too_few_evaluated,
    _too_few_training,
    _no_labels,
    _not_above_baseline,
    _splits_differ,
    _overfitting,
    _class_never_predicted,
    _above_baseline,
    _weak_classes,
    _still_rising,
)
