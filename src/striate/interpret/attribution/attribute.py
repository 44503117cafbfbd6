"""Compute attribution maps with any method, and run sanity checks on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.hooks import evaluation_mode
from striate.core.logits import logits_of
from striate.core.notebook import NotebookResult
from striate.core.registry import unknown_name_error
from striate.interpret.activations_at import check_image_batch, forward
from striate.interpret.attribution.cam import cam_map, find_gap_head
from striate.interpret.attribution.grad_cam import METHODS as CAMS
from striate.interpret.attribution.grad_cam import grad_cam_map, gradient_layer
from striate.interpret.attribution.integrated_gradients import integrated_gradients
from striate.interpret.attribution.occlusion import OcclusionWindow, occlusion
from striate.interpret.attribution.sanity_checks import (
    LARGE,
    RandomScores,
    SanityChecks,
    run_sanity_checks,
)
from striate.interpret.attribution.target import (
    AttributionTarget,
    TargetOptions,
    make_target,
)
from striate.interpret.layer_choice import AUTO, TargetLayer

CAM = "cam"
METHODS = (CAM, *CAMS, "occlusion", "integrated_gradients")
_SIGNED = {CAM, "occlusion", "integrated_gradients"}


@dataclass(frozen=True, kw_only=True)
class Attribution(NotebookResult):
    """An attribution map (heatmap) for a class score, and its sanity checks.

    Args:
        method: Name of the method.
        target: The explained class score.
        layer: Target layer; None for methods without one.
        layer_map: The map at the resolution of the layer, (h, w).
        heatmap: The map at the size of the image, (H, W).
        signed: Whether negative values mean evidence against the class.
        sanity_checks: Results of the sanity checks; None if they were not run.
        notes: Remarks on the result.
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
    layer: str = AUTO,
    sanity_checks: bool | RandomScores = True,
    seed: int = 0,
    **target: Unpack[TargetOptions],
) -> Attribution:
    """Compute an attribution map: the pixels of an image that support a class.

    Args:
        model: Any classifier, in any mode, frozen or not; not modified.
        x: One preprocessed image, (1, C, H, W).
        method: A name of `METHODS`; `auto` is CAM if the network ends in global
            average pooling, else Grad-CAM.
        layer: Dotted name; `auto` is the last layer with maps of 4×4 cells or more.
        sanity_checks: Whether to run the sanity checks (about 100 forward passes). A
            dict keeps the scores of random pixel order for other maps of this image.
        seed: Random seed of the sanity checks.
        target: The options of `make_target`: `target`, `against`, `labels` and
            `temperature`.

    Raises:
        UnknownNameError: Unknown method, layer or class; the message lists the names.
        GeometryError: The layer has no feature maps, or the network rejects the image.

    Example:
        >>> tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), *tail)
        >>> found = attribute(model, torch.rand(1, 1, 6, 6), target="b", labels="ab")
        >>> found.method, found.layer.call, tuple(found.heatmap.shape)
        ('cam', '0', (6, 6))
    """
    if method not in (AUTO, *METHODS):
        raise unknown_name_error("method", method, METHODS)
    check_image_batch(x)
    if len(x) != 1:
        what = f"attribution needs one image at a time, got {len(x)}"
        raise GeometryError(what, fix="use x[i:i + 1]")
    with evaluation_mode(model), torch.no_grad():
        logits = logits_of(forward(model, x))
    class_target = make_target(logits, **target)
    notes: list[str] = []
    if method == AUTO:
        method = CAM if layer == AUTO and _has_gap_head(model, x) else "gradcam"
    map_layer, compute = _method(model, x, class_target, method, layer, notes)
    layer_map = in_single_precision(compute(model))
    heatmap = resize_map(layer_map, x)
    checks = None
    if sanity_checks is not False:
        compute, is_quick = _quick_method(x, class_target, method, compute)
        quick = in_single_precision(compute(model)) if is_quick else None
        checks = run_sanity_checks(
            model,
            x,
            heatmap,
            class_target,
            quick_heatmap=None if quick is None else resize_map(quick, x),
            random_scores=None if sanity_checks is True else sanity_checks,
            method=lambda network: resize_map(in_single_precision(compute(network)), x),
            seed=seed,
        )
    return Attribution(
        method=method,
        target=class_target,
        layer=map_layer,
        layer_map=layer_map,
        heatmap=heatmap,
        signed=method in _SIGNED,
        sanity_checks=checks,
        notes=tuple(notes),
    )


Method = Callable[[nn.Module], Tensor]
_QUICK_STEPS = 10  # points of the quadrature of such maps


def _quick_method(
    x: Tensor, target: AttributionTarget, method: str, slow: Method
) -> tuple[Method, bool]:
    """Return a quicker version of a method for large images, and whether it is one.

    A map is only compared with maps of the same version, so that the rank correlations
    are fair.
    """
    height, width = int(x.shape[2]), int(x.shape[3])
    if height * width <= LARGE:
        return slow, False
    if method == "occlusion":
        window = OcclusionWindow.of(height, width, overlap=False)
        return (lambda network: occlusion(network, x, target, window)), True
    if method == "integrated_gradients":
        return (
            lambda network: integrated_gradients(network, x, target, _QUICK_STEPS)[
                0
            ].sum(0)
        ), True
    return slow, False


def _method(
    model: nn.Module,
    x: Tensor,
    target: AttributionTarget,
    method: str,
    layer: str,
    notes: list[str],
) -> tuple[TargetLayer | None, Method]:
    """Return the target layer, and a function that computes the map of a network."""
    if method == "occlusion":
        return None, lambda network: occlusion(network, x, target)
    if method == "integrated_gradients":
        return None, lambda network: _integrated(network, x, target, notes)
    if method == CAM:
        head = find_gap_head(model, x)
        if layer not in (AUTO, head.call):
            what = f"CAM works only at {head.call}, the layer before global average "
            fix = "use gradcam for other layers"
            raise GeometryError(f"{what}pooling", where=layer, fix=fix)
        reason = "the layer before global average pooling, where CAM is exact"
        cam_layer = TargetLayer(
            call=head.call, shape=head.shape, reason=reason, layout=head.layout
        )
        return cam_layer, lambda network: cam_map(network, x, target)
    map_layer = gradient_layer(model, x, target, layer)
    return map_layer, lambda network: grad_cam_map(
        network, x, map_layer, target, method
    )


def _has_gap_head(model: nn.Module, x: Tensor) -> bool:
    try:
        find_gap_head(model, x)
    except GeometryError:
        return False
    return True


def _integrated(
    model: nn.Module, x: Tensor, target: AttributionTarget, notes: list[str]
) -> Tensor:
    values, delta = integrated_gradients(model, x, target)
    what = "sum of the attributions minus change of the score"
    note = f"Convergence error of integrated gradients ({what}): {abs(delta):.2g}."
    notes += [] if notes else [note]  # of the first network only
    return values.sum(0)


def in_single_precision(values: Tensor) -> Tensor:
    """Return float16 and bfloat16 values as float32, and other values unchanged."""
    return values.float() if values.dtype.itemsize < 4 else values


def resize_map(layer_map: Tensor, x: Tensor) -> Tensor:
    """Resize a map to the image's size with bilinear interpolation."""
    size = (int(x.shape[2]), int(x.shape[3]))
    if tuple(layer_map.shape) == size:
        return layer_map
    return F.interpolate(layer_map[None, None], size, mode="bilinear")[0, 0]
