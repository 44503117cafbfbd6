"""All advice on a network: every check, in the order in which a user should read."""

from __future__ import annotations

from itertools import chain

from striate.audit import advice_cost, advice_geometry
from striate.audit.advice import Advice, design_context
from striate.audit.network import Audit

CHECKS = (*advice_geometry.CHECKS, *advice_cost.CHECKS)


def advise(audit: Audit) -> tuple[Advice, ...]:
    """Return what a network's geometry and cost say against its design.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        >>> found = advise(audit(nn.Sequential(*layers), (3, 8, 8)))
        >>> [advice.check for advice in found]
        ['small-field', 'redundant-bias']
    """
    context = design_context(audit)
    return tuple(chain.from_iterable(check(context) for check in CHECKS))
