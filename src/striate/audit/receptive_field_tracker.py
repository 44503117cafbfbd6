"""Receptive field of a tensor, tracked through reshapes, branches and products.

Each dimension of a tensor consists of *atoms*, slowest first: an axis of the image (0
rows, 1 columns) or a plain size (-1). A flattened map has one dimension of three atoms,
((−1, C), (0, H), (1, W)), so that positions are still known after the flattening.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

from striate.audit.receptive_field import (
    Axis,
    input_axis,
    join_end_to_end,
    merge_all,
    merge_branches,
    merge_neighbors,
    repeat_single,
    repeat_units,
)

Atom = tuple[int, int]  # (axis of the image or PLAIN, size)
Dim = tuple[Atom, ...]
Path = tuple[Axis, ...]  # rows, columns
Shape = Sequence[int]
Box = tuple[tuple[int, int], ...]
PLAIN = -1
MAX_PATHS = 16  # paths that are tracked separately


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """The receptive field of every unit of a tensor."""

    # Row axis and column axis, for each path through the network that is tracked
    # separately: a branch that reads only padding along one axis has an empty field. An
    # axis that no dimension of the tensor contains has one unit.
    paths: tuple[Path, ...]
    dims: tuple[Dim, ...]  # the atoms of each dimension of the tensor
    # The fields are upper bounds: some operation has no exact rule.
    is_bound: bool = False

    @property
    def axes(self) -> Path:
        """Row axis and column axis, with all paths through the network merged."""
        if len(self.paths) == 1:
            return self.paths[0]
        return tuple(merge_branches(axes) for axes in zip(*self.paths, strict=True))

    def axis_of(self, dim: int) -> int | None:
        """Return the image axis (0: rows, 1: columns) of a dimension, or None."""
        atoms = self.dims[dim]
        return atoms[0][0] if len(atoms) == 1 and atoms[0][0] != PLAIN else None

    @property
    def sides(self) -> tuple[int, ...]:
        """Number of units along the row axis and along the column axis."""
        return tuple(len(axis) for axis in self.paths[0])

    def box(self, *unit: int) -> Box | None:
        """Return the row and column range of a receptive field; None if empty.

        It contains the fields of all units with these indices, so of all channels.

        Args:
            unit: Index along the tensor's last dimensions, such as row and column.

        Example:
            >>> input_field((1, 3, 8, 6)).box(2, 5)
            ((2, 2), (5, 5))
        """
        positions = {}
        for dim, at in zip(self.dims[-len(unit) :], unit, strict=True):
            for axis_index, size in reversed(dim):
                at, positions[axis_index] = divmod(at, size)
        boxes = [box for path in self.paths if (box := _box(path, positions))]
        if not boxes:
            return None
        return tuple(
            (min(low for low, _ in side), max(high for _, high in side))
            for side in zip(*boxes, strict=True)
        )


def _box(path: Path, positions: dict[int, int]) -> Box | None:
    spans = []
    for axis_index, axis in enumerate(path):
        if len(axis) > 1 and axis_index not in positions:
            spans.append(axis.span)  # all positions that have these indices
            continue
        i = positions.get(axis_index, 0) if len(axis) > 1 else 0
        spans.append((int(axis.low[i]), int(axis.high[i])))
    return None if any(low > high for low, high in spans) else tuple(spans)


def input_field(shape: Shape) -> ReceptiveField:
    """Return the receptive field of the input: each pixel depends only on itself.

    Example:
        >>> input_field((1, 3, 8, 6)).sides
        (8, 6)
    """
    rows = input_axis(shape[2])
    columns = rows if shape[3] == shape[2] else input_axis(shape[3])
    dims = plain_dim(shape[0]), plain_dim(shape[1]), ((0, shape[2]),), ((1, shape[3]),)
    return ReceptiveField(((rows, columns),), dims)


def plain_dim(size: int) -> Dim:
    """Describe a tensor dimension that is neither image height nor width."""
    return ((PLAIN, size),)


def map_axis(
    field: ReceptiveField, axis_index: int, change: Callable[[Axis], Axis]
) -> ReceptiveField:
    """Apply a function to the row or column axis of every path through the network."""
    paths = []
    for path in field.paths:
        axes = list(path)
        axes[axis_index] = change(path[axis_index])
        paths.append(tuple(axes))
    return ReceptiveField(tuple(paths), field.dims, field.is_bound)


def set_dim(field: ReceptiveField, dim: int, atoms: Dim) -> ReceptiveField:
    """Return a receptive field with the factors (atoms) of one dimension replaced."""
    if field.dims[dim] == atoms:
        return field
    dims = (*field.dims[:dim], atoms, *field.dims[dim + 1 :])
    return ReceptiveField(field.paths, dims, field.is_bound)


def map_dim(
    field: ReceptiveField, dim: int, axis_index: int, change: Callable[[Axis], Axis]
) -> ReceptiveField:
    """Apply a function to the receptive field along one tensor dimension (H or W)."""
    changed = map_axis(field, axis_index, change)
    return set_dim(changed, dim, ((axis_index, len(changed.paths[0][axis_index])),))


def merge_atoms(field: ReceptiveField, dim: int) -> ReceptiveField:
    """Convert a dimension, a product of one image axis and other factors, to one axis.

    Used for pixel shuffle: an axis of H units with r repeats becomes one axis of H·r.
    """
    atoms = field.dims[dim]
    axis_atoms = [i for i, (axis_index, _) in enumerate(atoms) if axis_index != PLAIN]
    if len(axis_atoms) != 1 or len(atoms) == 1:
        return field
    i, axis_index = axis_atoms[0], atoms[axis_atoms[0]][0]
    before = prod(size for _, size in atoms[:i])
    after = prod(size for _, size in atoms[i + 1 :])
    repeat = partial(repeat_units, before=before, after=after)
    return map_dim(field, dim, axis_index, repeat)


def mix_dims(field: ReceptiveField, dims: Sequence[int]) -> ReceptiveField:
    """Merge the receptive fields of all units along the tensor dimensions `dims`."""
    for dim in dims:
        for axis_index, _ in field.dims[dim]:
            if axis_index != PLAIN:
                field = map_axis(field, axis_index, merge_all)
        size = prod(size for _, size in field.dims[dim])
        field = set_dim(field, dim, plain_dim(size))
    return field


def reduce_dims(
    field: ReceptiveField, dims: Sequence[int], keep: bool
) -> ReceptiveField:
    """Return the receptive field after a reduction (sum, mean, max) over dimensions.

    Example:
        >>> reduce_dims(input_field((1, 3, 8, 6)), [2, 3], keep=False).sides
        (1, 1)
    """
    count = len(field.dims)
    reduced = {dim % count for dim in dims}
    mixed = mix_dims(field, sorted(reduced))
    remaining = [
        plain_dim(1) if i in reduced else atoms
        for i, atoms in enumerate(mixed.dims)
        if keep or i not in reduced
    ]
    return replace(mixed, dims=tuple(remaining))


def bound_all(fields: Sequence[ReceptiveField], shape: Shape) -> ReceptiveField:
    """Return an upper bound: each unit gets the union of the fields of all inputs."""
    every = [[merge_all(axis) for axis in path] for s in fields for path in s.paths]
    path = tuple(merge_branches(axes) for axes in zip(*every, strict=True))
    return ReceptiveField((path,), tuple(plain_dim(n) for n in shape), is_bound=True)


def reshape_field(field: ReceptiveField, shape: Shape) -> ReceptiveField:
    """Return the receptive field after a reshape, which keeps the order of units.

    Example:
        >>> flat = reshape_field(input_field((1, 3, 8, 6)), (1, 144))
        >>> flat.dims[1], reshape_field(flat, (1, 3, 48)).dims[2]
        (((-1, 3), (0, 8), (1, 6)), ((0, 8), (1, 6)))
    """
    rest = [atom for dim in field.dims for atom in dim if atom[1] != 1]
    dims: list[Dim] = []
    for needed in shape:
        atoms: list[Atom] = []
        while needed > 1:
            axis_index, size = rest.pop(0)
            if size > needed and size % needed == 0:
                trail = size // needed
                if axis_index != PLAIN:
                    merge = partial(merge_neighbors, size=trail)
                    field = map_axis(field, axis_index, merge)
                    field = replace(field, is_bound=True)
                rest.insert(0, (PLAIN, trail))
                size = needed
            elif needed % size:
                return bound_all([field], shape)
            if axis_index == PLAIN and atoms and atoms[-1][0] == PLAIN:
                size_before = atoms.pop()[1]
                atoms.append((PLAIN, size_before * size))
            else:
                atoms.append((axis_index, size))
            needed //= size
        dims.append(tuple(atoms) or plain_dim(1))
    return replace(field, dims=tuple(dims))


def elementwise_field(fields: Sequence[ReceptiveField], shape: Shape) -> ReceptiveField:
    """Return the receptive field of an element-wise operation with broadcasting."""
    first = fields[0]
    if all(s is first for s in fields) and _size(first.dims) == tuple(shape):
        return first
    expanded_fields = [_expanded(field, shape) for field in fields]
    dims = _common_dims([field.dims for field in expanded_fields])
    if dims is None:
        return bound_all(fields, shape)
    return _merged(fields, dims)


def _merged(fields: Sequence[ReceptiveField], dims: tuple[Dim, ...]) -> ReceptiveField:
    """Merge paths through the network, unless a unit depends only on padding."""
    is_bound = any(field.is_bound for field in fields)
    paths = list(dict.fromkeys(path for field in fields for path in field.paths))
    full = [path for path in paths if all(axis.full for axis in path)]
    if len(full) == len(paths) or len(paths) > MAX_PATHS:
        united = tuple(merge_branches(axes) for axes in zip(*paths, strict=True))
        return ReceptiveField((united,), dims, is_bound or len(full) < len(paths))
    sides = [max(map(len, axes)) for axes in zip(*paths, strict=True)]
    expanded = [tuple(map(repeat_single, path, sides)) for path in paths]
    return ReceptiveField(tuple(expanded), dims, is_bound)


def _size(dims: Sequence[Dim]) -> tuple[int, ...]:
    return tuple(prod(size for _, size in dim) for dim in dims)


def _expanded(field: ReceptiveField, shape: Shape) -> ReceptiveField:
    lead = len(shape) - len(field.dims)
    dims = (*(plain_dim(n) for n in shape[:lead]), *field.dims)
    sizes = _size(dims)
    expanded = tuple(
        dim if size == target else plain_dim(target)
        for dim, size, target in zip(dims, sizes, shape, strict=True)
    )
    return field if expanded == field.dims else replace(field, dims=expanded)


def _common_dims(every: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...] | None:
    """Return the common dimensions of tensors; None if their image axes differ."""
    dims = []
    for same in zip(*every, strict=True):
        axis_dims = {dim for dim in same if any(index != PLAIN for index, _ in dim)}
        if len(axis_dims) > 1:
            return None
        dims.append(axis_dims.pop() if axis_dims else same[0])
    axis_indices = [index for dim in dims for index, _ in dim if index != PLAIN]
    return tuple(dims) if len(set(axis_indices)) == len(axis_indices) else None


def concatenate_fields(
    fields: Sequence[ReceptiveField], dim: int, shape: Shape
) -> ReceptiveField:
    """Return the receptive field of a concatenation along channels or an image axis.

    Example:
        >>> image = input_field((1, 3, 8, 6))
        >>> concatenate_fields([image, image], 2, (1, 3, 16, 6)).sides
        (16, 6)
    """
    ends = {field.axis_of(dim) for field in fields}
    others = _common_dims([set_dim(field, dim, plain_dim(1)).dims for field in fields])
    has_axis = any(has_image_axis(field, dim) for field in fields)
    if len(ends) > 1 or others is None or (has_axis and ends == {None}):
        return bound_all(fields, shape)
    axis_index = ends.pop()
    if axis_index is None:
        return set_dim(_merged(fields, others), dim, plain_dim(shape[dim]))
    is_bound = any(field.is_bound or len(field.paths) > 1 for field in fields)
    path = tuple(
        (join_end_to_end if i == axis_index else merge_branches)(axes)
        for i, axes in enumerate(zip(*(s.axes for s in fields), strict=True))
    )
    joined = ReceptiveField((path,), others, is_bound)
    return set_dim(joined, dim, ((axis_index, shape[dim]),))


class UntrackableError(Exception):
    """Error of an operation through which a receptive field cannot be tracked."""


def map_image_axis(
    field: ReceptiveField, dim: int, change: Callable[[Axis], Axis], size: int
) -> ReceptiveField:
    """Apply a function to a dimension's image axis; without image axis, set its size.

    Raises:
        UntrackableError: The dimension is a mixture of axes.
    """
    field, axis_index = image_axis(field, dim)
    if axis_index is None:
        return set_dim(field, dim, plain_dim(size))
    return map_dim(field, dim, axis_index, change)


def image_axis(field: ReceptiveField, dim: int) -> tuple[ReceptiveField, int | None]:
    """Return the field with merged factors of `dim`, and the image axis or None."""
    if not has_image_axis(field, dim):
        return _lone_axis(field, dim)
    field = merge_atoms(field, dim)
    axis_index = field.axis_of(dim)
    if axis_index is None:
        raise UntrackableError
    return field, axis_index


def _lone_axis(field: ReceptiveField, dim: int) -> tuple[ReceptiveField, int | None]:
    """Restore an image axis of size one that a reshape removed.

    The padding of such an axis matters: a window outside of the map has an empty field.
    """
    axis_index, count = dim - 2, len(field.dims)
    if axis_index < 0 or count != 4 or field.sides[axis_index] > 1:
        return field, None
    if any(axis_index == index for atoms in field.dims for index, _ in atoms):
        return field, None
    repeat = partial(repeat_single, count=prod(size for _, size in field.dims[dim]))
    return map_dim(field, dim, axis_index, repeat), axis_index


def has_image_axis(field: ReceptiveField, dim: int) -> bool:
    """Return whether a dimension contains an axis of the image."""
    return any(axis_index != PLAIN for axis_index, _ in field.dims[dim])
