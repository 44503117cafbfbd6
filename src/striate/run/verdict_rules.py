"""Rules of the verdict: what the accuracy of a run means, from its counts.

Each rule looks at the facts of the run and returns a statement, or None. The rules are
in the order of their importance: the first statement with a kind gives the verdict its
kind. docs/notebook/statistics.md has the measured error rates of the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from striate.core.format import count_text
from striate.metrics.intervals import newcombe_interval
from striate.metrics.significance import binomial_tail, fisher_exact
from striate.report.format import NO_BREAK_SPACE, percent
from striate.run.scorecard import ci_text
from striate.run.verdict_facts import SPLIT_WORDS, ClassCount, VerdictFacts

# Kinds of verdicts.
TOO_FEW = "too few images"
ONE_CLASS = "one class"  # all evaluated images have the same class
NOT_ABOVE_BASELINE = "not above baseline"
SPLITS_DIFFER = "splits differ"
OVERFITTING = "overfitting"
CLASS_NEVER_PREDICTED = "class never predicted"
CLOSE_TO_BASELINE = "close to baseline"
ABOVE_BASELINE = "above baseline"

MAJORITY_ALPHA = 0.01  # significance level of "better than the most frequent class"
SPLITS_ALPHA = 0.002  # of "two splits differ": the best epoch favors validation
RECALL_ZERO_ALPHA = 0.05  # of "a class has recall 0", over all classes together
MIN_SPLIT_GAP = 0.10  # smaller differences between two splits are not mentioned
MIN_TRAIN_GAP = 0.15  # between training and evaluated images
WIDE_INTERVAL = 0.25  # width of a 95 % interval that is mentioned
# With fewer images and an interval wider than 20 points, nothing else is concluded.
FEW_EVALUATED, TOO_WIDE_INTERVAL = 20, 0.20
FEW_TRAINING = 10  # training images of a class
MIN_CLASS_IMAGES = 5  # evaluated images of a class, to say that it is never predicted
SMALL_GAIN = 0.25  # of the accuracy that the most frequent class leaves to be gained
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Statement:
    """Sentence of a verdict; `kind` is empty if it only adds information."""

    sentence: str
    kind: str = ""


def conclude(facts: VerdictFacts) -> tuple[str, tuple[str, ...]]:
    """Return the kind of a verdict, and its sentences, the most important first."""
    rules = RULES if len(facts.classes) > 1 else (_too_few_evaluated, _one_class)
    statements = [s for rule in rules if (s := rule(facts)) is not None]
    kind = next(s.kind for s in statements if s.kind)
    statements.sort(key=lambda s: s.kind != kind)
    return kind, tuple(s.sentence for s in statements)


def _percent(share: float) -> str:
    """Format a fraction as a percentage that is not broken at the end of a line."""
    return percent(share).replace(" ", NO_BREAK_SPACE)


def _too_few_evaluated(facts: VerdictFacts) -> Statement | None:
    is_tiny = _is_tiny(facts)
    if not is_tiny and _interval_width(facts) <= WIDE_INTERVAL:
        return None
    kind = TOO_FEW if is_tiny else ""
    images = facts.images_text(facts.evaluated.count)
    interval = ci_text(facts.evaluated.interval)
    text = f"There are only {images}: the 95 % interval of the accuracy is {interval}."
    return Statement(text, kind)


def _interval_width(facts: VerdictFacts) -> float:
    low, high = facts.evaluated.interval
    return high - low


def _is_tiny(facts: VerdictFacts) -> bool:
    """Return whether there are too few evaluated images for any other conclusion."""
    has_few_images = facts.evaluated.count < FEW_EVALUATED
    return has_few_images and _interval_width(facts) > TOO_WIDE_INTERVAL


def _too_few_training(facts: VerdictFacts) -> Statement | None:
    is_above_baseline = is_above_majority(facts)
    return too_few_training(facts.train_counts, is_above_baseline=is_above_baseline)


def too_few_training(
    counts: Mapping[str, int], *, is_above_baseline: bool
) -> Statement | None:
    """State classes with few training images; if all have few, this is the verdict.

    `counts` are the training images of each class. `is_above_baseline` tells whether
    the predictions are clearly better than chance.
    """
    small = sorted((n, name) for name, n in counts.items() if n < FEW_TRAINING)
    if not small:
        return None
    has_few_images = sum(counts.values()) < FEW_TRAINING * len(counts)
    kind = TOO_FEW if has_few_images and not is_above_baseline else ""
    if len(small) == 1:
        count, name = small[0]
        text = f"The class '{name}' has only {count_text(count, 'training image')}."
        return Statement(text, kind)
    names = ", ".join(f"'{name}' ({n})" for n, name in small[:NAMES_SHOWN])
    more = ", …" if len(small) > NAMES_SHOWN else ""
    quantity = "All"
    if len(small) < len(counts):
        quantity = f"{len(small):,} of {len(counts):,}"
    text = f"{quantity} classes have fewer than {FEW_TRAINING} training images"
    return Statement(f"{text}: {names}{more}.", kind)


def _one_class(facts: VerdictFacts) -> Statement | None:
    images = facts.images_text(facts.evaluated.count)
    recall = _percent(facts.evaluated.accuracy)
    text = f"All {images} have the class '{facts.majority.name}'"
    return Statement(f"{text}; its recall is {recall}.", ONE_CLASS)


def majority_p_value(facts: VerdictFacts) -> float:
    """Return the one-sided exact p-value of "not better than the most frequent class".

    It is the probability of at least this many correct predictions, if each one were
    correct with the probability of the most frequent class.
    """
    evaluated = facts.evaluated
    return binomial_tail(evaluated.correct, evaluated.count, facts.majority_share)


def is_above_majority(facts: VerdictFacts) -> bool:
    """Return whether the accuracy is clearly above that of the most frequent class."""
    return majority_p_value(facts) < MAJORITY_ALPHA


def _is_imbalanced(facts: VerdictFacts) -> bool:
    return facts.majority_share >= max(1.5 / len(facts.classes), 0.3)


def _is_balanced_above_chance(facts: VerdictFacts) -> bool:
    """Return whether rare classes are recognized, although the accuracy is low."""
    chance = 1 / len(facts.classes)
    return _is_imbalanced(facts) and facts.balanced_low > chance


def _not_above_baseline(facts: VerdictFacts) -> Statement | None:
    if _is_tiny(facts) or is_above_majority(facts) or _is_balanced_above_chance(facts):
        return None
    predicted, accuracy = facts.predicted_classes, _accuracy_text(facts)
    text = _capitalize_first(accuracy)
    if len(predicted) == 1:
        text = f"The network predicts '{predicted[0]}' for every image: {accuracy}"
    return Statement(f"{text} {_not_better_text(facts)}.", NOT_ABOVE_BASELINE)


def _accuracy_text(facts: VerdictFacts) -> str:
    return f"{facts.accuracy_name} ({_percent(facts.evaluated.accuracy)})"


def _capitalize_first(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _majority_text(facts: VerdictFacts, more: str = "") -> str:
    name, share = facts.majority.name, _percent(facts.majority_share)
    return f"always predicting '{name}' ({share}{more})"


def _not_better_text(facts: VerdictFacts) -> str:
    p = f", p{NO_BREAK_SPACE}={NO_BREAK_SPACE}{majority_p_value(facts):.2f}"
    return f"is not significantly better than {_majority_text(facts, p)}"


def _splits_differ(facts: VerdictFacts) -> Statement | None:
    reference, evaluated = facts.reference, facts.evaluated
    if reference is None:
        return None
    if abs(reference.accuracy - evaluated.accuracy) < MIN_SPLIT_GAP:
        return None
    p = fisher_exact(reference.as_tuple, evaluated.as_tuple)
    if p >= SPLITS_ALPHA:
        return None
    text = (
        f"The accuracy is {_percent(reference.accuracy)} on "
        f"{SPLIT_WORDS[facts.reference_split]} images "
        f"but {_percent(evaluated.accuracy)} on {facts.images_name}. "
        "A difference this large is unlikely by chance"
    )
    p_text = "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"
    return Statement(f"{text} (Fisher's exact test, {p_text}).", SPLITS_DIFFER)


def _overfitting(facts: VerdictFacts) -> Statement | None:
    train, evaluated = facts.train, facts.evaluated
    if train is None or not has_train_gap(facts):
        return None
    text = f"{_percent(train.accuracy)} on training images and "
    text += f"{_percent(evaluated.accuracy)} on {facts.images_name}"
    expected = facts.cross_validated
    if expected is not None and expected < evaluated.interval[1]:
        return Statement(
            f"The accuracy is {text}. Cross-validation on the training images gave "
            f"{_percent(expected)}, so the gap is not overfitting: a linear head often "
            "fits its training images perfectly."
        )
    return Statement(f"Overfitting: the accuracy is {text}.", OVERFITTING)


def has_train_gap(facts: VerdictFacts) -> bool:
    """Return whether the training accuracy is much higher, and chance is no reason.

    The lower limit of the difference must exceed half of `MIN_TRAIN_GAP`.
    """
    train, evaluated = facts.train, facts.evaluated
    if train is None or train.accuracy - evaluated.accuracy <= MIN_TRAIN_GAP:
        return False
    low, _ = newcombe_interval(train.as_tuple, evaluated.as_tuple)
    return low > MIN_TRAIN_GAP / 2


def _not_learned(facts: VerdictFacts) -> Statement | None:
    """State a low training accuracy, if the accuracy is low without overfitting."""
    train = facts.train
    if train is None or has_train_gap(facts) or _gain_over_majority(facts) > SMALL_GAIN:
        return None
    if train.accuracy > 0.9:
        return None
    text = f"The training accuracy is only {_percent(train.accuracy)}"
    return Statement(f"{text}: the network did not learn its training images well.")


def _gain_over_majority(facts: VerdictFacts) -> float:
    """Return the share of the accuracy above the most frequent class that was gained.

    It is 0 for always predicting the most frequent class, and 1 for no errors.
    """
    possible = 1 - facts.majority_share
    gain = facts.evaluated.accuracy - facts.majority_share
    return gain / possible if possible else 1.0


def recall_zero_classes(facts: VerdictFacts) -> list[ClassCount]:
    """Return the classes with recall 0, if chance does not explain it."""
    error = 1 - facts.evaluated.accuracy
    alpha = RECALL_ZERO_ALPHA / len(facts.classes)
    return [
        c
        for c in facts.classes
        if not c.correct and c.images >= MIN_CLASS_IMAGES and error**c.images < alpha
    ]


def _class_never_predicted(facts: VerdictFacts) -> Statement | None:
    never_correct = recall_zero_classes(facts)
    if not never_correct or len(facts.predicted_classes) == 1:
        return None
    if len(never_correct) > 1:
        names = ", ".join(f"'{c.name}'" for c in never_correct[:NAMES_SHOWN])
        more = ", …" if len(never_correct) > NAMES_SHOWN else ""
        text = f"{len(never_correct):,} of {len(facts.classes):,} classes are never"
        sentence = f"{text} predicted correctly: {names}{more}."
        return Statement(sentence, CLASS_NEVER_PREDICTED)
    name, images = never_correct[0].name, count_text(never_correct[0].images, "image")
    text = f"The class '{name}' ({images}) is never predicted."
    if never_correct[0].predicted:
        text = f"The class '{name}' ({images}) is never predicted correctly."
    return Statement(text, CLASS_NEVER_PREDICTED)


def _close_to_baseline(facts: VerdictFacts) -> Statement | None:
    balanced = _percent(facts.balanced_accuracy)
    accuracy = _capitalize_first(_accuracy_text(facts))
    if not is_above_majority(facts):
        if _is_tiny(facts) or not _is_balanced_above_chance(facts):
            return None
        chance = _percent(1 / len(facts.classes))
        text = f"Only the balanced accuracy ({balanced}) is better than chance"
        sentence = f"{accuracy} {_not_better_text(facts)}. {text} ({chance})."
        return Statement(sentence, CLOSE_TO_BASELINE)
    if not _is_imbalanced(facts) or _gain_over_majority(facts) > SMALL_GAIN:
        return None
    points = 100 * (facts.evaluated.accuracy - facts.majority_share)
    text = f"{accuracy} is only {points:.1f} points above {_majority_text(facts)}"
    sentence = f"{text}; the balanced accuracy is {balanced}."
    return Statement(sentence, CLOSE_TO_BASELINE)


def _above_baseline(facts: VerdictFacts) -> Statement | None:
    if not is_above_majority(facts):
        return None
    interval = f"95 % interval {ci_text(facts.evaluated.interval)}"
    accuracy = _percent(facts.evaluated.accuracy)
    better = "clearly better" if _gain_over_majority(facts) > SMALL_GAIN else "better"
    name = _capitalize_first(facts.accuracy_name)
    text = f"{name} ({accuracy}, {interval}) is {better} than {_majority_text(facts)}."
    return Statement(text, ABOVE_BASELINE)


def _still_rising(facts: VerdictFacts) -> Statement | None:
    if not can_train_longer(facts):
        return None
    epochs = count_text(facts.epochs, "epoch")
    return Statement(f"The validation accuracy was still rising after {epochs}.")


def can_train_longer(facts: VerdictFacts) -> bool:
    """Return whether more epochs probably help: validation rises, training can too."""
    fits_train = facts.train is not None and facts.train.accuracy > 0.98
    return facts.is_rising and not fits_train


RULES: tuple[Callable[[VerdictFacts], Statement | None], ...] = (
    _too_few_evaluated,
    _too_few_training,
    _not_above_baseline,
    _splits_differ,
    _overfitting,
    _class_never_predicted,
    _close_to_baseline,
    _above_baseline,
    _not_learned,
    _still_rising,
)
