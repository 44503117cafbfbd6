"""What the units of a tensor see of the picture, through reshapes and branches.

A tensor's dimension is made of *atoms*, slowest first: an axis of the picture (0 rows,
1 columns) or plain size (-1). A flattened map is ((−1, C), (0, H), (1, W)) in one
dimension, so a later operation still knows who stands where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from striate.audit.axis import Axis, chain, fold, picture, stretch, unite, whole

Atom = tuple[int, int]  # (axis of the picture or PLAIN, size)
Dim = tuple[Atom, ...]
PLAIN = -1


@dataclass(frozen=True, eq=False)
class Sight:
    """What each unit sees.

    Args:
        axes: Rows, then columns; an axis that no dimension holds has one unit.
        dims: What each dimension of the tensor is made of.
        loose: The boxes are bounds: some operation on the way was not followed.
    """

    axes: tuple[Axis, ...]
    dims: tuple[Dim, ...]
    loose: bool = False

    def axis_of(self, dim: int) -> int | None:
        """Return the picture's axis that a dimension runs along, if one and alone."""
        atoms = self.dims[dim]
        return atoms[0][0] if len(atoms) == 1 and atoms[0][0] != PLAIN else None

    @property
    def sides(self) -> tuple[int, ...]:
        """Units along each axis of the picture."""
        return tuple(len(axis) for axis in self.axes)


def of_pictures(shape: Sequence[int]) -> Sight:
    """Return the sight of the input: (batch, channels, rows, columns).

    Example:
        >>> of_pictures((1, 3, 8, 6)).sides
        (8, 6)
    """
    rows = picture(shape[2])
    columns = rows if shape[3] == shape[2] else picture(shape[3])
    dims = (plain(shape[0]), plain(shape[1]), ((0, shape[2]),), ((1, shape[3]),))
    return Sight((rows, columns), dims)


def plain(size: int) -> Dim:
    """Return a dimension that is not of the picture."""
    return ((PLAIN, size),)


def _set_axis(sight: Sight, mark: int, axis: Axis) -> Sight:
    axes = list(sight.axes)
    axes[mark] = axis
    return replace(sight, axes=tuple(axes))


def set_dim(sight: Sight, dim: int, atoms: Dim) -> Sight:
    """Return the sight with one dimension made of other atoms."""
    dims = (*sight.dims[:dim], atoms, *sight.dims[dim + 1 :])
    return replace(sight, dims=dims)


def along(sight: Sight, dim: int, mark: int, axis: Axis) -> Sight:
    """Return the sight with a dimension that runs along a changed axis."""
    return set_dim(_set_axis(sight, mark, axis), dim, ((mark, len(axis)),))


def straighten(sight: Sight, dim: int) -> Sight:
    """Make a dimension that mixes one axis with plain sizes into that axis alone.

    So does a pixel shuffle: rows of H units and r repeats become one of H·r.
    """
    atoms = sight.dims[dim]
    marked = [i for i, (mark, _) in enumerate(atoms) if mark != PLAIN]
    if len(marked) != 1 or len(atoms) == 1:
        return sight
    i, mark = marked[0], atoms[marked[0]][0]
    before = prod(size for _, size in atoms[:i])
    after = prod(size for _, size in atoms[i + 1 :])
    return along(sight, dim, mark, stretch(sight.axes[mark], before, after))


def mix(sight: Sight, dims: Sequence[int]) -> Sight:
    """Let every unit see what any unit along `dims` saw: the dims become plain."""
    for dim in dims:
        for mark, _ in sight.dims[dim]:
            if mark != PLAIN:
                sight = _set_axis(sight, mark, whole(sight.axes[mark]))
        size = prod(size for _, size in sight.dims[dim])
        sight = set_dim(sight, dim, plain(size))
    return sight


def reduce_dims(sight: Sight, dims: Sequence[int], keep: bool) -> Sight:
    """Sum, average or choose along dimensions, which go or shrink to one.

    Example:
        >>> reduce_dims(of_pictures((1, 3, 8, 6)), [2, 3], keep=False).sides
        (1, 1)
    """
    count = len(sight.dims)
    gone = {dim % count for dim in dims}
    mixed = mix(sight, sorted(gone))
    kept = [(i, atoms) for i, atoms in enumerate(mixed.dims) if keep or i not in gone]
    return replace(
        mixed, dims=tuple(plain(1) if i in gone else atoms for i, atoms in kept)
    )


def blur_all(sights: Sequence[Sight], shape: Sequence[int]) -> Sight:
    """Bound what is not followed: every unit sees at most what any input saw."""
    first = sights[0]
    axes = tuple(
        unite([whole(sight.axes[i]) for sight in sights])
        for i in range(len(first.axes))
    )
    return Sight(axes, tuple(plain(n) for n in shape), loose=True)


def regroup(sight: Sight, shape: Sequence[int]) -> Sight:
    """Follow a view: the same units, in order, under other dimensions.

    Example:
        >>> flat = regroup(of_pictures((1, 3, 8, 6)), (1, 144))
        >>> flat.dims[1], regroup(flat, (1, 3, 48)).dims[2]
        (((-1, 3), (0, 8), (1, 6)), ((0, 8), (1, 6)))
    """
    rest = [atom for dim in sight.dims for atom in dim if atom[1] != 1]
    dims: list[Dim] = []
    for need in shape:
        taken: list[Atom] = []
        while need > 1:
            mark, size = rest.pop(0)
            if size > need and size % need == 0:
                trail = size // need
                if mark != PLAIN:
                    folded = fold(sight.axes[mark], trail)
                    sight = replace(_set_axis(sight, mark, folded), loose=True)
                rest.insert(0, (PLAIN, trail))
                size = need
            elif need % size:
                return blur_all([sight], shape)
            if mark == PLAIN and taken and taken[-1][0] == PLAIN:
                size_before = taken.pop()[1]
                taken.append((PLAIN, size_before * size))
            else:
                taken.append((mark, size))
            need //= size
        dims.append(tuple(taken) or plain(1))
    return replace(sight, dims=tuple(dims))


def overlay(sights: Sequence[Sight], shape: Sequence[int]) -> Sight:
    """Follow an element-wise operation of several tensors, smaller ones repeated."""
    first = sights[0]
    if all(s is first for s in sights) and _size(first.dims) == tuple(shape):
        return first
    spread = [_spread(sight, shape) for sight in sights]
    dims = _agreed([sight.dims for sight in spread])
    if dims is None:
        return blur_all(sights, shape)
    return Sight(_united(sights), dims, any(sight.loose for sight in sights))


def _united(sights: Sequence[Sight]) -> tuple[Axis, ...]:
    return tuple(unite(axes) for axes in zip(*(s.axes for s in sights), strict=True))


def _size(dims: Sequence[Dim]) -> tuple[int, ...]:
    return tuple(prod(size for _, size in dim) for dim in dims)


def _spread(sight: Sight, shape: Sequence[int]) -> Sight:
    lead = len(shape) - len(sight.dims)
    dims = (*(plain(n) for n in shape[:lead]), *sight.dims)
    sizes = _size(dims)
    grown = tuple(
        dim if size == want else plain(want)
        for dim, size, want in zip(dims, sizes, shape, strict=True)
    )
    return replace(sight, dims=grown)


def _agreed(every: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...] | None:
    """Return the one way in which all see the dimensions; None if they differ."""
    dims = []
    for same in zip(*every, strict=True):
        marked = {dim for dim in same if any(mark != PLAIN for mark, _ in dim)}
        if len(marked) > 1:
            return None
        dims.append(marked.pop() if marked else same[0])
    marks = [mark for dim in dims for mark, _ in dim if mark != PLAIN]
    return tuple(dims) if len(set(marks)) == len(marks) else None


def concatenate(sights: Sequence[Sight], dim: int, shape: Sequence[int]) -> Sight:
    """Follow a concatenation: branches side by side, or maps end to end.

    Example:
        >>> picture = of_pictures((1, 3, 8, 6))
        >>> concatenate([picture, picture], 2, (1, 3, 16, 6)).sides
        (16, 6)
    """
    ends = {sight.axis_of(dim) for sight in sights}
    others = _agreed([set_dim(sight, dim, plain(1)).dims for sight in sights])
    held = any(mark != PLAIN for s in sights for mark, _ in s.dims[dim])
    if len(ends) > 1 or others is None or (held and ends == {None}):
        return blur_all(sights, shape)
    mark = ends.pop()
    loose = any(sight.loose for sight in sights)
    if mark is None:
        return set_dim(Sight(_united(sights), others, loose), dim, plain(shape[dim]))
    joined = chain([sight.axes[mark] for sight in sights])
    axes = [
        joined if i == mark else unite([sight.axes[i] for sight in sights])
        for i in range(len(sights[0].axes))
    ]
    return set_dim(Sight(tuple(axes), others, loose), dim, ((mark, shape[dim]),))
