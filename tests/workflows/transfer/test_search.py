"""Candidate search of a transfer plan: what is tried, skipped and proposed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from torch import nn

from striate.core.errors import NonFiniteError
from striate.run.transfer_plan import best_tuned
from striate.workflows.transfer import search as search_module
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.search import CandidateSearch, highest_good_cut
from support.plans import make_probes, make_trial

EVEN = make_probes(0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.5, 0.5)


@pytest.fixture(autouse=True)
def _small_features(monkeypatch):
    monkeypatch.setattr(search_module, "feature_bytes", lambda runner, index: 0)


def make_search(names, run=None, **given):
    """Return a search over cut points with these names, and the lines it prints."""
    head = nn.Sequential(nn.BatchNorm2d(1))
    cuts = tuple(SimpleNamespace(name=name, head=head) for name in (*names, "head"))
    points = SimpleNamespace(cuts=cuts)
    runner = SimpleNamespace(cut_points=points, run=run)
    lines = []
    options = TransferOptions(cut="auto", **given)
    search = CandidateSearch(runner=runner, options=options, tell=lines.append)
    return search, lines


@pytest.mark.parametrize(
    ("accuracies", "index"),
    [
        ((0.5, 0.6, 0.8, 0.9), 2),  # the last is best: all but it are kept below
        ((0.5, 0.9, 0.89, 0.7), 2),  # as good as the best by a standard error
        ((0.5, 0.9, 0.8, 0.7), 1),
        ((0.9,), -1),
    ],
)
def test_the_highest_good_cut_point(accuracies, index):
    assert highest_good_cut(make_probes(*accuracies)) == index


@pytest.mark.parametrize(
    ("sizes", "middle", "lower"),
    [
        ([1, 1, 1, 1, 1, 1], 2, [1, 0]),
        ([1, 1, 9, 9, 1, 1], 4, [1, 0]),  # too large ones are passed over, up and down
        ([1, 9, 9, 9, 9, 9], 4, [0]),
        ([1, 1], 0, []),  # none twice
        ([9, 9], 0, []),
    ],
)
def test_cut_points_with_too_large_features_are_skipped(
    monkeypatch, sizes, middle, lower
):
    monkeypatch.setattr(
        search_module, "feature_bytes", lambda runner, index: sizes[index] * 1e9
    )
    search, lines = make_search("abcdef"[: len(sizes) - 1])
    assert search.middle() == middle
    assert list(search.lower(middle)) == lower
    assert lines == [f"skipped: {text}" for text in search.skipped]
    assert all("(9.0 GB of features)" in line for line in lines)
    assert bool(lines) is (9 in sizes[1:-2])


@pytest.mark.parametrize(
    ("given", "losses", "expected"),
    [
        # Down as long as it pays, in the better mode.
        ({}, (9, 6, 5, 6), ["e frozen", "e adapting", "c adapting"]),
        ({}, (9, 5, 6, 4, 5), ["e frozen", "e adapting", "c frozen", "b frozen"]),
        ({"batch_norm": "frozen"}, (9, 5, 4, 3, 2), [f"{c} frozen" for c in "ecba"]),
        # Up where the head head_only is better.
        ({}, (4, 5, 6, 3), ["e frozen", "e adapting", "g frozen"]),
        ({"head": "logistic"}, (9,), []),
        # What diverges is passed over.
        ({}, (9, None, 5, 6), ["e adapting", "c adapting"]),
        ({}, (9, 5, None, None), ["e frozen"]),
        ({}, (9, None, None), []),
    ],
)
def test_the_search_goes_down_while_it_helps_else_up(given, losses, expected):
    results = iter(losses)

    def run(options):
        loss = next(results)
        if loss is None:
            raise NonFiniteError("the training loss became nan")
        trial = make_trial([True], options.head_kind, loss)
        return replace(trial, cut=options.cut, batch_norm=options.batch_norm)

    search, lines = make_search("abcdefgh", run, **given)
    search.run(EVEN)
    first, *others = search.trials
    assert first.head == "logistic"
    assert [f"{trial.cut} {trial.batch_norm}" for trial in others] == expected
    assert next(results, None) is None
    assert len(search.skipped) == losses.count(None)
    for text in search.skipped:
        assert "batch norm" in text
        assert "(diverged: use a lower --lr)" in text
        assert f"skipped: {text}" in lines


def test_a_requested_tuned_head_must_not_diverge_in_every_trial():
    def run(options):
        if options.head_kind == "logistic":
            return make_trial([True])
        raise NonFiniteError("the training loss became nan")

    search, _ = make_search("abcdefgh", run, head="tuned")
    with pytest.raises(NonFiniteError, match="diverged in every trial") as error:
        search.run(EVEN)
    assert error.value.where == "after e"
    assert error.value.fix == "use a lower --lr"


def best_index(*trials, **given):
    search, _ = make_search("ab", **given)
    search.trials.extend(trials)
    return search.best_index()


def test_the_head_only_is_proposed_if_better_by_a_standard_error():
    head_only = make_trial([True] * 4)
    tuned = [make_trial([True] * 4, "tuned", loss) for loss in (0.7, 0.6)]
    assert best_index(head_only) == 0
    assert best_index(head_only, *tuned) == 0
    assert best_index(head_only, *tuned, head="tuned") == 2
    assert best_index(head_only, make_trial([True] * 4, "tuned", 0.4)) == 1
    mixed = replace(tuned[0], losses=(0.2, 0.9, 0.2, 0.9))
    assert mixed.loss > head_only.loss
    assert best_index(head_only, mixed) == 1


def test_more_stages_are_proposed_unless_worse_by_a_standard_error():
    head_only, few = make_trial([True] * 4), make_trial([True] * 4, "tuned", 0.5)
    more = replace(few, stages=("low", *few.stages), losses=(0.9, 0.2, 0.9, 0.2))
    assert more.loss > few.loss
    assert best_index(head_only, few, more, head="tuned") == 2
    worse = replace(more, losses=(0.6,) * 4)
    assert best_index(head_only, few, worse, head="tuned") == 1
    assert best_tuned([head_only]) is None
