"""Scores of many classes: what is listed, what is named, what is left to a file."""

import numpy as np

from striate.metrics.classification import classification_metrics
from striate.run import scorecard


def scored(classes, wrong):
    """Score one image a class; those in `wrong` are taken for their successor."""
    truth = np.arange(classes)
    said = truth + np.isin(truth, wrong)
    probs = np.eye(classes)[said]
    names = [f"thing {k:03d}" for k in range(classes)]
    return classification_metrics(probs, truth, np.zeros(classes), names)


def test_of_many_classes_the_least_found_are_listed():
    classes = scorecard.ROWS + 10
    found = scorecard.class_table(scored(classes, wrong=[5, classes - 3]))
    assert found.title == f"By class, the {scorecard.ROWS} least found"
    names = [row[0] for row in found.rows]
    assert names[:3] == ["thing 005", f"thing {classes - 3:03d}", "thing 000"]
    assert len(names) == scorecard.ROWS
    assert found.note == f"All {classes} classes stand in scores.json."


def test_few_classes_are_listed_in_their_order():
    found = scorecard.class_table(scored(5, wrong=[2]))
    assert [row[0] for row in found.rows] == [f"thing {k:03d}" for k in range(5)]
    assert (found.title, found.note) == ("By class", "")
