"""What the units of a tensor see of the image, through reshapes and branches.

A tensor's dimension is made of *atoms*, slowest first: an axis of the image (0 rows,
1 columns) or plain size (-1). A flattened map is ((−1, C), (0, H), (1, W)) in one
dimension, so a later operation still knows who stands where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

from striate.audit.rf_axis import (
    Axis,
    chain,
    fold,
    image,
    spread_out,
    stretch,
    unite,
    whole,
)

Atom = tuple[int, int]  # (axis of the image or PLAIN, size)
Dim = tuple[Atom, ...]
Path = tuple[Axis, ...]  # rows, columns
Box = tuple[tuple[int, int], ...]
PLAIN = -1
MOST = 16  # paths kept apart


@dataclass(frozen=True, eq=False)
class Sight:
    """What each unit sees.

    Args:
        paths: Rows and columns, once for each way from the image that must be kept
            apart: where a branch sees padding alone along one axis, it sees nothing,
            whatever its other axis says. An axis that no dimension holds has one unit.
        dims: What each dimension of the tensor is made of.
        loose: The boxes are bounds: some operation on the way was not followed.
    """

    paths: tuple[Path, ...]
    dims: tuple[Dim, ...]
    loose: bool = False

    @property
    def axes(self) -> Path:
        """Rows and columns with all paths united."""
        if len(self.paths) == 1:
            return self.paths[0]
        return tuple(unite(axes) for axes in zip(*self.paths, strict=True))

    def axis_of(self, dim: int) -> int | None:
        """Return the image's axis that a dimension runs along, if one and alone."""
        atoms = self.dims[dim]
        return atoms[0][0] if len(atoms) == 1 and atoms[0][0] != PLAIN else None

    @property
    def sides(self) -> tuple[int, ...]:
        """Units along each axis of the image."""
        return tuple(len(axis) for axis in self.paths[0])

    def box(self, *unit: int) -> Box | None:
        """Return first and last row, and column, that reach a unit; None for nothing.

        Args:
            unit: Place along the tensor's last dimensions, such as row and column.

        Example:
            >>> of_images((1, 3, 8, 6)).box(2, 5)
            ((2, 2), (5, 5))
        """
        places = self._places(unit)
        boxes = [box for path in self.paths if (box := _box(path, places))]
        if not boxes:
            return None
        return tuple(
            (min(low for low, _ in side), max(high for _, high in side))
            for side in zip(*boxes, strict=True)
        )

    def _places(self, unit: tuple[int, ...]) -> dict[int, int]:
        """Return where on each axis of the image a place in the tensor stands."""
        places = {}
        for dim, at in zip(self.dims[-len(unit) :], unit, strict=True):
            for mark, size in reversed(dim):
                at, places[mark] = divmod(at, size)
        return places


def _box(path: Path, places: dict[int, int]) -> Box | None:
    found = []
    for mark, axis in enumerate(path):
        i = places.get(mark, 0) if len(axis) > 1 else 0
        found.append((int(axis.low[i]), int(axis.high[i])))
    return None if any(low > high for low, high in found) else tuple(found)


def of_images(shape: Sequence[int]) -> Sight:
    """Return the sight of the input: (batch, channels, rows, columns).

    Example:
        >>> of_images((1, 3, 8, 6)).sides
        (8, 6)
    """
    rows = image(shape[2])
    columns = rows if shape[3] == shape[2] else image(shape[3])
    dims = (plain(shape[0]), plain(shape[1]), ((0, shape[2]),), ((1, shape[3]),))
    return Sight(((rows, columns),), dims)


def plain(size: int) -> Dim:
    """Return a dimension that is not of the image."""
    return ((PLAIN, size),)


def change(sight: Sight, mark: int, how: Callable[[Axis], Axis]) -> Sight:
    """Return the sight with one axis changed, on every path."""
    paths = []
    for path in sight.paths:
        axes = list(path)
        axes[mark] = how(path[mark])
        paths.append(tuple(axes))
    return Sight(tuple(paths), sight.dims, sight.loose)


def set_dim(sight: Sight, dim: int, atoms: Dim) -> Sight:
    """Return the sight with one dimension made of other atoms."""
    if sight.dims[dim] == atoms:
        return sight
    dims = (*sight.dims[:dim], atoms, *sight.dims[dim + 1 :])
    return Sight(sight.paths, dims, sight.loose)


def along(sight: Sight, dim: int, mark: int, how: Callable[[Axis], Axis]) -> Sight:
    """Return the sight with a dimension that runs along a changed axis."""
    changed = change(sight, mark, how)
    return set_dim(changed, dim, ((mark, len(changed.paths[0][mark])),))


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
    return along(sight, dim, mark, lambda axis: stretch(axis, before, after))


def mix(sight: Sight, dims: Sequence[int]) -> Sight:
    """Let every unit see what any unit along `dims` saw: the dims become plain."""
    for dim in dims:
        for mark, _ in sight.dims[dim]:
            if mark != PLAIN:
                sight = change(sight, mark, whole)
        size = prod(size for _, size in sight.dims[dim])
        sight = set_dim(sight, dim, plain(size))
    return sight


def reduce_dims(sight: Sight, dims: Sequence[int], keep: bool) -> Sight:
    """Sum, average or choose along dimensions, which go or shrink to one.

    Example:
        >>> reduce_dims(of_images((1, 3, 8, 6)), [2, 3], keep=False).sides
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
    every = [[whole(axis) for axis in path] for s in sights for path in s.paths]
    path = tuple(unite(axes) for axes in zip(*every, strict=True))
    return Sight((path,), tuple(plain(n) for n in shape), loose=True)


def regroup(sight: Sight, shape: Sequence[int]) -> Sight:
    """Follow a view: the same units, in order, under other dimensions.

    Example:
        >>> flat = regroup(of_images((1, 3, 8, 6)), (1, 144))
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
                    sight = change(sight, mark, partial(fold, parts=trail))
                    sight = replace(sight, loose=True)
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
    return _joined(sights, dims)


def _joined(sights: Sequence[Sight], dims: tuple[Dim, ...]) -> Sight:
    """Unite paths, those apart that see nothing somewhere."""
    loose = any(sight.loose for sight in sights)
    paths = list(dict.fromkeys(path for sight in sights for path in sight.paths))
    full = [path for path in paths if all(axis.full for axis in path)]
    if len(full) == len(paths) or len(paths) > MOST:
        united = tuple(unite(axes) for axes in zip(*paths, strict=True))
        return Sight((united,), dims, loose or len(full) < len(paths))
    sides = [max(map(len, axes)) for axes in zip(*paths, strict=True)]
    return Sight(tuple(_spread_path(path, sides) for path in paths), dims, loose)


def _spread_path(path: Path, sides: Sequence[int]) -> Path:
    return tuple(spread_out(axis, n) for axis, n in zip(path, sides, strict=True))


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
    return sight if grown == sight.dims else replace(sight, dims=grown)


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
        >>> image = of_images((1, 3, 8, 6))
        >>> concatenate([image, image], 2, (1, 3, 16, 6)).sides
        (16, 6)
    """
    ends = {sight.axis_of(dim) for sight in sights}
    others = _agreed([set_dim(sight, dim, plain(1)).dims for sight in sights])
    held = any(mark != PLAIN for s in sights for mark, _ in s.dims[dim])
    if len(ends) > 1 or others is None or (held and ends == {None}):
        return blur_all(sights, shape)
    mark = ends.pop()
    if mark is None:
        return set_dim(_joined(sights, others), dim, plain(shape[dim]))
    loose = any(sight.loose or len(sight.paths) > 1 for sight in sights)
    path = tuple(
        (chain if i == mark else unite)(axes)
        for i, axes in enumerate(zip(*(s.axes for s in sights), strict=True))
    )
    return set_dim(Sight((path,), others, loose), dim, ((mark, shape[dim]),))


class LostError(Exception):
    """The units' places cannot be followed through an operation."""


def image_axis(sight: Sight, dim: int) -> tuple[Sight, int | None]:
    """Return the image's axis along a dimension, made straight; None if plain."""
    if not marked(sight, dim):
        return _lone_axis(sight, dim)
    sight = straighten(sight, dim)
    mark = sight.axis_of(dim)
    if mark is None:
        raise LostError
    return sight, mark


def _lone_axis(sight: Sight, dim: int) -> tuple[Sight, int | None]:
    """Give a map of one row or column its axis back, which reshapes had dropped.

    Padding matters to it too: windows that miss it see nothing.
    """
    mark, count = dim - 2, len(sight.dims)
    if mark < 0 or count != 4 or sight.sides[mark] > 1:
        return sight, None
    if any(_holds(sight, at, mark) for at in range(count)):
        return sight, None
    size = prod(size for _, size in sight.dims[dim])
    return along(sight, dim, mark, partial(spread_out, count=size)), mark


def _holds(sight: Sight, dim: int, mark: int) -> bool:
    return any(held == mark for held, _ in sight.dims[dim])


def marked(sight: Sight, dim: int) -> bool:
    """Tell a dimension that holds an axis of the image."""
    return any(mark != PLAIN for mark, _ in sight.dims[dim])
