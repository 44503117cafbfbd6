"""Logistic regression on features: L-BFGS, the penalty chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.errors import DataError
from striate.core.seeds import permutation
from striate.engine.optim import lbfgs

Cost = Callable[[Tensor, Tensor], Tensor]
# Half the penalty times the squared weights is added to the mean cost, of features with
# deviation 1: from "hardly anything may be learnt" to "hardly anything is forbidden".
PENALTIES = tuple(10.0 ** (half / 2) for half in range(2, -11, -1))
FOLDS = 5
STEPS = 300  # of L-BFGS, at most
RISES = 2  # of the cost in a row, and smaller penalties are not tried


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a penalty came to on pictures that were not learnt from.

    Args:
        penalty: On features with deviation 1.
        cost: Mean cross-entropy in nats.
        accuracy: Share of right answers.
    """

    penalty: float
    cost: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A dense layer, ready to be put behind the features as they are.

    Args:
        weight: (classes, width).
        bias: (classes,).
        penalty: That was used.
        tried: Others, by cross-validation; empty where it was given.
    """

    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    penalty: float
    tried: tuple[Tried, ...] = ()


def logistic(
    x: Tensor,
    y: Tensor,
    classes: int,
    *,
    penalty: float | None = None,
    groups: Sequence[Hashable] | None = None,
    judged: Tensor | None = None,
    cost: Cost = F.cross_entropy,
    seed: int = 0,
) -> Fitted:
    """Fit a dense layer and softmax to features.

    Args:
        x: (N, width) features of training pictures only.
        y: (N,) class numbers.
        classes: How many there are.
        penalty: As in `PENALTIES`; chosen by cross-validation where not given.
        groups: (N) rows of one group stay in one fold: views and copies of a picture.
        judged: (N,) bool, rows that a fold is judged by: not made-up views.
        cost: Mean cost of logits and class numbers.
        seed: Of the folds.

    Raises:
        DataError: A penalty is to be chosen, and all rows are of one group.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
        >>> fitted = logistic(x, torch.tensor([0, 0, 1, 1]), 2, penalty=0.1)
        >>> (x.double() @ fitted.weight.T + fitted.bias).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    tried: tuple[Tried, ...] = ()
    if penalty is None:
        tried = cross_validated(
            x, y, classes, groups=groups, judged=judged, cost=cost, seed=seed
        )
        penalty = min(tried, key=lambda one: one.cost).penalty
    weight, bias = _Fit(x.double(), y, classes, cost)(penalty)
    return Fitted(weight=weight, bias=bias, penalty=penalty, tried=tried)


def cross_validated(
    x: Tensor,
    y: Tensor,
    classes: int,
    *,
    groups: Sequence[Hashable] | None = None,
    learnt: Tensor | None = None,
    judged: Tensor | None = None,
    cost: Cost = F.cross_entropy,
    seed: int = 0,
) -> tuple[Tried, ...]:
    """Return what penalties come to on pictures that were not learnt from.

    Args:
        x: As for `logistic`, like all that it takes too.
        y: Likewise.
        classes: Likewise.
        groups: Likewise.
        learnt: (N,) bool, rows that may be learnt from; all are judged.
        judged: (N,) bool, rows that a fold is judged by.
        cost: Mean cost of logits and class numbers, to learn by.
        seed: Of the folds.

    Raises:
        DataError: All rows are of one group, so no fold can be left out.

    Example:
        >>> x = torch.arange(20.0)[:, None] % 2
        >>> tried = cross_validated(x, torch.arange(20) % 2, 2)
        >>> min(tried, key=lambda one: one.cost).accuracy
        1.0
    """
    named = list(range(len(y))) if groups is None else groups
    every = torch.ones(len(y), dtype=torch.bool)
    mine = every if learnt is None else learnt
    shown = every if judged is None else judged
    fold = folds(y, named, seed)
    parts = [((fold != k) & mine, (fold == k) & shown) for k in range(FOLDS)]
    parts = [(mine, held) for mine, held in parts if mine.any() and held.any()]
    if not parts:
        raise _one_group()
    return tuple(_tried(x.double(), y, classes, parts, cost))


def _one_group() -> DataError:
    # A penalty that nothing has judged would be a guess that looks like a choice.
    what = (
        "cross-validation has nothing to leave out and can choose no penalty: all "
        "training pictures are of one group, or equal"
    )
    fix = "train on two groups or more, or take --head trained, which has no penalty"
    return DataError(what, where="the training part", fix=fix)


def folds(y: Tensor, groups: Sequence[Hashable], seed: int) -> Tensor:
    """Deal rows into folds: groups stay together, classes are spread evenly.

    Shapes:
        (N,) → (N,) int64

    Example:
        >>> folds(torch.tensor([0, 0, 1, 1]), ["a", "a", "b", "c"], 0).tolist()[:2]
        [0, 0]
    """
    first: dict[Hashable, int] = {}
    for label, group in zip(y.tolist(), groups, strict=True):
        first.setdefault(group, label)
    dealt: dict[Hashable, int] = {}
    begin = 0
    for label in sorted(set(first.values())):
        mine = [group for group, own in first.items() if own == label]
        order = permutation(len(mine), seed, "folds", label)
        for place, i in enumerate(order.tolist()):
            dealt[mine[i]] = (begin + place) % FOLDS
        begin += len(mine)  # rare classes do not all begin with fold 0
    return torch.tensor([dealt[group] for group in groups])


def _tried(
    x: Tensor,
    y: Tensor,
    classes: int,
    parts: Sequence[tuple[Tensor, Tensor]],
    cost: Cost,
) -> list[Tried]:
    """Try penalties from the strongest on, each begun where the one before ended."""
    fits = [_Fit(x[mine], y[mine], classes, cost) for mine, _ in parts]
    tried: list[Tried] = []
    for penalty in PENALTIES:
        answers, truth = [], []
        for fit, (_, held) in zip(fits, parts, strict=True):
            weight, bias = fit(penalty)
            answers.append(x[held] @ weight.T + bias)
            truth.append(y[held])
        logits, labels = torch.cat(answers), torch.cat(truth)
        right = (logits.argmax(1) == labels).double().mean()
        mean = F.cross_entropy(logits, labels)
        tried.append(Tried(penalty=penalty, cost=float(mean), accuracy=float(right)))
        costs = [one.cost for one in tried]
        if len(costs) > RISES and costs[-1 - RISES :] == sorted(
            set(costs[-1 - RISES :])
        ):
            break
    return tried


class _Fit:
    """Fits to the same rows for one penalty after the other.

    Features are brought to mean 0 and deviation 1 by these rows, and the layer that
    comes out undoes it.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int, cost: Cost) -> None:
        self._mean = x.mean(0)
        spread = x.std(0, correction=0)
        # A feature that never changes says nothing, and must not be divided by 0.
        self._spread = torch.where(spread > 1e-8 * (1 + self._mean.abs()), spread, 1.0)
        self._x = (x - self._mean) / self._spread
        self._y = y
        self._cost = cost
        self._weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
        self._bias = x.new_zeros(classes, requires_grad=True)

    def __call__(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Return weight and bias for the features as they are."""
        held = [self._weight, self._bias]
        optimizer = lbfgs(
            held,
            max_iter=STEPS,
            tolerance_grad=1e-6,
            tolerance_change=1e-9,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = self._cost(self._x @ self._weight.T + self._bias, self._y)
            value = value + penalty / 2 * self._weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[arg-type]
        with torch.no_grad():
            weight = self._weight / self._spread
            return weight, self._bias - weight @ self._mean
