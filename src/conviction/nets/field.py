"""What a tensor depends on: for each side of the picture, which of its dimensions runs along it, and how.

A dimension is a row of factors, as reshaping merges and splits them. Whatever an operation does, its result depends
on no more than its inputs do: where its rule is not known, the field is what all inputs see together, an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from conviction.nets.axis_map import PIXELS, AxisMap, Unrelated

AXES = (0, 1)


@dataclass(frozen=True)
class Factor:
    """A part of a dimension: how many positions, and the side of the picture that it runs along, if any.

    `varies` where its positions may see less than the field tells, which is what all of them see together: of joined
    maps, some channels have a smaller field than others.
    """

    size: int
    axis: int | None = None
    varies: bool = False


Dimension = tuple[Factor, ...]


@dataclass(frozen=True)
class Field:
    """The field of every element of a tensor. `maps` has a map for each side; `is_exact` tells it from a bound."""

    dimensions: tuple[Dimension, ...]
    maps: tuple[AxisMap, AxisMap]
    is_exact: bool = True

    def holder(self, axis: int) -> int | None:
        """The dimension that runs along a side; None where every element sees the same of it."""
        for index, dimension in enumerate(self.dimensions):
            if any(factor.axis == axis for factor in dimension):
                return index
        return None

    def extent(self, axis: int) -> int:
        """The number of positions along a side; 1 where no dimension runs along it."""
        return next((part.size for dimension in self.dimensions for part in dimension if part.axis == axis), 1)

    def is_plain(self, index: int) -> bool:
        """Whether a dimension is nothing but one side of the picture, or none at all."""
        dimension = self.dimensions[index]
        return len(dimension) <= 1 or all(factor.axis is None for factor in dimension)

    def with_map(self, axis: int, new: AxisMap) -> Field:
        maps = [new if number == axis else self.maps[number] for number in AXES]
        return replace(self, maps=(maps[0], maps[1]))

    def resized(self, index: int, size: int) -> Field:
        """With another number of positions along a plain dimension."""
        old = self.dimensions[index]
        axis = next((factor.axis for factor in old), None)
        new: Dimension = (Factor(size, axis),) if size > 1 else ()
        field = replace(self, dimensions=(*self.dimensions[:index], new, *self.dimensions[index + 1 :]))
        # A single position left of a side stays where it is: it is that side's first.
        return field.with_map(axis, self.maps[axis].whole(1)) if axis is not None and size == 1 else field

    def mixed(self, indices: Sequence[int]) -> Field:
        """Every element depends on the whole of these dimensions, which stay, but run along no side any more."""
        field = self
        for axis in AXES:
            if self.holder(axis) in indices:
                field = field.with_map(axis, self.maps[axis].whole(self.extent(axis)))
        dimensions = [
            tuple(Factor(factor.size) for factor in dimension) if index in indices else dimension
            for index, dimension in enumerate(field.dimensions)
        ]
        return replace(field, dimensions=tuple(dimensions))

    def bound(self, shape: Sequence[int]) -> Field:
        """For a tensor of `shape` that depends on this one in a way that is not known."""
        mixed = self.mixed(range(len(self.dimensions)))
        loses = any(factor.axis is not None or factor.varies for row in self.dimensions for factor in row)
        return replace(mixed, dimensions=plain(shape), is_exact=self.is_exact and not loses)

    def permuted(self, order: Sequence[int]) -> Field:
        return replace(self, dimensions=tuple(self.dimensions[index] for index in order))

    def reshaped(self, shape: Sequence[int]) -> Field:
        """As `view` and `reshape` do it; a bound where a side of the picture would be torn apart."""
        parts = [factor for dimension in self.dimensions for factor in dimension if factor.size > 1]
        dimensions: list[Dimension] = []
        for size in shape:
            taken: list[Factor] = []
            room = size
            while room > 1:
                if not parts:
                    return self.bound(shape)
                part = parts.pop(0)
                if room % part.size == 0:
                    taken.append(part)
                    room //= part.size
                elif part.axis is None and part.size % room == 0:
                    taken.append(replace(part, size=room))
                    parts.insert(0, replace(part, size=part.size // room))
                    room = 1
                else:
                    return self.bound(shape)
            dimensions.append(tuple(taken))
        return replace(self, dimensions=tuple(dimensions))


def plain(shape: Sequence[int]) -> tuple[Dimension, ...]:
    """Dimensions that run along no side of the picture."""
    return tuple((Factor(size),) if size > 1 else () for size in shape)


def input_field(shape: Sequence[int]) -> Field:
    """The field of a batch of pictures (B, C, H, W): each pixel sees itself."""
    batch, channels, height, width = shape
    sides = tuple((Factor(size, axis),) if size > 1 else () for axis, size in enumerate((height, width)))
    maps = [PIXELS if size > 1 else PIXELS.whole(1) for size in (height, width)]
    return Field((*plain((batch, channels)), *sides), (maps[0], maps[1]))


def united(fields: Sequence[Field], shape: Sequence[int]) -> Field:
    """The field of a tensor of `shape` made element by element from several, as broadcasting pairs them."""
    aligned = [_broadcast(field, len(shape)) for field in fields]
    dimensions: list[Dimension] = []
    for index, size in enumerate(shape):
        rows = {
            field.dimensions[index] for field in aligned if math.prod(f.size for f in field.dimensions[index]) == size
        }
        sided = [row for row in rows if any(factor.axis is not None for factor in row)]
        if len(sided) > 1:
            return _bound(aligned, shape)
        uneven = [row for row in rows if is_varying(row)]
        dimensions.append(
            sided[0] if sided else plain([size])[0] if not uneven else uneven[0] if len(uneven) == 1 else _uneven(size)
        )
    exact = all(field.is_exact for field in aligned)
    maps: list[AxisMap] = []
    for axis in AXES:
        moving = [field for field in aligned if field.holder(axis) is not None]
        if len({field.holder(axis) for field in moving}) > 1:
            return _bound(aligned, shape)
        resting = [field.maps[axis] for field in aligned if field.holder(axis) is None]
        if not moving:
            maps.append(_all_of(resting))
            continue
        try:
            both = moving[0].maps[axis]
            for field in moving[1:]:
                both = both.united(field.maps[axis])
        except Unrelated:
            return _bound(aligned, shape)
        if not resting:
            maps.append(both)
            continue
        # One input moves with the position and another does not, as where a squeeze-and-excitation scales a map.
        of_all, still = both.whole(moving[0].extent(axis)), _all_of(resting)
        exact = exact and still.covers(of_all)
        maps.append(_all_of([of_all, still]))
        dimensions = [tuple(Factor(f.size, None if f.axis == axis else f.axis) for f in row) for row in dimensions]
    return Field(tuple(dimensions), (maps[0], maps[1]), exact)


def varying(field: Field, index: int) -> Field:
    """With positions along a dimension that may see less than others."""
    row = _uneven(_size(field.dimensions[index]))
    return replace(field, dimensions=(*field.dimensions[:index], row, *field.dimensions[index + 1 :]))


def is_varying(dimension: Dimension) -> bool:
    """Whether its positions may see less than the field tells."""
    return any(factor.varies for factor in dimension)


def _size(dimension: Dimension) -> int:
    return math.prod(factor.size for factor in dimension)


def _uneven(size: int) -> Dimension:
    return (Factor(size, varies=True),) if size > 1 else ()


def written_into(written: Field, shape: Sequence[int]) -> Field:
    """The field of a tensor of `shape` in which no picture had a part before something was written into it."""
    if len(written.dimensions) != len(shape):
        return replace(written.bound(shape), is_exact=False)
    dimensions = []
    for row, size in zip(written.dimensions, shape, strict=True):
        is_side = any(factor.axis is not None for factor in row)
        if is_side and _size(row) != size:
            return replace(written.bound(shape), is_exact=False)
        # Where it is larger than what was written, the rest sees nothing.
        is_part = _size(row) != size or is_varying(row)
        dimensions.append(
            row if is_side else ((Factor(size, varies=True),) if is_part and size > 1 else plain([size])[0])
        )
    return replace(written, dimensions=tuple(dimensions))


def joined(fields: Sequence[Field], shape: Sequence[int], index: int) -> Field:
    """The field of several tensors laid one behind the other along a dimension."""
    if any(factor.axis is not None for field in fields for factor in field.dimensions[index]):
        return _bound(fields, shape)
    same = [replace(field, dimensions=_replaced(field.dimensions, index, shape[index])) for field in fields]
    found = united(same, shape)
    are_even = not any(is_varying(field.dimensions[index]) for field in fields)
    if are_even and len({field.maps for field in fields}) == 1:
        return found
    parts = {_size(field.dimensions[index]) for field in fields}
    if not are_even or len(parts) > 1:
        return varying(found, index)
    # Parts of one size, as ShuffleNet has them: within each all see the same.
    row = (*_uneven(len(fields)), *plain([parts.pop()])[0])
    return replace(found, dimensions=(*found.dimensions[:index], row, *found.dimensions[index + 1 :]))


def _replaced(dimensions: tuple[Dimension, ...], index: int, size: int) -> tuple[Dimension, ...]:
    return (*dimensions[:index], *plain([size]), *dimensions[index + 1 :])


def _broadcast(field: Field, num_dimensions: int) -> Field:
    missing = num_dimensions - len(field.dimensions)
    return replace(field, dimensions=((),) * missing + field.dimensions)


def _all_of(maps: Sequence[AxisMap]) -> AxisMap:
    """What several maps that stay where they are see together."""
    return AxisMap(0, (min(one.first[0] for one in maps),), (max(one.last[0] for one in maps),))


def _bound(fields: Sequence[Field], shape: Sequence[int]) -> Field:
    bounds = [field.bound(shape) for field in fields]
    maps = [_all_of([bound.maps[axis] for bound in bounds]) for axis in AXES]
    return Field(plain(shape), (maps[0], maps[1]), is_exact=False)


def anything_of(fields: Mapping[int, Field] | Sequence[Field], shape: Sequence[int]) -> Field:
    """The field of a tensor of `shape` that depends on several in a way that is not known."""
    listed = list(fields.values()) if isinstance(fields, Mapping) else list(fields)
    if len(listed) == 1:
        return listed[0].bound(shape)
    return _bound(listed, shape)
