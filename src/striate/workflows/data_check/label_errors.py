"""Which labels are doubtful: networks judge the images that they did not learn.

Every image is in one fold, and each fold is judged by a network that learned the
others, so that no answer is remembered. Copies, near-duplicates and given groups lie in
one fold, or they would be.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from striate.core.spec import WHITE, Preprocess
from striate.data.check.check import Checked
from striate.data.check.label_error_findings import Doubts
from striate.data.check.label_errors import Confident
from striate.data.load import load_labeled
from striate.data.scan import Tick
from striate.data.sources.source import Source
from striate.data.split.exact_counts import hold
from striate.run.recipe import Recipe
from striate.run.setup import auto_model
from striate.workflows.data_check.as_json import kept_together
from striate.workflows.data_check.cross_validation import Jury

# Measured on digits and Fashion-MNIST, training only (docs/notebook/data-check.md).
FOLDS = 5
STEPS = 400  # of a training, where that takes a number of epochs within EPOCHS
EPOCHS = (2, 20)
BATCH = 64
SIDES = (8, 64)  # what the networks admit, and what is enough to tell classes apart


def _nobody(done: int, total: int) -> None:
    """Tell nobody how far it is."""


def doubt_labels(
    found: Checked, *, recipe: Recipe | None = None, tick: Tick | None = None
) -> Checked:
    """Return a check with its doubtful labels among the findings.

    Nothing is written. Parts that were given do not matter: the labels of a test split
    are judged as those of the training split are.

    Args:
        found: What was checked.
        recipe: How the networks learn, in place of what is chosen by the set's size.
        tick: Called with (done, all), in images learned from.

    Raises:
        NonFiniteError: A training blew up.

    Example:
        >>> from striate.data.check.check import check_data
        >>> from striate.data.sources.source import from_arrays
        >>> pixels = np.random.default_rng(0).integers(0, 90, (40, 8, 8), np.uint8)
        >>> pixels[20:] += 90
        >>> names = ["night"] * 20 + ["day"] * 20
        >>> names[3] = "day"
        >>> found = check_data(from_arrays("sky", pixels, names), near=False)
        >>> doubt_labels(found).findings[0].groups[0].members
        (3,)
    """
    began = time.perf_counter()
    recipe = recipe or recipe_for(found)
    labels, preprocess = found.source.labels, input_of(found)
    given = np.array([labels.index(i.record.label) for i in found.items], np.int64)
    probs = np.zeros((len(given), len(labels)), np.float32)
    judged = np.zeros(len(given), bool)
    if len(set(given.tolist())) > 1:
        subset, _ = load_labeled(usable(found), preprocess, labels, cache="off")
        number = {item.record.path: i for i, item in enumerate(found.items)}
        places = np.array([number[path] for path in subset.paths])
        jury = Jury(
            subset=subset, preprocess=preprocess, classes=len(labels), recipe=recipe
        )
        folds = folds_of(found, recipe.seed)[places]
        for verdict in jury.verdicts(folds, tick or _nobody):
            rows = places[verdict.rows]
            probs[rows] = verdict.probs
            judged[rows] = verdict.known[given[rows]]
    doubts = Doubts(
        judged=Confident(probs=probs, given=given, judged=judged),
        names=labels.names,
        model=auto_model(preprocess.channels),
        folds=FOLDS,
        epochs=recipe.epochs,
        seconds=time.perf_counter() - began,
    )
    return found.with_doubts(doubts)


def recipe_for(found: Checked) -> Recipe:
    """Return how the networks learn: in a large set each image is seen less often.

    Example:
        >>> from striate.data.check.check import check_data
        >>> recipe_for(check_data("digits", near=False)).epochs
        18
    """
    learned = max(1, len(found.items) * (FOLDS - 1) // FOLDS)
    epochs = min(max(round(STEPS * BATCH / learned), EPOCHS[0]), EPOCHS[1])
    return Recipe(data=found.source.name, epochs=epochs, batch_size=BATCH)


def input_of(found: Checked) -> Preprocess:
    """Return how images meet the networks: at their own size, within `SIDES`."""
    facts = [item.facts for item in found.items]
    sizes = {(fact.height, fact.width) for fact in facts}
    own = sizes.pop() if len(sizes) == 1 else (SIDES[1], SIDES[1])
    height, width = (min(max(side, SIDES[0]), SIDES[1]) for side in own)
    held = found.source.arrays
    channels = 3 if any(fact.colored for fact in facts) else 1
    if held is not None and held.shape[-1] not in (1, 3):
        channels = held.shape[-1]  # no rule turns these into others
    return Preprocess(
        channels=channels, height=height, width=width, white_level=WHITE, jpeg="reduced"
    )


def usable(found: Checked) -> Source:
    """Return the source without what cannot be used."""
    source = found.source
    used = {item.record.path for item in found.items}
    rows = [i for i, record in enumerate(source.records) if record.path in used]
    return replace(
        source,
        records=tuple(source.records[i] for i in rows),
        arrays=None if source.arrays is None else source.arrays[rows],
    )


def folds_of(found: Checked, seed: int) -> np.ndarray:
    """Return the fold of each position, (N,): stratified, and no family is parted."""
    family = {i: f"family {k}" for k, g in enumerate(kept_together(found)) for i in g}
    dealt = hold(
        [item.record.label for item in found.items],
        [item.facts.content for item in found.items],
        [family.get(i) for i in range(len(found.items))],
        {str(fold): 1 / FOLDS for fold in range(FOLDS)},
        seed,
    )
    return np.array(dealt, np.int64)
