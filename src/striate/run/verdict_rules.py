"""Rules of the verdict: what the accuracy of a run means, from its counts.

Each rule looks at the facts of the run and returns a statement, or None. The rules are
in the order of their importance: the first statement with a kind gives the verdict its
kind. docs/notebook/statistics.md has the measured error rates of the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from striate.core.format import count_text
from striate.metrics.intervals import newcombe_interval
from striate.metrics.significance import binomial_tail, fisher_exact
from striate.report.format import percent
from striate.run.scorecard import GAP, ci_text
from striate.run.verdict_facts import SPLIT_WORDS, ClassCount, VerdictFacts

# Kinds of verdicts.
TOO_FEW = "too few images"
ONE_CLASS = "one class"  # all evaluated images have the same class
AT_CHANCE = "at chance"
SPLITS_DIFFER = "splits differ"
OVER_FITTED = "over-fitted"
CLASS_NEVER_PREDICTED = "class never predicted"
CLOSE_TO_MAJORITY = "close to majority"
FINE = "fine"

BETTER_LEVEL = 0.01  # significance level of "better than the most frequent class"
DIFFERENT_LEVEL = 0.002  # of "two splits differ": the best epoch favors validation
NEVER_LEVEL = 0.05  # of "a class has recall 0", over all classes together
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
    return percent(share).replace(" ", GAP)


def _too_few_evaluated(facts: VerdictFacts) -> Statement | None:
    is_tiny = _is_tiny(facts)
    if not is_tiny and _interval_width(facts) <= WIDE_INTERVAL:
        return None
    kind = TOO_FEW if is_tiny else ""
    images = facts.images_text(facts.evaluated.count)
    limits = f"the 95 % interval of the accuracy is {ci_text(facts.evaluated.interval)}"
    return Statement(f"There are only {images}: {limits}.", kind)


def _interval_width(facts: VerdictFacts) -> float:
    low, high = facts.evaluated.interval
    return high - low


def _is_tiny(facts: VerdictFacts) -> bool:
    """Return whether there are too few evaluated images for any other conclusion."""
    is_few = facts.evaluated.count < FEW_EVALUATED
    return is_few and _interval_width(facts) > TOO_WIDE_INTERVAL


def _too_few_training(facts: VerdictFacts) -> Statement | None:
    counts = facts.train_counts
    few = sorted((n, name) for name, n in counts.items() if n < FEW_TRAINING)
    if not few:
        return None
    is_reason = sum(counts.values()) < FEW_TRAINING * len(counts)
    kind = TOO_FEW if is_reason and not is_better(facts) else ""
    if len(few) == 1:
        count, name = few[0]
        text = f"The class '{name}' has only {count_text(count, 'training image')}."
        return Statement(text, kind)
    names = ", ".join(f"'{name}' ({n})" for n, name in few[:NAMES_SHOWN])
    more = ", …" if len(few) > NAMES_SHOWN else ""
    which = f"{len(few):,} of {len(counts):,}" if len(few) < len(counts) else "All"
    text = f"{which} classes have fewer than {FEW_TRAINING} training images"
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


def is_better(facts: VerdictFacts) -> bool:
    """Return whether the accuracy is clearly above that of the most frequent class."""
    return majority_p_value(facts) < BETTER_LEVEL


def _is_imbalanced(facts: VerdictFacts) -> bool:
    return facts.majority_share >= max(1.5 / len(facts.classes), 0.3)


def _balanced_is_better(facts: VerdictFacts) -> bool:
    """Return whether rare classes are recognized, although the accuracy is low."""
    chance = 1 / len(facts.classes)
    return _is_imbalanced(facts) and facts.balanced_low > chance


def _at_chance(facts: VerdictFacts) -> Statement | None:
    if _is_tiny(facts) or is_better(facts) or _balanced_is_better(facts):
        return None
    only = facts.predicted_classes
    if len(only) == 1:
        text = f"The network predicts '{only[0]}' for every image: {_accuracy(facts)}"
        return Statement(f"{text} is no better than {_always(facts)}.", AT_CHANCE)
    weak = "no" if majority_p_value(facts) > 10 * BETTER_LEVEL else "not clearly"
    text = f"{_sentence(_accuracy(facts))} is {weak} better than {_always(facts)}"
    return Statement(f"{text}.", AT_CHANCE)


def _accuracy(facts: VerdictFacts) -> str:
    return f"{facts.accuracy_name} ({_percent(facts.evaluated.accuracy)})"


def _sentence(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _always(facts: VerdictFacts) -> str:
    name, share = facts.majority.name, _percent(facts.majority_share)
    return f"always answering '{name}' ({share})"


def _splits_differ(facts: VerdictFacts) -> Statement | None:
    first, second = facts.reference, facts.evaluated
    if first is None or abs(first.accuracy - second.accuracy) < MIN_SPLIT_GAP:
        return None
    p = fisher_exact(first.pair, second.pair)
    if p >= DIFFERENT_LEVEL:
        return None
    text = (
        f"The accuracy is {_percent(first.accuracy)} on "
        f"{SPLIT_WORDS[facts.reference_split]} images "
        f"but {_percent(second.accuracy)} on {facts.images_name}"
    )
    p_text = "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"
    return Statement(f"{text}, more than chance explains ({p_text}).", SPLITS_DIFFER)


def _over_fitted(facts: VerdictFacts) -> Statement | None:
    train, evaluated = facts.train, facts.evaluated
    if train is None or not has_train_gap(facts):
        return None
    texts = _percent(train.accuracy), _percent(evaluated.accuracy)
    pair = f"{texts[0]} on training images and {texts[1]} on {facts.images_name}"
    expected = facts.cross_validated
    if expected is not None and expected < evaluated.interval[1]:
        text = f"The accuracy is {pair}. Cross-validation on the training images"
        usual = "such a gap is usual for a linear head"
        return Statement(f"{text} predicted {_percent(expected)}: {usual}.")
    return Statement(f"Over-fitted: the accuracy is {pair}.", OVER_FITTED)


def has_train_gap(facts: VerdictFacts) -> bool:
    """Return whether the training accuracy is much higher, and chance is no reason.

    The lower limit of the difference must exceed half of `MIN_TRAIN_GAP`.
    """
    train, evaluated = facts.train, facts.evaluated
    if train is None or train.accuracy - evaluated.accuracy <= MIN_TRAIN_GAP:
        return False
    low, _ = newcombe_interval(train.pair, evaluated.pair)
    return low > MIN_TRAIN_GAP / 2


def _not_learned(facts: VerdictFacts) -> Statement | None:
    """State a low training accuracy, if the accuracy is low without over-fitting."""
    train = facts.train
    if train is None or has_train_gap(facts) or _gain(facts) > SMALL_GAIN:
        return None
    if train.accuracy > 0.9:
        return None
    text = f"The training accuracy is only {_percent(train.accuracy)}"
    return Statement(f"{text}: the network did not learn its training images well.")


def _gain(facts: VerdictFacts) -> float:
    """Return the share of the accuracy above the most frequent class that was gained.

    It is 0 for always predicting the most frequent class, and 1 for no errors.
    """
    left = 1 - facts.majority_share
    return (facts.evaluated.accuracy - facts.majority_share) / left if left else 1.0


def never_correct(facts: VerdictFacts) -> list[ClassCount]:
    """Return the classes with recall 0, if chance does not explain it."""
    error = 1 - facts.evaluated.accuracy
    level = NEVER_LEVEL / len(facts.classes)
    return [
        c
        for c in facts.classes
        if not c.correct and c.images >= MIN_CLASS_IMAGES and error**c.images < level
    ]


def _class_never_predicted(facts: VerdictFacts) -> Statement | None:
    missed = never_correct(facts)
    if not missed or len(facts.predicted_classes) == 1:
        return None
    if len(missed) > 1:
        names = ", ".join(f"'{c.name}'" for c in missed[:NAMES_SHOWN])
        more = ", …" if len(missed) > NAMES_SHOWN else ""
        text = f"{len(missed):,} of {len(facts.classes):,} classes are never"
        sentence = f"{text} predicted correctly: {names}{more}."
        return Statement(sentence, CLASS_NEVER_PREDICTED)
    name, images = missed[0].name, count_text(missed[0].images, "image")
    text = f"The class '{name}' ({images}) is never predicted."
    if missed[0].predicted:
        text = f"The class '{name}' ({images}) is never predicted correctly."
    return Statement(text, CLASS_NEVER_PREDICTED)


def _close_to_majority(facts: VerdictFacts) -> Statement | None:
    balanced, accuracy = _percent(facts.balanced_accuracy), _sentence(_accuracy(facts))
    if not is_better(facts):
        if _is_tiny(facts) or not _balanced_is_better(facts):
            return None
        chance = _percent(1 / len(facts.classes))
        but = f"the balanced accuracy ({balanced}) is better than chance ({chance})"
        text = f"{accuracy} is not clearly better than {_always(facts)}, but {but}."
        return Statement(text, CLOSE_TO_MAJORITY)
    if not _is_imbalanced(facts) or _gain(facts) > SMALL_GAIN:
        return None
    points = 100 * (facts.evaluated.accuracy - facts.majority_share)
    text = f"{accuracy} is only {points:.1f} points above {_always(facts)}"
    extra = f"the balanced accuracy is {balanced}"
    return Statement(f"{text}; {extra}.", CLOSE_TO_MAJORITY)


def _better(facts: VerdictFacts) -> Statement | None:
    if not is_better(facts):
        return None
    limits = f"95 % interval {ci_text(facts.evaluated.interval)}"
    accuracy = _percent(facts.evaluated.accuracy)
    much = "clearly better" if _gain(facts) > SMALL_GAIN else "better"
    text = f"{_sentence(facts.accuracy_name)} ({accuracy}, {limits}) is {much} than"
    return Statement(f"{text} {_always(facts)}.", FINE)


def _still_rising(facts: VerdictFacts) -> Statement | None:
    if not can_train_longer(facts):
        return None
    epochs = count_text(facts.epochs, "epoch")
    return Statement(f"The validation accuracy was still rising after {epochs}.")


def can_train_longer(facts: VerdictFacts) -> bool:
    """Return whether more epochs probably help: validation rises, training can too."""
    is_learned = facts.train is not None and facts.train.accuracy > 0.98
    return facts.is_rising and not is_learned


RULES: tuple[Callable[[VerdictFacts], Statement | None], ...] = (
    _too_few_evaluated,
    _too_few_training,
    _at_chance,
    _splits_differ,
    _over_fitted,
    _class_never_predicted,
    _close_to_majority,
    _better,
    _not_learned,
    _still_rising,
)
