"""Class evidence: one call for every method, with its layer said and its marks on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.hooks import untouched
from striate.core.registry import unknown
from striate.core.spec import Labels
from striate.interpret.activations_at import check_images, forward
from striate.interpret.attribution.cam import cam_map, find_gap_head
from striate.interpret.attribution.grad_cam import METHODS as CAMS
from striate.interpret.attribution.grad_cam import grad_cam_map
from striate.interpret.attribution.integrated_gradients import integrated_gradients
from striate.interpret.attribution.occlusion import occlusion
from striate.interpret.attribution.sanity_checks import SanityChecks, run_sanity_checks
from striate.interpret.attribution.target import (
    AttributionTarget,
    ClassRef,
    logits_of,
    make_target,
)
from striate.interpret.layer_choice import AUTO, TargetLayer, target_layer

CAM = "cam"
METHODS = (CAM, *CAMS, "occlusion", "integrated")
_SIGNED = {CAM, "occlusion", "integrated"}


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """A map of what speaks for an answer, and what it is worth.

    Args:
        method: How it was made.
        target: What it is about.
        layer: Whose maps it is made of; None where it needs none.
        layer_map: The map at the size it was made, (h, w).
        heatmap: The same at the image's size, (H, W).
        signed: Negative numbers speak against; else there are none.
        sanity_checks: Its marks; None where they were not asked for.
        notes: What else to know.
    """

    method: str
    target: AttributionTarget
    layer: TargetLayer | None
    layer_map: Tensor
    heatmap: Tensor
    signed: bool
    sanity_checks: SanityChecks | None = None
    notes: tuple[str, ...] = ()


def attribute(
    model: nn.Module,
    x: Tensor,
    *,
    method: str = AUTO,
    target: ClassRef | None = None,
    against: ClassRef | None = None,
    layer: str = AUTO,
    labels: Labels | Sequence[str] | None = None,
    sanity_checks: bool = True,
    seed: int = 0,
) -> Attribution:
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
        sanity_checks: Compute the trust marks: some 100 forward passes.
        seed: Of the marks' random parts.

    Raises:
        UnknownNameError: No such method, layer or class; lists the right ones.
        GeometryError: The layer has no maps, or the image does not fit.

    Example:
        >>> tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), *tail)
        >>> found = attribute(model, torch.rand(1, 1, 6, 6), target="b", labels="ab")
        >>> found.method, found.layer.call, tuple(found.heatmap.shape)
        ('cam', '0', (6, 6))
    """
    if method not in (AUTO, *METHODS):
        raise unknown("method", method, METHODS)
    check_images(x)
    if len(x) != 1:
        what = f"evidence is about one image at a time, got {len(x)}"
        raise GeometryError(what, fix="give x[i:i + 1]")
    with untouched(model), torch.no_grad():
        logits = logits_of(forward(model, x))
    score = make_target(logits, target, against, labels)
    notes: list[str] = []
    if method == AUTO:
        method = CAM if layer == AUTO and _has_gap_head(model, x) else "gradcam"
    map_layer, compute = _method(model, x, score, method, layer, notes)
    layer_map = compute(model)
    heatmap = resize_map(layer_map, x)
    checks = (
        run_sanity_checks(model, x, heatmap, score, _at_image_size(compute, x), seed)
        if sanity_checks
        else None
    )
    return Attribution(
        method=method,
        target=score,
        layer=map_layer,
        layer_map=layer_map,
        heatmap=heatmap,
        signed=method in _SIGNED,
        sanity_checks=checks,
        notes=tuple(notes),
    )


Method = Callable[[nn.Module], Tensor]


def _method(
    model: nn.Module,
    x: Tensor,
    target: AttributionTarget,
    method: str,
    layer: str,
    notes: list[str],
) -> tuple[TargetLayer | None, Method]:
    """Return the layer of a method, and the method as a function of a network."""
    if method == "occlusion":
        return None, lambda network: occlusion(network, x, target)
    if method == "integrated":
        return None, lambda network: _integrated(network, x, target, notes)
    if method == CAM:
        call = find_gap_head(model, x).call
        if layer not in (AUTO, call):
            what = f"CAM is about the maps that are averaged, which {call} gives"
            raise GeometryError(what, where=layer, fix="use gradcam for other layers")
        used = target_layer(model, x, call)
        reason = "its maps are averaged and weighed: each cell's share is exact"
        cam_layer = TargetLayer(call=call, shape=used.shape, reason=reason)
        return cam_layer, lambda network: cam_map(network, x, target)
    used = target_layer(model, x, layer)
    return used, lambda network: grad_cam_map(network, x, used.call, target, method)


def _has_gap_head(model: nn.Module, x: Tensor) -> bool:
    try:
        find_gap_head(model, x)
    except GeometryError:
        return False
    return True


def _integrated(
    model: nn.Module, x: Tensor, target: AttributionTarget, notes: list[str]
) -> Tensor:
    values, convergence_delta = integrated_gradients(model, x, target)
    if not notes:
        notes.append(
            "The shares of integrated gradients miss the change of score by "
            f"{abs(convergence_delta):.2g}."
        )
    return values.sum(0)


def resize_map(layer_map: Tensor, x: Tensor) -> Tensor:
    """Bring a map to an image's size, between cell centers."""
    size = (int(x.shape[2]), int(x.shape[3]))
    if tuple(layer_map.shape) == size:
        return layer_map
    return F.interpolate(layer_map[None, None], size, mode="bilinear")[0, 0]


def _at_image_size(compute: Method, x: Tensor) -> Method:
    return lambda network: resize_map(compute(network), x)
