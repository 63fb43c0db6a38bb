"""What filters see, as a picture: first kernels, and the patches that excite filters most, stage by stage.

Owns layout and how kernels and patches become pixels; every number comes from `filtersight`. Networks stand side by
side on one scale, in inches from the upper left corner.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from search.drawing import GREY, WIDTH, paper
from search.filtersight import PATCHES, NetworkSight, StageSight

TILES = 8
"""Filters shown of a stage at most."""
KERNELS = 36
"""Kernels shown of the first convolution at most."""
_SIDE = math.isqrt(PATCHES)
_EDGE, _GUTTER, _GAP, _CRACK = 0.12, 0.36, 0.1, 0.06  # inches: around the page, between networks, tiles, kernels
_TOP, _LINE, _HEADING, _BAR, _AFTER = 1.2, 0.165, 0.3, 0.1, 0.2  # inches, downwards
_FINEST, _COARSEST = 28, 56
"""Pixels of a patch in the file at least and at most, in whole multiples of its own where it is smaller."""
_BEYOND = 0.62
"""The grey of what lies beyond the image."""
_PALE = 0.3
"""How much of a network's colour there is in the light part of bars and between patches."""

Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """A network as the picture has it.

    Attributes:
        title: What it is called above its column.
        colour: Of the title and of the bars.
        sight: What its filters respond to.
        raw: The images it was shown, as stored, `(n_images, channels, height, width)`.
    """

    title: str
    colour: str
    sight: NetworkSight
    raw: NDArray[np.uint8] | NDArray[np.float32]


def filters(title: str, shown: Sequence[Shown]) -> Figure:
    """First kernels and most exciting patches of one network, or of several side by side.

    Args:
        title: What the picture is about.
        shown: One or two networks of as many stages on images of one shape.
    """
    columns = TILES if len(shown) == 1 else TILES // 2
    width = (WIDTH - 2 * _EDGE - _GUTTER * (len(shown) - 1)) / len(shown)
    page = _Page(columns, width)
    kernels = max(min(KERNELS, len(each.sight.kernels)) for each in shown)
    rows = [_rows(shown, stage, columns) for stage in range(len(shown[0].sight.stages))]
    said = textwrap.wrap(_small_print(shown), 116)
    stages = sum(page.stage_height(each) for each in rows)
    height = _TOP + page.kernels_height(kernels) + stages + _EDGE + _LINE * len(said)
    with paper(height) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.text(_EDGE, 0.13, title, size=14, weight="bold", va="top")
        axes.text(_EDGE, 0.42, _EXPLANATION, size=9.5, va="top", linespacing=1.3)
        for number, each in enumerate(shown):
            left, top = _EDGE + number * (width + _GUTTER), _TOP
            axes.text(left, top - 0.13, each.title, size=11, weight="bold", color=each.colour, va="center")
            _draw_kernels(axes, page, each, left, top, kernels)
            top += page.kernels_height(kernels)
            for stage, deep in enumerate(rows):
                most = max(other.sight.stages[stage].filters for other in shown)
                _draw_stage(axes, page, each, stage, left, top, most)
                top += page.stage_height(deep)
        axes.text(_EDGE, height - 0.1, "\n".join(said), size=9, color=GREY, va="bottom", linespacing=1.3)
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
    return figure


_EXPLANATION = (
    f"Each square of {_SIDE} by {_SIDE} is one filter: the parts of {PATCHES} validation images to which it responds "
    "most.\nBars are a stage's filters; the dark part is how many are in effect, fewer where filters vary together."
)


@dataclass(frozen=True)
class _Page:
    """Sizes in inches: a network's width, cut into columns of tiles."""

    columns: int
    width: float

    @property
    def tile(self) -> float:
        return (self.width - _GAP * (self.columns - 1)) / self.columns

    def kernel_columns(self, kernels: int) -> int:
        return 2 * self.columns if kernels <= 4 * self.columns else 3 * self.columns

    def kernels_height(self, kernels: int) -> float:
        return _HEADING + math.ceil(kernels / self.kernel_columns(kernels)) * self.kernel_step(kernels) + _AFTER

    def kernel_step(self, kernels: int) -> float:
        return (self.width + _CRACK) / self.kernel_columns(kernels)

    def stage_height(self, rows: int) -> float:
        return _HEADING + 2 * _BAR + rows * (self.tile + _GAP) - _GAP + _AFTER


def _rows(shown: Sequence[Shown], stage: int, columns: int) -> int:
    tiles = max(len(each.sight.stages[stage].evenly(TILES)) for each in shown)
    return max(1, math.ceil(tiles / columns))


def _draw_kernels(axes: Axes, page: _Page, shown: Shown, left: float, top: float, kernels: int) -> None:
    found = shown.sight.kernels
    count, _, height, width = found.shape
    which = f"{count} kernels" if count <= KERNELS else f"{KERNELS} of {count} kernels"
    axes.text(left, top + _HEADING / 2, f"First convolution: {which} of {height}x{width}", va="center")
    step = page.kernel_step(kernels)
    frames = []
    for place, kernel in enumerate(found[:KERNELS]):
        row, column = divmod(place, page.kernel_columns(kernels))
        corner = left + column * step, top + _HEADING + row * step
        _draw(axes, _kernel_pixels(kernel), *corner, step - _CRACK)
        frames.append(Rectangle(corner, step - _CRACK, step - _CRACK))
    pale = _pale(shown.colour)
    axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor=pale, linewidth=1.4, zorder=2))


def _draw_stage(axes: Axes, page: _Page, shown: Shown, stage: int, left: float, top: float, most: int) -> None:
    found = shown.sight.stages[stage]
    dead = f", {found.dead} dead" if found.dead else ""
    said = f"Stage {stage + 1}: {found.filters} filters, {found.effective:.1f} in effect{dead}"
    axes.text(left, top + _HEADING / 2, said, va="center")
    field = f"sees {found.rows.size}x{found.columns.size}"
    axes.text(left + page.width, top + _HEADING / 2, field, color=GREY, va="center", ha="right")
    scale = page.width / most
    _draw_bar(axes, found, left, top + _HEADING, scale, shown.colour)
    top += _HEADING + 2 * _BAR
    low, high = float(shown.raw.min()), float(shown.raw.max())
    for place, chosen in enumerate(found.evenly(TILES)):
        row, column = divmod(place, page.columns)
        patches = [_patch_pixels(*patch, low, high) for patch in found.patches(chosen, shown.raw)]
        step = page.tile + _GAP
        _draw(axes, _square(patches, shown.colour), left + column * step, top + row * step, page.tile)


def _draw_bar(axes: Axes, found: StageSight, left: float, top: float, scale: float, colour: str) -> None:
    """Dark as far as filters are in effect, light for the other living ones, empty for the dead."""
    living = found.filters - found.dead
    pale = tuple(_pale(colour))
    axes.add_patch(Rectangle((left, top), scale * living, _BAR, color=pale, linewidth=0))
    axes.add_patch(Rectangle((left, top), scale * found.effective, _BAR, color=colour, linewidth=0))
    if scale > 2 * _CRACK / 3:  # else lines between filters would fill the bar
        edges = left + scale * np.arange(1, living)
        axes.vlines(edges, top, top + _BAR, color="white", linewidth=0.8)
    if found.dead:
        dead = (left + scale * living, top), scale * found.dead, _BAR
        axes.add_patch(Rectangle(*dead, fill=False, edgecolor=pale, linewidth=0.8))


def _draw(axes: Axes, pixels: Pixels, left: float, top: float, side: float) -> None:
    """Pixels in a square, as sharp as they are."""
    axes.imshow(
        pixels, extent=(left, left + side, top + side, top), aspect="auto", interpolation="none", vmin=0, vmax=1
    )


def _kernel_pixels(kernel: NDArray[np.float32]) -> Pixels:
    """A kernel `(channels, height, width)` as `(height, width, 3)`: middle grey is 0, the largest weight full."""
    shown = kernel if len(kernel) == 3 else kernel.sum(axis=0, keepdims=True)
    scaled = 0.5 + 0.5 * shown / max(float(np.abs(shown).max()), 1e-12)
    return _colours(scaled.astype(np.float64))


def _patch_pixels(patch: NDArray[np.generic], inside: NDArray[np.bool_], low: float, high: float) -> Pixels:
    """A patch `(channels, height, width)` as `(height, width, 3)` between 0 and 1, grey beyond the image."""
    values = patch.astype(np.float64)
    shown = values if len(values) == 3 else values.mean(axis=0, keepdims=True)
    pixels = _colours((shown - low) / max(high - low, 1e-12))
    pixels[~inside] = _BEYOND
    return pixels


def _colours(values: Pixels) -> Pixels:
    """Channels last, three of them."""
    return np.repeat(np.moveaxis(values, 0, 2), 3 // len(values), axis=2)


def _square(patches: Sequence[Pixels], colour: str) -> Pixels:
    """Patches in rows and columns on pale colour, each in the middle of its cell; shape `(side, side, 3)`."""
    patches = [_resized(patch) for patch in patches]
    cell = max(patches[0].shape[:2])
    gap = round(cell / 16)
    square = np.empty((_SIDE * (cell + gap) + gap,) * 2 + (3,))
    square[:] = _pale(colour)
    for place, patch in enumerate(patches):
        row, column = (gap + each * (cell + gap) for each in divmod(place, _SIDE))
        height, width = patch.shape[:2]
        row, column = row + (cell - height) // 2, column + (cell - width) // 2
        square[row : row + height, column : column + width] = patch
    return square


def _pale(colour: str) -> Pixels:
    """Of a network's colour, on white; shape `(3,)`."""
    return 1 - _PALE + _PALE * np.array(to_rgb(colour))


def _resized(patch: Pixels) -> Pixels:
    """Small ones repeated pixel by pixel, large ones averaged."""
    longer = max(patch.shape[:2])
    if longer < _COARSEST:
        times = math.ceil(_FINEST / longer)
        return patch.repeat(times, axis=0).repeat(times, axis=1)
    height, width = (max(1, round(side * _COARSEST / longer)) for side in patch.shape[:2])
    image = Image.fromarray((255 * patch).round().astype(np.uint8)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image) / 255


def _small_print(shown: Sequence[Shown]) -> str:
    channels = shown[0].sight.kernels.shape[1]
    kernel = {1: "black is negative, white positive", 3: "one colour for each channel"}.get(
        channels, "the sum over channels, black negative"
    )
    return (
        f"Kernels: middle grey is 0, {kernel}; each is scaled by itself. Of a stage up to {TILES} filters are shown, "
        "evenly spaced from most to least variance. Sees: the receptive field in pixels. Plain grey lies beyond the "
        "image; cells are empty where no further image excites the filter. One brief training each: an illustration, "
        "not evidence."
    )
