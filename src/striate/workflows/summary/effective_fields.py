"""Effective receptive fields beside the theoretical ones, measured on images."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from striate.audit.layer import Layer
from striate.audit.network import Audit
from striate.audit.table import field_texts
from striate.core.findings import Cell, Column, Table
from striate.core.spec import Preprocess
from striate.data.decode.preprocess import normalize
from striate.data.load import load_data
from striate.interpret.effective_receptive_field import EffectiveField, effective_fields

IMAGES = 16  # the fields of more differ by a position at most

COLUMNS = (
    Column(title="Layer", key="layer", kind="code"),
    Column(title="Field", key="receptive_field", kind="code"),
    Column(
        title="Effective",
        key="effective_field",
        kind="code",
        hint="rows × columns that hold 95.45 % of the squared derivative",
    ),
    Column(
        title="Used",
        key="used",
        kind="share",
        hint="effective area over the field's area on the image",
    ),
)


def images(
    data: str, shape: tuple[int, int, int], preprocess: Preprocess | None
) -> Tensor:
    """Return some validation images as a network takes them.

    Args:
        data: As for `load_data`.
        shape: (channels, height, width) where the network has no preprocessing.
        preprocess: The network's own, where it has been trained.
    """
    channels, *sides = shape
    loaded = load_data(
        data,
        image_size=(sides[0], sides[1]),
        in_chans=channels,
        preprocess=preprocess,
    )
    return normalize(loaded.subset("val").pixels[:IMAGES], loaded.preprocess)


def effective_table(model: nn.Module, audit: Audit, x: Tensor, trained: bool) -> Table:
    """Return field and effective field of every layer whose window looks around.

    Args:
        model: The network, with weights.
        audit: The same network's.
        x: Images, (N, C, H, W).
        trained: Its weights come from training; else the table says so.
    """
    layers = {x.name: x for x in audit.layers if _looks_around(x)}
    found = effective_fields(model, x, list(layers))
    rows = tuple(_row(layers[name], field, audit) for name, field in found.items())
    note = (
        "The middle unit's squared derivative by each pixel, mean over "
        f"{len(x)} images and their channels (Luo et al. 2016)."
    )
    if not trained:
        note += " The weights are initial ones, not trained."
    return Table(
        columns=COLUMNS,
        rows=rows,
        title="Effective receptive fields, measured",
        note=note,
    )


def _looks_around(layer: Layer) -> bool:
    windows = layer.windows
    is_map = layer.output is not None and len(layer.output) == 3
    return is_map and windows is not None and prod(windows.kernel) > 1


def _row(layer: Layer, field: EffectiveField, audit: Audit) -> tuple[Cell, ...]:
    text, _, _ = field_texts(layer.sight)
    axes = layer.sight.axes if layer.sight is not None else ()
    sides = audit.shape[1:]
    area = prod(min(a.size, n) for a, n in zip(axes, sides, strict=True))
    used = field.height * field.width / float(area) if area else None
    return layer.name, text, f"{field.height}×{field.width}", used
