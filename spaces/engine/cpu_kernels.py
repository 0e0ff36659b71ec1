"""Compiled kernels of the CPU backend: each image passes through its operations while it is in cache.

The effect of each level comes in as constants from `spaces.engine.lookup_tables`. The bytes equal those of
`spaces.operations` and Pillow: no fused multiply-add, no reordered sums.

The first call on a machine compiles for a few seconds and caches the result on disk. Numba's cache depends on this file
alone, so no constant of another module may be used here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numba
import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Scalar: TypeAlias = Any
"""A number whose type the compiler infers."""

COPY, WARP, LOOK_UP, CONTRAST, AUTO_CONTRAST, EQUALIZE, COLOR, SHARPNESS, CUTOUT = range(9)
"""Kinds of operations; each index of an operation maps to one of them."""

FRACTION = 16
"""Fractional bits of a matrix, equal to `spaces.operations.geometry.FRACTION`."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` without the GIL, and cache it on disk if a disk is writable."""
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no writable folder for the cache
        return numba.njit(nogil=True, error_model="numpy")(function)


@compiled
def augment(
    start: Scalar,
    stop: Scalar,
    kinds: Array,
    images: Array,
    result: Array,
    operations: Array,
    levels: Array,
    signs: Array,
    positions: Array,
    fill: Array,
    matrices: Array,
    tables: Array,
    factors: Array,
    sides: Array,
) -> Scalar:
    """Apply the operations to the images from `start` to `stop`; two buffers alternate, the last write is the result.

    Returns the index of the first image with invalid parameters, or -1.
    """
    _, channels, height, width = images.shape
    images, result = images.reshape(len(images), -1), result.reshape(len(images), -1)
    spare = np.empty(images.shape[1], np.uint8)
    places, sums = np.empty(width, np.uint32), np.empty(width, np.int32)
    table = np.empty((channels, 256), np.uint8)
    counts = np.empty((4, 256), np.int32)
    for image in range(start, stop):
        left = 0
        for place in range(operations.shape[1]):
            known = -1 <= operations[image, place] < len(kinds) - 1 and 0 <= levels[image, place] < len(factors)
            across, down = positions[image, place]
            if not (known and abs(signs[image, place]) == 1 and 0 <= across < 1 and 0 <= down < 1):
                return image
            left += kinds[operations[image, place]] != COPY
        here = images[image]
        if left == 0:
            _copy(here, result[image])
        for place in range(operations.shape[1]):
            operation, level = operations[image, place], levels[image, place]
            kind = kinds[operation]
            if kind == COPY:
                continue
            left -= 1
            # The last operation writes to the result, the one before it to the spare buffer, and so on.
            there = spare if left % 2 else result[image]
            if kind == WARP:
                matrix = matrices[operation, level, (signs[image, place] + 1) // 2]
                _warp(here, there, height, width, matrix, fill, places)
            elif kind == COLOR:
                _color(here, there, channels, factors[level])
            elif kind == SHARPNESS:
                _sharpness(here, there, height, width, factors[level], sums)
            elif kind == CUTOUT:
                _copy(here, there)
                _cut(there, height, width, sides[level], positions[image, place], fill)
            else:
                if kind == LOOK_UP:
                    table[:] = tables[operation, level]
                elif kind == CONTRAST:
                    _contrast(here, table, factors[level])
                elif kind == EQUALIZE:
                    _equalize(here, table, counts)
                else:
                    _auto_contrast(here, table)
                _look_up(here, there, table)
            here = there
    return -1


@compiled
def crop(
    start: Scalar,
    stop: Scalar,
    images: Array,
    result: Array,
    top: Array,
    left: Array,
    mirrored: Array,
    fill: Array,
) -> Scalar:
    """Shift the images from `start` to `stop` by whole pixels, then mirror some of them."""
    _, channels, height, width = images.shape
    images, result = images.reshape(len(images), -1), result.reshape(len(images), -1)
    for image in range(start, stop):
        source, target = images[image], result[image]
        low = min(max(0, -left[image]), width)
        inside = max(min(width, width - left[image]), low)
        for channel in range(channels):
            for y in range(height):
                row = y + top[image]
                high = inside if 0 <= row < height else low
                line = (channel * height + y) * width
                origin = (channel * height + row) * width + left[image] + low
                before, after = low, width - high
                if mirrored[image]:
                    before, after = after, before
                    _mirror(source, origin, target, line + before, high - low)
                else:
                    _move(source, origin, target, line + before, high - low)
                _fill(target, line, before, fill[channel])
                _fill(target, line + width - after, after, fill[channel])
    return -1


@compiled
def _copy(source: Array, target: Array) -> None:
    for index in range(target.size):
        target[index] = source[index]


@compiled
def _warp(
    source: Array, target: Array, height: Scalar, width: Scalar, matrix: Array, fill: Array, places: Array
) -> None:
    """Apply Pillow's `affine_fixed` row by row: the pixels of a row that are inside the image form one run."""
    a, b, c, d, e, f = matrix
    by_rows = a == 1 << FRACTION and d == 0  # translations and ShearX shift rows by whole pixels
    for y in range(height):
        across, down = b * y + c, e * y + f
        low, high, start = 0, width, 0
        if by_rows:
            shift, row = across >> FRACTION, down >> FRACTION
            low = min(max(0, -shift), width)
            high = max(min(width, width - shift), low) if 0 <= row < height else low
            start = row * width + shift + low
        else:
            while low < width and not _inside(a * low + across, d * low + down, width, height):
                low += 1
            while high > low and not _inside(a * (high - 1) + across, d * (high - 1) + down, width, height):
                high -= 1
            for x in range(low, high):
                places[x] = ((d * x + down) >> FRACTION) * width + ((a * x + across) >> FRACTION)
        for channel in range(fill.size):
            plane = channel * height * width
            line = plane + y * width
            _fill(target, line, low, fill[channel])
            _fill(target, line + high, width - high, fill[channel])
            if by_rows:
                _move(source, plane + start, target, line + low, high - low)
            else:
                _gather(source, plane, places, low, target, line + low, high - low)


# The four functions below use unsigned indices: a signed one costs a comparison with 0 and prevents vectorization.


@compiled
def _fill(target: Array, to: Scalar, count: Scalar, value: Scalar) -> None:
    to = np.uint64(to)
    for index in range(np.uint64(count)):
        target[to + index] = value


@compiled
def _move(source: Array, at: Scalar, target: Array, to: Scalar, count: Scalar) -> None:
    at, to = np.uint64(at), np.uint64(to)
    for index in range(np.uint64(count)):
        target[to + index] = source[at + index]


@compiled
def _mirror(source: Array, at: Scalar, target: Array, to: Scalar, count: Scalar) -> None:
    last, to = np.uint64(at + count - 1), np.uint64(to)
    for index in range(np.uint64(count)):
        target[to + index] = source[last - index]


@compiled
def _gather(source: Array, plane: Scalar, places: Array, at: Scalar, target: Array, to: Scalar, count: Scalar) -> None:
    plane, at, to = np.uint64(plane), np.uint64(at), np.uint64(to)
    for index in range(np.uint64(count)):
        target[to + index] = source[plane + np.uint64(places[at + index])]


@compiled
def _inside(x: Scalar, y: Scalar, width: Scalar, height: Scalar) -> Scalar:
    return 0 <= x < width << FRACTION and 0 <= y < height << FRACTION


@compiled
def _cut(target: Array, height: Scalar, width: Scalar, side: Scalar, position: Array, fill: Array) -> None:
    top = np.int64(np.float64(position[0]) * height) - side // 2
    left = np.int64(np.float64(position[1]) * width) - side // 2
    low, high = max(0, left), min(width, left + side)
    for channel in range(fill.size):
        for y in range(max(0, top), min(height, top + side)):
            _fill(target, (channel * height + y) * width + low, high - low, fill[channel])


@compiled
def _look_up(source: Array, target: Array, table: Array) -> None:
    pixels = source.size // len(table)
    for channel in range(len(table)):
        own = table[channel]
        plane = source[channel * pixels : (channel + 1) * pixels]
        there = target[channel * pixels : (channel + 1) * pixels]
        for index in range(pixels):
            there[index] = own[plane[index]]


@compiled
def _blend(under: Scalar, over: Scalar, factor: Scalar) -> Scalar:
    """Blend two values like Pillow's `Image.blend`: float32, rounded three times, then truncated."""
    value = under + factor * (over - under)
    return np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(255))))


@compiled
def _luma(red: Scalar, green: Scalar, blue: Scalar) -> Scalar:
    """Return the luma of Pillow's `convert("L")`: ITU-R 601 weights in 16 bits, rounded."""
    weighted = np.int32(19595) * np.int32(red) + np.int32(38470) * np.int32(green) + np.int32(7471) * np.int32(blue)
    return np.int32(weighted + np.int32(0x8000)) >> np.int32(16)


@compiled
def _contrast(source: Array, table: Array, factor: Scalar) -> None:
    channels, pixels = len(table), source.size // len(table)
    total = np.int64(0)
    if channels == 1:
        for value in source:
            total += value
    else:
        red, green, blue = source[:pixels], source[pixels : 2 * pixels], source[2 * pixels :]
        for index in range(pixels):
            total += _luma(red[index], green[index], blue[index])
    mean = np.float32((2 * total + pixels) // (2 * pixels))
    for value in range(256):
        table[0, value] = _blend(mean, np.float32(value), factor)
    for channel in range(1, channels):
        table[channel] = table[0]


@compiled
def _auto_contrast(source: Array, table: Array) -> None:
    pixels = source.size // len(table)
    for channel in range(len(table)):
        plane = source[channel * pixels : (channel + 1) * pixels]
        low, high = np.uint8(255), np.uint8(0)
        for value in plane:
            low, high = min(low, value), max(high, value)
        if high <= low:
            for value in range(256):
                table[channel, value] = value
            continue
        scale = 255.0 / (np.float64(high) - np.float64(low))
        offset = -np.float64(low) * scale
        for value in range(256):
            table[channel, value] = np.uint8(min(max(np.float64(value) * scale + offset, 0.0), 255.0))


@compiled
def _equalize(source: Array, table: Array, counts: Array) -> None:
    pixels = source.size // len(table)
    for channel in range(len(table)):
        plane = source[channel * pixels : (channel + 1) * pixels]
        counts[:] = 0
        whole = plane.size // 4 * 4
        for index in range(0, whole, 4):  # four histograms, so that equal neighbors do not stall on each other
            for part in range(4):
                counts[part, plane[index + part]] += 1
        for index in range(whole, plane.size):
            counts[0, plane[index]] += 1
        highest = 0
        for value in range(256):
            counts[0, value] += counts[1, value] + counts[2, value] + counts[3, value]
            if counts[0, value]:
                highest = value
        step = (plane.size - counts[0, highest]) // 255
        below = step // 2
        for value in range(256):
            if step == 0:
                table[channel, value] = value
            else:
                table[channel, value] = min(np.float64(below) / step, 255.0)  # exact, since both are below 2³¹
                below += counts[0, value]


@compiled
def _color(source: Array, target: Array, channels: Scalar, factor: Scalar) -> None:
    if channels == 1:
        _copy(source, target)
        return
    pixels = source.size // 3
    red, green, blue = source[:pixels], source[pixels : 2 * pixels], source[2 * pixels :]
    reds, greens, blues = target[:pixels], target[pixels : 2 * pixels], target[2 * pixels :]
    for index in range(pixels):
        under = np.float32(_luma(red[index], green[index], blue[index]))
        reds[index] = _blend(under, np.float32(red[index]), factor)
        greens[index] = _blend(under, np.float32(green[index]), factor)
        blues[index] = _blend(under, np.float32(blue[index]), factor)


@compiled
def _sharpness(source: Array, target: Array, height: Scalar, width: Scalar, factor: Scalar, sums: Array) -> None:
    """Blend Pillow's SMOOTH and the image; border pixels do not change."""
    _copy(source, target)
    wide = np.uint64(width)
    for line in range(1, source.size // width - 1):
        if line % height == 0 or line % height == height - 1:
            continue
        here = np.uint64(line) * wide
        for x in range(wide):
            at = here + x
            sums[x] = np.int32(source[at - wide]) + np.int32(source[at]) + np.int32(source[at + wide])
        for x in range(np.uint64(1), np.uint64(max(width - 1, 1))):
            value = source[here + x]
            total = sums[x - np.uint64(1)] + sums[x] + sums[x + np.uint64(1)] + np.int32(4) * np.int32(value)
            # (total + 6) // 13, exact for every total of nine weighted bytes
            smooth = np.int32((total + np.int32(6)) * np.int32(20165)) >> np.int32(18)
            target[here + x] = _blend(np.float32(smooth), np.float32(value), factor)
