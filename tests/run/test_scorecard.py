"""Per-class table: with many classes only those with the lowest recall."""

import numpy as np

from striate.metrics.classification import classification_metrics
from striate.run import scorecard


def score_of(classes, wrong):
    """Score one image per class; classes in `wrong` are predicted as the next one."""
    truth = np.arange(classes)
    predicted = truth + np.isin(truth, wrong)
    probs = np.eye(classes)[predicted]
    names = [f"thing {k:03d}" for k in range(classes)]
    return classification_metrics(probs, truth, np.zeros(classes), names)


def test_many_classes_list_the_lowest_recall():
    classes = scorecard.MAX_CLASSES + 10
    table = scorecard.per_class_table(score_of(classes, wrong=[5, classes - 3]))
    assert (
        table.title == f"By class, the {scorecard.MAX_CLASSES} with the lowest recall"
    )
    names = [row[0] for row in table.rows]
    assert names[:3] == ["thing 005", f"thing {classes - 3:03d}", "thing 000"]
    assert len(names) == scorecard.MAX_CLASSES
    assert table.note == f"scores.json has all {classes} classes."


def test_few_classes_are_listed_in_order():
    table = scorecard.per_class_table(score_of(5, wrong=[2]))
    assert [row[0] for row in table.rows] == [f"thing {k:03d}" for k in range(5)]
    assert (table.title, table.note) == ("By class", "")
