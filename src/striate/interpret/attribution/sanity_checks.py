"""Sanity checks of an attribution map: deletion, insertion, randomized weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.derive_seed import derive_seed
from striate.core.hooks import evaluation_mode, model_restored
from striate.core.logits import logits_of
from striate.interpret.activations_at import forward, images_at_once
from striate.interpret.attribution.target import AttributionTarget

STEPS = 20  # images between the original and the empty image
LARGE_STEPS = 10  # the same for images of more than `LARGE` pixels
LARGE = 96 * 96
SHUFFLES = 3  # networks with shuffled weights that a map is compared with
MAX_CORRELATION = 0.5  # mean rank correlation above which a map ignores the weights
_BLUR = 8  # cells of the blurred image along the longer side, at most

AttributionMethod = Callable[[nn.Module], Tensor]
# Deletion and insertion in random pixel order by target, shared by maps of one image.
RandomScores = dict[AttributionTarget, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class SanityChecks:
    """Results of the sanity checks of one attribution map."""

    # Mean probability as the most important pixels are removed first; lower is better.
    deletion: float
    # Mean probability as the most important pixels are inserted first; higher is
    # better.
    insertion: float
    random_deletion: float  # deletion with the pixels in random order
    random_insertion: float  # insertion with the pixels in random order
    # Mean rank correlation with the maps of the network with shuffled weights (Adebayo
    # et al. 2018); near 0 is good, None if the map is constant.
    shuffled_correlation: float | None

    @property
    def ignores_weights(self) -> bool:
        """Whether the map hardly depends on the weights, and so is unreliable."""
        correlation = self.shuffled_correlation
        return correlation is not None and correlation > MAX_CORRELATION

    @property
    def beats_random(self) -> bool:
        """Whether the deletion or insertion score beats that of random pixel order."""
        deletes = self.deletion < self.random_deletion
        return deletes or self.insertion > self.random_insertion


def run_sanity_checks(
    model: nn.Module,  # the network; not modified
    x: Tensor,  # the image, (1, C, H, W)
    heatmap: Tensor,  # the map at the image's size, (H, W)
    target: AttributionTarget,  # the explained class score
    method: AttributionMethod,  # computes the same kind of map for another network
    # The map of `method` for this network, if it is not `heatmap`: a quicker version.
    quick_heatmap: Tensor | None = None,
    seed: int = 0,  # random seed of the pixel order and of the shuffled weights
    # Scores that are known for this image and this seed; new ones are added.
    random_scores: RandomScores | None = None,
) -> SanityChecks:
    """Run the sanity checks of an attribution map."""
    scores = {} if random_scores is None else random_scores
    if target not in scores:
        generator = torch.Generator().manual_seed(derive_seed(seed, "chance"))
        random = torch.rand(heatmap.shape, generator=generator).to(heatmap)
        scores[target] = deletion_and_insertion(model, x, random, target)
    deletion, insertion = deletion_and_insertion(model, x, heatmap, target)
    compared = heatmap if quick_heatmap is None else quick_heatmap
    return SanityChecks(
        deletion=deletion,
        insertion=insertion,
        random_deletion=scores[target][0],
        random_insertion=scores[target][1],
        shuffled_correlation=shuffled_weights_correlation(
            model, compared, method, seed
        ),
    )


def deletion_and_insertion(
    model: nn.Module, x: Tensor, heatmap: Tensor, target: AttributionTarget
) -> tuple[float, float]:
    """Return the areas under the deletion and insertion curves (Petsiuk et al. 2018).

    Deletion sets the most important pixels to zero, the mean color of a normalized
    dataset; insertion copies the most important pixels into a blurred image.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> _ = model[1].weight.data.copy_(torch.eye(4)[:2] * 9)
        >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> target = AttributionTarget(class_index=0, text="")
        >>> good, _ = deletion_and_insertion(model, x, x[0, 0], target)
        >>> bad, _ = deletion_and_insertion(model, x, -x[0, 0], target)
        >>> good < bad
        True
    """
    order = heatmap.flatten().argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    steps = STEPS if heatmap.numel() <= LARGE else LARGE_STEPS
    shares = torch.linspace(0, 1, steps + 1, device=x.device)
    removed = rank.view(1, 1, *heatmap.shape) < (shares * len(order)).view(-1, 1, 1, 1)
    blurred = _blurred(x)
    deleted = torch.where(removed, torch.zeros_like(x), x)
    inserted = torch.where(removed, x, blurred)
    with evaluation_mode(model), torch.no_grad():
        return _area(model, deleted, target), _area(model, inserted, target)


def _blurred(x: Tensor) -> Tensor:
    """Return the image averaged over a grid of at most 8×8 cells, at full size."""
    height, width = x.shape[2:]
    cells = min(_BLUR, max(height, width) // 4) / max(height, width)
    size = (max(1, round(cells * height)), max(1, round(cells * width)))
    coarse = F.adaptive_avg_pool2d(x, size)
    return F.interpolate(coarse, (height, width), mode="bilinear")


def _area(model: nn.Module, images: Tensor, target: AttributionTarget) -> float:
    most = images_at_once(images.shape, len(images))
    parts = [logits_of(forward(model, part)) for part in torch.split(images, most)]
    probs = target.probability(torch.cat(parts)).double()
    return float(torch.trapezoid(probs) / (len(probs) - 1))


def shuffled_weights_correlation(
    model: nn.Module, heatmap: Tensor, method: AttributionMethod, seed: int = 0
) -> float | None:
    """Return the mean rank correlation with heatmaps of networks with shuffled weights.

    The values of every parameter are shuffled, in all layers at once; batch-norm
    statistics are not changed. A constant map counts as correlation 0.
    """
    if float(heatmap.max()) == float(heatmap.min()):
        return None
    correlations = []
    for number in range(SHUFFLES):
        generator = torch.Generator().manual_seed(derive_seed(seed, "shuffle", number))
        with model_restored(model, partial(_shuffled, generator=generator)):
            shuffled_map = method(model)
        correlations.append(rank_correlation(heatmap.flatten(), shuffled_map.flatten()))
    return sum(correlations) / len(correlations)


def _shuffled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    copy = tensor.detach().clone()
    if not isinstance(tensor, nn.Parameter):
        return copy
    order = torch.randperm(copy.numel(), generator=generator).to(copy.device)
    copy = copy.flatten()[order].view(copy.shape)
    return nn.Parameter(copy, tensor.requires_grad)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation; 0 if either input is constant.

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
    """Return the ranks of values; equal values get their mean rank."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks: Tensor = (last - (count.double() - 1) / 2)[place]
    return ranks
