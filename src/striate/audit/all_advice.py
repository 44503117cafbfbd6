"""Run all advice checks on a network, the most important check first."""

from __future__ import annotations

from itertools import chain

from striate.audit import advice_cost, advice_geometry
from striate.audit.advice import Advice, design_context
from striate.audit.network import Audit

CHECKS = (*advice_geometry.CHECKS, *advice_cost.CHECKS)


def advise(audit: Audit) -> tuple[Advice, ...]:
    """Return the advice of all checks on a network's geometry, parameters and MACs.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        >>> advice = advise(audit(nn.Sequential(*layers), (3, 8, 8)))
        >>> [each.check for each in advice]
        ['small-field', 'redundant-bias']
    """
    context = design_context(audit)
    return tuple(chain.from_iterable(check(context) for check in CHECKS))
