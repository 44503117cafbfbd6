"""Class evidence: one call for every method, with its layer said and its marks on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.class_names import ClassNames
from striate.core.errors import GeometryError
from striate.core.hooks import evaluation_mode
from striate.core.registry import unknown_name_error
from striate.interpret.activations_at import check_batch, forward
from striate.interpret.attribution.cam import METHODS as CAMS
from striate.interpret.attribution.cam import cam_map
from striate.interpret.attribution.gap_head import ending
from striate.interpret.attribution.integrated_gradients import integrated_gradients
from striate.interpret.attribution.occlusion import occlusion
from striate.interpret.attribution.sanity_checks import Trust, judge
from striate.interpret.attribution.target import (
    AttributionTarget,
    Class,
    ask,
    logits_of,
)
from striate.interpret.layer_choice import AUTO, TargetLayer, place

EXACT = "cam"
METHODS = (EXACT, *CAMS, "occlusion", "integrated")
_SIGNED = {EXACT, "occlusion", "integrated"}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A map of what speaks for an answer, and what it is worth.

    Args:
        method: How it was made.
        question: What it is about.
        layer: Whose maps it is made of; None where it needs none.
        own: The map at the size it was made, (h, w).
        heat: The same at the image's size, (H, W).
        signed: Negative numbers speak against; else there are none.
        trust: Its marks; None where they were not asked for.
        notes: What else to know.
    """

    method: str
    question: AttributionTarget
    layer: TargetLayer | None
    own: Tensor
    heat: Tensor
    signed: bool
    trust: Trust | None = None
    notes: tuple[str, ...] = ()


def evidence(
    model: nn.Module,
    x: Tensor,
    *,
    method: str = AUTO,
    target: Class | None = None,
    against: Class | None = None,
    layer: str = AUTO,
    labels: ClassNames | Sequence[str] | None = None,
    trust: bool = True,
    seed: int = 0,
) -> Evidence:
    """Return where in an image the evidence for a class lies.

    Args:
        model: Any classifier, in any mode, frozen or not; left as it was.
        x: One image as the network takes it, (1, C, H, W).
        method: A name of `METHODS`; `auto` is CAM where the network ends in global
            average pooling, else Grad-CAM.
        target: A class by name or number; the network's own answer where None.
        against: A second class: "why this rather than that?".
        layer: A dotted name; `auto` is the last whose maps have 4×4 cells.
        labels: Class names in output order.
        trust: Compute the trust marks: some 100 forward passes.
        seed: Of the marks' random parts.

    Raises:
        UnknownNameError: No such method, layer or class; lists the right ones.
        GeometryError: The layer has no maps, or the image does not fit.

    Example:
        >>> tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), *tail)
        >>> found = evidence(model, torch.rand(1, 1, 6, 6), target="b", labels="ab")
        >>> found.method, found.layer.call, tuple(found.heat.shape)
        ('cam', '0', (6, 6))
    """
    if method not in (AUTO, *METHODS):
        raise unknown_name_error("method", method, METHODS)
    check_batch(x)
    if len(x) != 1:
        what = f"evidence is about one image at a time, got {len(x)}"
        raise GeometryError(what, fix="give x[i:i + 1]")
    with evaluation_mode(model), torch.no_grad():
        logits = logits_of(forward(model, x))
    question = ask(logits, target, against, labels)
    notes: list[str] = []
    if method == AUTO:
        method = EXACT if layer == AUTO and _exact(model, x) else "gradcam"
    where, draw = _drawer(model, x, question, method, layer, notes)
    own = draw(model)
    heat = enlarged(own, x)
    marks = judge(model, x, heat, question, _at_size(draw, x), seed) if trust else None
    return Evidence(
        method=method,
        question=question,
        layer=where,
        own=own,
        heat=heat,
        signed=method in _SIGNED,
        trust=marks,
        notes=tuple(notes),
    )


Drawer = Callable[[nn.Module], Tensor]


def _drawer(
    model: nn.Module,
    x: Tensor,
    question: AttributionTarget,
    method: str,
    layer: str,
    notes: list[str],
) -> tuple[TargetLayer | None, Drawer]:
    """Return the layer of a method, and the method as a function of a network."""
    if method == "occlusion":
        return None, lambda network: occlusion(network, x, question)
    if method == "integrated":
        return None, lambda network: _integrated(network, x, question, notes)
    if method == EXACT:
        call = ending(model, x).call
        if layer not in (AUTO, call):
            what = f"CAM is about the maps that are averaged, which {call} gives"
            raise GeometryError(what, where=layer, fix="use gradcam for other layers")
        where = place(model, x, call)
        why = "its maps are averaged and weighed: each cell's share is exact"
        exact = TargetLayer(call=call, shape=where.shape, why=why)
        return exact, lambda network: class_map(network, x, question)
    where = place(model, x, layer)
    return where, lambda network: cam_map(network, x, where.call, question, method)


def _exact(model: nn.Module, x: Tensor) -> bool:
    try:
        ending(model, x)
    except GeometryError:
        return False
    return True


def class_map(model: nn.Module, x: Tensor, question: AttributionTarget) -> Tensor:
    """Return the exact map of a network that ends in global average pooling.

    Its cells and the class's bias add up to the score.

    Shapes:
        (1, C, H, W) → (h, w)
    """
    end = ending(model, x)
    maps = end.class_maps(torch.tensor([question.target], device=x.device))[0, 0]
    if question.against is None:
        return maps
    other = torch.tensor([question.against], device=x.device)
    return maps - end.class_maps(other)[0, 0]


def _integrated(
    model: nn.Module, x: Tensor, question: AttributionTarget, notes: list[str]
) -> Tensor:
    shares, gap = integrated_gradients(model, x, question)
    if not notes:
        notes.append(
            "The shares of integrated gradients miss the change of score by "
            f"{abs(gap):.2g}."
        )
    return shares.sum(0)


def enlarged(own: Tensor, x: Tensor) -> Tensor:
    """Bring a map to an image's size, between cell centers."""
    size = (int(x.shape[2]), int(x.shape[3]))
    if tuple(own.shape) == size:
        return own
    return F.interpolate(own[None, None], size, mode="bilinear")[0, 0]


def _at_size(draw: Drawer, x: Tensor) -> Drawer:
    return lambda network: enlarged(draw(network), x)
