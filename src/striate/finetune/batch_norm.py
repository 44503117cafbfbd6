"""Batch norm in fine-tuning: frozen running statistics, or adapted statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from striate.core.frozen_eval_mode import freeze_mode, has_frozen_mode

ADAPTING, FROZEN = "adapting", "frozen"
BATCH_NORM_MODES = (ADAPTING, FROZEN)


def freeze_batch_norm_stats(module: nn.Module) -> int:
    """Freeze the running statistics of all batch norms; weights and biases still train.

    Returns:
        The number of batch norms.

    Example:
        >>> norm = nn.BatchNorm2d(2)
        >>> freeze_batch_norm_stats(norm), norm.train().training
        (1, False)
        >>> norm.weight.requires_grad
        True
    """
    norms = _with_statistics(module)
    for norm in norms:
        freeze_mode(norm)
    return len(norms)


def adapt_batch_norm(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set the running statistics of batch norms to the statistics of new images.

    Call this before a head is trained. A head fitted with the old statistics would get
    other features as soon as the norms use batch statistics (Li et al. 2016,
    "Revisiting batch normalization for practical domain adaptation"). Frozen norms stay
    unchanged. Other layers run in evaluation mode. Larger batches give better
    statistics. If a batch fails, the old statistics are restored.

    Returns:
        The number of adapted batch norms.

    Example:
        >>> norm = nn.BatchNorm2d(1)
        >>> adapt_batch_norm(norm, [torch.full((2, 1, 2, 2), 7.0)])
        1
        >>> norm.running_mean.tolist(), norm.training
        ([7.0], True)
    """
    norms = [norm for norm in _with_statistics(module) if not has_frozen_mode(norm)]
    if not norms:
        return 0
    with _adapting(module, norms), torch.no_grad():
        for x in batches:
            module(x)
    return len(norms)


def _with_statistics(module: nn.Module) -> list[_BatchNorm]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    return [norm for norm in norms if norm.running_mean is not None]


@contextmanager
def _adapting(module: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Context manager in which batch norms average their statistics over all batches.

    Modes and momenta are restored at the end. If a batch fails, the old statistics are
    restored too.
    """
    modes = {inner: inner.training for inner in module.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    before = [(b, b.clone()) for norm in norms for b in norm.buffers(recurse=False)]
    try:
        module.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.training = True
        yield
    except BaseException:
        for buffer, saved in before:
            buffer.copy_(saved)
        raise
    finally:
        for inner, mode in modes.items():
            inner.training = mode
        for norm, momentum in momenta.items():
            norm.momentum = momentum
