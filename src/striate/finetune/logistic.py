"""Logistic regression on features; the L2 strength is chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from striate.core.errors import DataError
from striate.core.seeds import permutation
from striate.engine.task import task_of

LossFunction = Callable[[Tensor, Tensor], Tensor]
# Half the penalty times the squared weights is added to the mean loss, of features with
# standard deviation 1. From almost no freedom to learn, to almost no restriction.
PENALTIES = tuple(10.0 ** (half / 2) for half in range(2, -11, -1))
FOLDS = 5
MAX_STEPS = 300  # of L-BFGS
TOLERANCE = 1e-6  # gradient at the end; for folds, which only compare penalties:
FOLD_TOLERANCE = 1e-3
LARGE = 1_000_000  # numbers in all, from which on several threads are faster
WORSE = 0.11  # of the best penalty, a decade below: smaller ones are not tried


@dataclass(frozen=True, kw_only=True)
class PenaltyResult:
    """Cross-validated loss and accuracy of one L2 regularization strength."""

    penalty: float  # l2 regularization strength, for features with standard deviation 1
    loss: float  # mean cross-entropy in nats
    accuracy: float  # share of correct predictions


@dataclass(frozen=True, kw_only=True)
class LogisticFit:
    """Fitted linear layer for the original (not standardized) features."""

    weight: Tensor = field(repr=False)  # (classes, width)
    bias: Tensor = field(repr=False)  # (classes,)
    penalty: float
    # cross-validation results by strength; empty if `penalty` was given
    results: tuple[PenaltyResult, ...] = ()


def fit_logistic(
    x: Tensor,
    y: Tensor,
    num_classes: int,
    *,
    penalty: float | None = None,
    groups: Sequence[Hashable] | None = None,
    eval_mask: Tensor | None = None,
    loss: LossFunction = F.cross_entropy,
    seed: int = 0,
) -> LogisticFit:
    """Fit a logistic regression (linear layer with softmax) to features.

    `x` is (N, width); `y` are class indices (N,), or multi-hot labels (N, classes) for
    a sigmoid in place of the softmax. A penalty of None is chosen by cross-validation,
    with all rows of a group (an image and its copies) in one fold. `eval_mask` selects
    the rows for evaluation, such as unaugmented images.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
        >>> fit = fit_logistic(x, torch.tensor([0, 0, 1, 1]), 2, penalty=0.1)
        >>> (x.double() @ fit.weight.T + fit.bias).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    results: tuple[PenaltyResult, ...] = ()
    if penalty is None:
        fold = assign_folds(y, range(len(y)) if groups is None else groups, seed)
        results = cross_validate(
            x, y, num_classes, fold=fold, eval_mask=eval_mask, loss=loss
        )
        penalty = min(results, key=lambda result: result.loss).penalty
    with _few_threads(x):
        weight, bias = _Fit(x.double(), y, num_classes, loss)(penalty, TOLERANCE)
    return LogisticFit(weight=weight, bias=bias, penalty=penalty, results=results)


def cross_validate(
    x: Tensor,
    y: Tensor,
    num_classes: int,
    *,
    fold: Tensor,
    train_mask: Tensor | None = None,
    eval_mask: Tensor | None = None,
    loss: LossFunction = F.cross_entropy,
    penalties: Sequence[float] = PENALTIES,
) -> tuple[PenaltyResult, ...]:
    """Return the cross-validated loss and accuracy of each regularization strength.

    The masks select the rows for fitting and for evaluation (default: all). The
    strongest of `penalties` comes first.

    Raises:
        DataError: All rows belong to one group, so cross-validation is impossible.

    Example:
        >>> x = torch.arange(20.0)[:, None] % 2
        >>> y = torch.arange(20) % 2
        >>> results = cross_validate(x, y, 2, fold=assign_folds(y, range(20), seed=0))
        >>> min(results, key=lambda result: result.loss).accuracy
        1.0
    """
    every = torch.ones(len(y), dtype=torch.bool)
    train = every if train_mask is None else train_mask
    evaluate = every if eval_mask is None else eval_mask
    masks = [((fold != k) & train, (fold == k) & evaluate) for k in range(FOLDS)]
    masks = [(fit, val) for fit, val in masks if fit.any() and val.any()]
    if not masks:
        raise _one_group()
    x = x.double()
    with _few_threads(x):
        fits = [_Fit(x[fit], y[fit], num_classes, loss) for fit, _ in masks]
        val_masks = [val for _, val in masks]
        return tuple(_compare_penalties(fits, val_masks, x, y, penalties))


def _one_group() -> DataError:
    # A penalty without any evaluation would be a guess that looks like a choice.
    what = (
        "cross-validation of the regularization strength is impossible: all "
        "training images belong to one group or are equal"
    )
    fix = "add images of other groups, or use --head trained (no cross-validation)"
    return DataError(what, where="the training split", fix=fix)


def assign_folds(y: Tensor, groups: Sequence[Hashable], seed: int) -> Tensor:
    """Return the fold index of each image; groups stay whole, classes are balanced.

    Shapes:
        (N,) → (N,) int64

    Example:
        >>> assign_folds(torch.tensor([0, 0, 1, 1]), "aabc", 0).tolist()[:2]
        [0, 0]
    """
    # A class starts with the fold after the last of the class before it, so that rare
    # classes do not all fill the first folds.
    shuffled = chain.from_iterable(shuffled_groups(y, groups, seed, "folds"))
    folds = {group: position % FOLDS for position, group in enumerate(shuffled)}
    return torch.tensor([folds[group] for group in groups])


def label_strata(y: Tensor) -> Tensor:
    """Return the class of each image; of several labels the rarest class, (N,).

    An image without labels has the number of classes.

    Example:
        >>> label_strata(torch.tensor([[1, 1], [1, 0], [0, 0]])).tolist()
        [1, 0, 2]
    """
    if y.ndim == 1:
        return y
    counts = torch.where(y > 0, y.sum(0, dtype=torch.long), len(y) + 1)
    return torch.where((y > 0).any(1), counts.argmin(1), y.shape[1])


def shuffled_groups(
    y: Tensor, groups: Sequence[Hashable], seed: int, purpose: str
) -> Iterator[list[Hashable]]:
    """Yield each class's groups, shuffled; a group has the class of its first image."""
    labels: dict[Hashable, int] = {}
    for label, group in zip(label_strata(y).tolist(), groups, strict=True):
        labels.setdefault(group, label)
    for label in sorted(set(labels.values())):
        members = [group for group, own in labels.items() if own == label]
        order = permutation(len(members), seed, purpose, label)
        yield [members[i] for i in order.tolist()]


def _compare_penalties(
    fits: Sequence[_Fit],
    val_masks: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    penalties: Sequence[float],
) -> list[PenaltyResult]:
    """Evaluate L2 regularization strengths, each fit starting from the previous fit."""
    results: list[PenaltyResult] = []
    labels = torch.cat([y[val] for val in val_masks])
    for penalty in penalties:
        layers = [fit(penalty, FOLD_TOLERANCE) for fit in fits]
        pairs = zip(val_masks, layers, strict=True)
        logits = torch.cat([x[val] @ w.T + b for val, (w, b) in pairs])
        task = task_of(labels)
        accuracy = float(task.correct(logits, labels).double().mean())
        loss = float(_mean_loss(logits, labels))
        results.append(PenaltyResult(penalty=penalty, loss=loss, accuracy=accuracy))
        best = min(results, key=lambda result: result.loss)
        if penalty < best.penalty * WORSE:
            break
    return results


def _mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels)
    return task_of(labels).losses(logits, labels).mean()


@contextmanager
def _few_threads(x: Tensor) -> Iterator[None]:
    """Context manager: BLAS uses one thread, and so does torch if the input is small.

    The threads of SciPy's BLAS busy-wait between steps and slow down torch's threads by
    a factor of thirty on two cores. For little computation, more than one torch thread
    gains nothing.
    """
    threads = torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"):
        torch.set_num_threads(threads if x.numel() > LARGE else 1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class _Fit:
    """Logistic regression on one set of features, for several L2 strengths.

    Features are standardized to mean 0 and standard deviation 1 over these rows. If
    there are more features than rows, they are projected to the span of the rows;
    outside the span, the weights of a regularized layer are zero. The returned layer
    takes the original features.
    """

    def __init__(
        self, x: Tensor, y: Tensor, num_classes: int, loss: LossFunction
    ) -> None:
        self._mean = x.mean(0)
        std = x.std(0, correction=0)
        # A constant feature carries no information, and must not be divided by 0.
        self._std = torch.where(std > 1e-8 * (1 + self._mean.abs()), std, 1.0)
        scaled = (x - self._mean) / self._std
        self._basis = torch.linalg.qr(scaled.T).Q if x.shape[1] > len(x) else None
        scaled = scaled if self._basis is None else scaled @ self._basis
        self._x = torch.cat([scaled, x.new_ones(len(x), 1)], 1)  # the last is the bias
        self._y, self._loss = y, loss
        self._penalized = x.new_ones(self._x.shape[1])
        self._penalized[-1] = 0
        self._layer = x.new_zeros(num_classes, self._x.shape[1])

    def __call__(self, penalty: float, tolerance: float) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a fit, for the original features.

        L-BFGS stops at a gradient below `tolerance`, or after `MAX_STEPS`.
        """
        from scipy.optimize import minimize  # slow to import, and only fits need it

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            layer = torch.from_numpy(flat).view_as(self._layer).requires_grad_()
            loss = self._loss(self._x @ layer.T, self._y)
            loss = loss + penalty / 2 * (self._penalized * layer.square()).sum()
            (gradient,) = torch.autograd.grad(loss, layer)
            return loss.item(), gradient.numpy().ravel()

        start = self._layer.numpy().ravel()
        options = {"maxiter": MAX_STEPS, "maxcor": 20, "gtol": tolerance, "ftol": 1e-12}
        method = "L-BFGS-B"
        result = minimize(objective, start, method=method, jac=True, options=options)
        self._layer = torch.from_numpy(result.x).view_as(self._layer)
        weight, bias = self._layer[:, :-1], self._layer[:, -1]
        weight = weight if self._basis is None else weight @ self._basis.T
        weight = weight / self._std
        return weight, bias - weight @ self._mean
