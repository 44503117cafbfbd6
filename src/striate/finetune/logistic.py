"""Logistic regression on features: L-BFGS, the penalty chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from striate.core.errors import DataError
from striate.core.seeds import permutation

Cost = Callable[[Tensor, Tensor], Tensor]
# Half the penalty times the squared weights is added to the mean cost, of features with
# deviation 1: from "hardly anything may be learned" to "hardly anything is forbidden".
PENALTIES = tuple(10.0 ** (half / 2) for half in range(2, -11, -1))
FOLDS = 5
STEPS = 300  # of L-BFGS, at most
SLOPE = 1e-6  # of the cost at the end; of folds, which only tell penalties apart:
ROUGH = 1e-3
LARGE = 1_000_000  # features in all, that more threads than one are faster with
VAIN = 0.11  # of the best penalty, a decade below: smaller ones are not tried


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a penalty came to on images that were not learned from.

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
        x: (N, width) features of training images only.
        y: (N,) class numbers.
        classes: How many there are.
        penalty: As in `PENALTIES`; chosen by cross-validation where not given.
        groups: (N) rows of one group stay in one fold: views and copies of an image.
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
    with _unhindered(x):
        weight, bias = _Fit(x.double(), y, classes, cost)(penalty, SLOPE)
    return Fitted(weight=weight, bias=bias, penalty=penalty, tried=tried)


def cross_validated(
    x: Tensor,
    y: Tensor,
    classes: int,
    *,
    groups: Sequence[Hashable] | None = None,
    learned: Tensor | None = None,
    judged: Tensor | None = None,
    cost: Cost = F.cross_entropy,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> tuple[Tried, ...]:
    """Return what penalties come to on images that were not learned from.

    Args:
        x: As for `logistic`, like all that it takes too.
        y: Likewise.
        classes: Likewise.
        groups: Likewise.
        learned: (N,) bool, rows that may be learned from; all are judged.
        judged: (N,) bool, rows that a fold is judged by.
        cost: Mean cost of logits and class numbers, to learn by.
        seed: Of the folds.
        penalties: To try, the strongest first.

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
    mine = every if learned is None else learned
    shown = every if judged is None else judged
    fold = folds(y, named, seed)
    parts = [((fold != k) & mine, (fold == k) & shown) for k in range(FOLDS)]
    parts = [(mine, held) for mine, held in parts if mine.any() and held.any()]
    if not parts:
        raise _one_group()
    x = x.double()
    with _unhindered(x):
        fits = [_Fit(x[mine], y[mine], classes, cost) for mine, _ in parts]
        return tuple(_tried(fits, [held for _, held in parts], x, y, penalties))


def _one_group() -> DataError:
    # A penalty that nothing has judged would be a guess that looks like a choice.
    what = (
        "cross-validation has nothing to leave out and can choose no penalty: all "
        "training images are of one group, or equal"
    )
    fix = "train on two groups or more, or take --head trained, which has no penalty"
    return DataError(what, where="the training split", fix=fix)


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
    fits: Sequence[_Fit],
    held: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    penalties: Sequence[float],
) -> list[Tried]:
    """Try penalties from the strongest on, each begun where the one before ended."""
    tried: list[Tried] = []
    labels = torch.cat([y[mine] for mine in held])
    for penalty in penalties:
        layers = [fit(penalty, ROUGH) for fit in fits]
        answers = [x[m] @ w.T + b for m, (w, b) in zip(held, layers, strict=True)]
        logits = torch.cat(answers)
        right = (logits.argmax(1) == labels).double().mean()
        mean = F.cross_entropy(logits, labels)
        tried.append(Tried(penalty=penalty, cost=float(mean), accuracy=float(right)))
        best = min(tried, key=lambda one: one.cost)
        if penalty < best.penalty * VAIN:
            break
    return tried


@contextmanager
def _unhindered(x: Tensor) -> Iterator[None]:
    """Let no thread wait in vain for work while features are fitted.

    SciPy's library of vector arithmetic has threads of its own, which spin between two
    steps and take from torch's: thirty times slower on two cores. And torch's second
    thread gains nothing where there is little to compute.
    """
    threads = torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"):
        torch.set_num_threads(threads if x.numel() > LARGE else 1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class _Fit:
    """Fits to the same rows for one penalty after the other.

    Features are brought to mean 0 and deviation 1 by these rows. Where they are more
    than the rows, they are turned into the space that the rows span: what a penalized
    layer has outside of it is nothing. The layer that comes out undoes both.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int, cost: Cost) -> None:
        self._mean = x.mean(0)
        spread = x.std(0, correction=0)
        # A feature that never changes says nothing, and must not be divided by 0.
        self._spread = torch.where(spread > 1e-8 * (1 + self._mean.abs()), spread, 1.0)
        even = (x - self._mean) / self._spread
        self._span = torch.linalg.qr(even.T).Q if x.shape[1] > len(x) else None
        even = even if self._span is None else even @ self._span
        self._x = torch.cat([even, x.new_ones(len(x), 1)], 1)  # the last is the bias
        self._y, self._cost = y, cost
        self._held = x.new_ones(self._x.shape[1])
        self._held[-1] = 0
        self._layer = x.new_zeros(classes, self._x.shape[1])

    def __call__(self, penalty: float, slope: float) -> tuple[Tensor, Tensor]:
        """Return weight and bias for the features as they are.

        Args:
            penalty: On features with deviation 1.
            slope: Of the cost in any direction where the search ends, at most, if it
                ends within `STEPS`.
        """
        from scipy.optimize import minimize  # slow to import, and only fits need it

        def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
            layer = torch.from_numpy(flat).view_as(self._layer).requires_grad_()
            cost = self._cost(self._x @ layer.T, self._y)
            cost = cost + penalty / 2 * (self._held * layer.square()).sum()
            (down,) = torch.autograd.grad(cost, layer)
            return cost.item(), down.numpy().ravel()

        begin = self._layer.numpy().ravel()
        options = {"maxiter": STEPS, "maxcor": 20, "gtol": slope, "ftol": 1e-12}
        found = minimize(value, begin, method="L-BFGS-B", jac=True, options=options)
        self._layer = torch.from_numpy(found.x).view_as(self._layer)
        weight, bias = self._layer[:, :-1], self._layer[:, -1]
        weight = weight if self._span is None else weight @ self._span.T
        weight = weight / self._spread
        return weight, bias - weight @ self._mean
