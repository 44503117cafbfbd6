"""Which ways a plan tries, what it passes over, and which it chooses."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from torch import nn

from striate.core.errors import NonFiniteError
from striate.run.transfer_plan import best_tuned
from striate.workflows.transfer import search as tries
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.search import Ways, first_rung
from support.plans import probed, tried

EVEN = probed(0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.5, 0.5)


@pytest.fixture(autouse=True)
def _small_features(monkeypatch):
    monkeypatch.setattr(tries, "bytes_behind", lambda bench, rung: 0)


def ways_of(names, run=None, **asked):
    """A search over cuts called by one letter each; the last is the head's."""
    tail = nn.Sequential(nn.BatchNorm2d(1))
    cuts = tuple(SimpleNamespace(name=name, tail=tail) for name in (*names, "head"))
    bench = SimpleNamespace(ladder=SimpleNamespace(cuts=cuts), run=run)
    told = []
    wanted = TransferOptions(cut="auto", **asked)
    return Ways(bench=bench, asked=wanted, tell=told.append), told


@pytest.mark.parametrize(
    ("accuracies", "rung"),
    [
        ((0.5, 0.6, 0.8, 0.9), 2),  # the last is best: all but it are kept below
        ((0.5, 0.9, 0.89, 0.7), 2),  # as good as the best by a standard error
        ((0.5, 0.9, 0.8, 0.7), 1),
        ((0.9,), -1),
    ],
)
def test_the_cut_is_where_the_network_knows_most(accuracies, rung):
    assert first_rung(probed(*accuracies)) == rung


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
def test_cuts_are_tried_whose_features_can_be_kept(monkeypatch, sizes, middle, lower):
    monkeypatch.setattr(tries, "bytes_behind", lambda bench, rung: sizes[rung] * 1e9)
    ways, told = ways_of("abcdef"[: len(sizes) - 1])
    assert ways.middle() == middle
    assert list(ways.lower(middle)) == lower
    assert told == [f"left out: {what}" for what in ways.left_out]
    assert all("(9.0 GB of features)" in line for line in told)
    assert bool(told) is (9 in sizes[1:-2])


@pytest.mark.parametrize(
    ("asked", "costs", "found"),
    [
        # Down as long as it pays, in the better mode.
        ({}, (9, 6, 5, 6), ["e frozen", "e adapting", "c adapting"]),
        ({}, (9, 5, 6, 4, 5), ["e frozen", "e adapting", "c frozen", "b frozen"]),
        ({"batch_norm": "frozen"}, (9, 5, 4, 3, 2), [f"{c} frozen" for c in "ecba"]),
        # Up where the head alone is better.
        ({}, (4, 5, 6, 3), ["e frozen", "e adapting", "g frozen"]),
        ({"head": "logistic"}, (9,), []),
        # What diverges is passed over.
        ({}, (9, None, 5, 6), ["e adapting", "c adapting"]),
        ({}, (9, 5, None, None), ["e frozen"]),
        ({}, (9, None, None), []),
    ],
)
def test_the_middle_tells_the_mode_and_the_way(asked, costs, found):
    came = iter(costs)

    def run(wanted):
        cost = next(came)
        if cost is None:
            raise NonFiniteError("the training loss became nan")
        done = tried([True], wanted.kind, cost)
        return replace(done, cut=wanted.cut, batch_norm=wanted.batch_norm)

    ways, told = ways_of("abcdefgh", run, **asked)
    ways.explore(EVEN)
    first, *others = ways.trials
    assert first.head == "logistic"
    assert [f"{one.cut} {one.batch_norm}" for one in others] == found
    assert next(came, None) is None
    assert len(ways.left_out) == costs.count(None)
    for what in ways.left_out:
        assert "batch norm" in what
        assert "(diverged: lower --lr)" in what
        assert f"left out: {what}" in told


def test_a_tuned_head_that_is_asked_for_must_not_diverge_everywhere():
    def run(wanted):
        if wanted.kind == "logistic":
            return tried([True])
        raise NonFiniteError("the training loss became nan")

    ways, _ = ways_of("abcdefgh", run, head="tuned")
    with pytest.raises(NonFiniteError, match="every way of fine-tuning") as told:
        ways.explore(EVEN)
    assert told.value.where == "behind e"
    assert told.value.fix == "lower --lr"


def chosen(*trials, **asked):
    ways, _ = ways_of("ab", **asked)
    ways.trials.extend(trials)
    return ways.chosen()


def test_the_head_alone_is_chosen_where_it_is_better_by_a_standard_error():
    alone = tried([True] * 4)
    tuned = [tried([True] * 4, "tuned", cost) for cost in (0.7, 0.6)]
    assert chosen(alone) == 0
    assert chosen(alone, *tuned) == 0
    assert chosen(alone, *tuned, head="tuned") == 2
    assert chosen(alone, tried([True] * 4, "tuned", 0.4)) == 1
    unsure = replace(tuned[0], costs=(0.2, 0.9, 0.2, 0.9))
    assert unsure.cost > alone.cost
    assert chosen(alone, unsure) == 1


def test_what_learns_more_is_taken_unless_it_is_worse_by_a_standard_error():
    alone, few = tried([True] * 4), tried([True] * 4, "tuned", 0.5)
    more = replace(few, stages=("low", *few.stages), costs=(0.9, 0.2, 0.9, 0.2))
    assert more.cost > few.cost
    assert chosen(alone, few, more, head="tuned") == 2
    worse = replace(more, costs=(0.6,) * 4)
    assert chosen(alone, few, worse, head="tuned") == 1
    assert best_tuned([alone]) is None
