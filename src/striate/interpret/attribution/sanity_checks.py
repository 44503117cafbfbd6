"""What a map is worth: deletion, insertion, and whether it depends on the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.hooks import evaluation_mode, model_restored
from striate.core.seeds import derive_seed
from striate.interpret.activations_at import forward, together
from striate.interpret.attribution.target import AttributionTarget, logits_of

STEPS = 20  # images between the whole and the empty one
DRAWS = 3  # random networks a map is held against
DEPENDS = 0.5  # mean rank correlation from which a map counts as blind to the weights
_BLUR = 8  # the blurred image's cells along the longer side, at most

Draw = Callable[[nn.Module], Tensor]


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Marks of one map.

    Args:
        deletion: Mean probability while the map's best pixels go first; low is good.
        insertion: Mean probability while they come first; high is good.
        deletion_by_chance: The same in random order.
        insertion_by_chance: Likewise.
        randomized: Mean rank correlation with maps of the same network with its
            weights shuffled (Adebayo et al. 2018); near 0 is good, None where the map
            is flat.
    """

    deletion: float
    insertion: float
    deletion_by_chance: float
    insertion_by_chance: float
    randomized: float | None

    @property
    def blind(self) -> bool:
        """Tell a map that does not depend on the weights: red stamp."""
        return self.randomized is not None and self.randomized > DEPENDS

    @property
    def beats_chance(self) -> bool:
        """Tell a map that finds what counts, in at least one of both directions."""
        deletes = self.deletion < self.deletion_by_chance
        return deletes or self.insertion > self.insertion_by_chance


def judge(
    model: nn.Module,
    x: Tensor,
    heat: Tensor,
    question: AttributionTarget,
    draw: Draw,
    seed: int = 0,
) -> Trust:
    """Return the trust marks of a map.

    Args:
        model: The network the map was made of; left as it was.
        x: The image, (1, C, H, W).
        heat: The map at the image's size, (H, W).
        question: What the map is about.
        draw: Makes the same kind of map of another network.
        seed: Of the random order and of the shuffled weights.
    """
    chance = torch.Generator().manual_seed(derive_seed(seed, "chance"))
    random = torch.rand(heat.shape, generator=chance).to(heat)
    deletion, insertion = removal(model, x, heat, question)
    by_chance = removal(model, x, random, question)
    return Trust(
        deletion=deletion,
        insertion=insertion,
        deletion_by_chance=by_chance[0],
        insertion_by_chance=by_chance[1],
        randomized=weight_dependence(model, heat, draw, seed),
    )


def removal(
    model: nn.Module, x: Tensor, heat: Tensor, question: AttributionTarget
) -> tuple[float, float]:
    """Return the areas under the deletion and insertion curves (Petsiuk et al. 2018).

    Deletion sets the most important pixels to zero, the mean of a normalized set;
    insertion puts them into a blurred image.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> _ = model[1].weight.data.copy_(torch.eye(4)[:2] * 9)
        >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> good = removal(model, x, x[0, 0], AttributionTarget(target=0, words=""))[0]
        >>> bad = removal(model, x, -x[0, 0], AttributionTarget(target=0, words=""))[0]
        >>> good < bad
        True
    """
    order = heat.flatten().argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    shares = torch.linspace(0, 1, STEPS + 1, device=x.device)
    gone = rank.view(1, 1, *heat.shape) < (shares * len(order)).view(-1, 1, 1, 1)
    blurred = _blurred(x)
    with evaluation_mode(model), torch.no_grad():
        areas = [
            _area(model, torch.where(gone, other, own), question)
            for own, other in ((x, torch.zeros_like(x)), (blurred, x))
        ]
    return areas[0], areas[1]


def _blurred(x: Tensor) -> Tensor:
    """Return the image with a few cells' worth of detail left, 4×4 pixels or more."""
    height, width = x.shape[2:]
    cells = min(_BLUR, max(height, width) // 4) / max(height, width)
    size = (max(1, round(cells * height)), max(1, round(cells * width)))
    coarse = F.adaptive_avg_pool2d(x, size)
    return F.interpolate(coarse, (height, width), mode="bilinear")


def _area(model: nn.Module, images: Tensor, question: AttributionTarget) -> float:
    most = together(images.shape[2], images.shape[3], len(images))
    parts = [logits_of(forward(model, part)) for part in torch.split(images, most)]
    chances = question.chance(torch.cat(parts)).double()
    return float(torch.trapezoid(chances) / (len(chances) - 1))


def weight_dependence(
    model: nn.Module, heat: Tensor, draw: Draw, seed: int = 0
) -> float | None:
    """Return the mean rank correlation with maps of networks of shuffled weights.

    Every parameter's numbers change places with each other, in all layers at once;
    batch-norm statistics stay. Other maps that are flat count as unlike.
    """
    if float(heat.max()) == float(heat.min()):
        return None
    found = []
    for number in range(DRAWS):
        chance = torch.Generator().manual_seed(derive_seed(seed, "shuffle", number))
        with model_restored(model, partial(_shuffled, chance=chance)):
            other = draw(model)
        found.append(rank_correlation(heat.flatten(), other.flatten()))
    return sum(found) / len(found)


def _shuffled(tensor: Tensor, chance: torch.Generator) -> Tensor:
    copy = tensor.detach().clone()
    if not isinstance(tensor, nn.Parameter):
        return copy
    order = torch.randperm(copy.numel(), generator=chance).to(copy.device)
    copy = copy.flatten()[order].view(copy.shape)
    return nn.Parameter(copy, tensor.requires_grad)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's correlation; 0 where either says the same everywhere.

    Example:
        >>> a = torch.tensor([1.0, 2.0, 3.0])
        >>> rank_correlation(a, a**3), rank_correlation(a, torch.zeros(3))
        (1.0, 0.0)
    """
    first, second = _ranks(a), _ranks(b)
    first, second = first - first.mean(), second - second.mean()
    size = float(first.norm() * second.norm())
    return round(float(first @ second) / size, 6) if size > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    """Return ranks; equal values share the middle of theirs."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks: Tensor = (last - (count.double() - 1) / 2)[place]
    return ranks
