"""What a trained network's filters respond to: first kernels, most exciting patches, filters in use.

Owns the measurement. Knows nothing of studies, and draws nothing.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from search.activity import Moments, effective_number, stages_of, watch

PATCHES = 9
"""Patches kept of every filter, of as many images: a square of three by three, as Zeiler (2013, 1311.2901) has it."""
_CANVASES = (1, 2, 4)
"""Sides of the canvases to find a receptive field on, in those of the image; on 4 none smaller than it is cut off."""


@dataclass(frozen=True)
class Field:
    """The receptive field along one axis of the image: what of it one unit can depend on.

    Attributes:
        size: Pixels a unit sees, at most the image's.
        start: First pixel the unit at position 0 sees, below 0 where that is padding.
        step: Pixels from a unit's field to that of its neighbour.
    """

    size: int
    start: int = 0
    step: int = 0

    def of(self, position: int) -> tuple[int, int]:
        """First pixel and the one after the last that the unit at a position sees, beyond the image where padded."""
        first = self.start + position * self.step
        return first, first + self.size


@dataclass(frozen=True, eq=False)
class StageSight:
    """What one stage's filters respond to.

    Attributes:
        variances: Of each filter's outputs over images and positions, shape `(filters,)`.
        effective: Effective number of filters; see `activity.effective_number`.
        dead: Filters with the same output everywhere in all images, as a ReLU's that is never positive.
        rows: Receptive field along the height.
        columns: Along the width.
        images: Of each filter the images with its highest responses, highest first, one place in each; shape
            `(filters, n_patches)`.
        places: Row and column of those responses in the stage's output, shape `(filters, n_patches, 2)`.
        responses: The responses, shape `(filters, n_patches)`.
        least: Each filter's least output anywhere, shape `(filters,)`; of a ReLU mostly 0.
    """

    variances: NDArray[np.float64]
    effective: float
    dead: int
    rows: Field
    columns: Field
    images: NDArray[np.int64]
    places: NDArray[np.int64]
    responses: NDArray[np.float32]
    least: NDArray[np.float32]

    @property
    def filters(self) -> int:
        """How many the stage has."""
        return len(self.variances)

    def evenly(self, most: int) -> list[int]:
        """Filters to show: evenly over the living ones from most to least variance, first and last included."""
        living = np.argsort(-self.variances, kind="stable")[: self.filters - self.dead]
        places = np.linspace(0, len(living) - 1, min(most, len(living))).round().astype(int)
        return [int(living[place]) for place in places]

    def patches(
        self, chosen: int, raw: NDArray[np.generic]
    ) -> Iterator[tuple[NDArray[np.generic], NDArray[np.bool_]]]:
        """The patches that excite one filter most, best first; fewer where so few images do at all.

        Args:
            chosen: The filter.
            raw: The images as stored, in the order they were looked at, `(n_images, channels, height, width)`.

        Yields:
            Pixels `(channels, height, width)` of the receptive field, and which of them are the image's, shape
            `(height, width)`; the others are 0.
        """
        excited = self.responses[chosen] > self.least[chosen]
        for image, (row, column) in zip(self.images[chosen, excited], self.places[chosen, excited], strict=True):
            yield _cut(raw[image], self.rows.of(int(row)), self.columns.of(int(column)))


@dataclass(frozen=True, eq=False)
class NetworkSight:
    """What a network's filters respond to.

    Attributes:
        kernels: Those of the first convolution, `(filters, channels, height, width)`.
        stages: One for each stage.
    """

    kernels: NDArray[np.float32]
    stages: tuple[StageSight, ...]


@dataclass(frozen=True)
class Unseen:
    """A network that cannot be looked into, and why, in a clause."""

    reason: str


def look(network: nn.Module, images: Tensor) -> NetworkSight | Unseen:
    """What a trained network's filters respond to.

    Args:
        network: Its stages are its children `stage1`, `stage2`, ...; left in evaluation mode.
        images: As the network was trained to see them, `(n_images, channels, height, width)`, on its device.

    Returns:
        `Unseen` for a network of the user's own without such children, or whose stages make no feature maps.
    """
    stages = stages_of(network)
    first = next((each for each in network.modules() if isinstance(each, nn.Conv2d)), None)
    if not stages:
        return Unseen("it has no children named stage1, stage2 and so on")
    if first is None or first.in_channels != images.shape[1]:
        return Unseen("its first convolution does not see the images")
    watchers = [_Watcher() for _ in stages]
    try:
        watch(network, images, watchers)
    except _NoMapError:
        return Unseen("a stage's output is no feature map (batch, filters, height, width)")
    if not all(each.maxima for each in watchers):
        return Unseen("a child named like a stage is not called as a module")
    fields = receptive_fields(network, (images.shape[1], images.shape[2], images.shape[3]))
    found = tuple(each.sight(*field) for each, field in zip(watchers, fields, strict=True))
    return NetworkSight(first.weight.detach().float().cpu().numpy(), found)


def receptive_fields(network: nn.Module, image_shape: tuple[int, int, int]) -> list[tuple[Field, Field]]:
    """Height and width of what a unit of each stage can depend on through convolutions and pooling.

    Read off the network itself, whatever its branches: where the gradient of a unit amid the image is not 0, all
    weights made positive, so that nothing cancels, and maxima made means, so that no pixel loses; on a larger canvas
    where that reaches an edge. What is pooled over the whole map, as the gates of squeeze-and-excitation are, is left
    out: it makes every unit depend on every pixel a little. Where the network takes no larger canvas, such a field is
    said to be the whole image. Too small may come out what is maximised by a function in place of a module.

    Args:
        network: Its stages are its children `stage1`, `stage2`, ...; left as it is.
        image_shape: Channels, height and width.

    Returns:
        A field along the rows and one along the columns for each stage.
    """
    channels, *sides = image_shape
    traced = _positive(network)
    outputs: list[Tensor] = []
    for stage in stages_of(traced):
        stage.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    fields: list[list[Field | None]] = [[None, None] for _ in stages_of(traced)]
    for factor in _CANVASES:
        canvas = torch.ones(1, channels, *(factor * side for side in sides), dtype=torch.double, requires_grad=True)
        outputs.clear()
        try:
            traced(canvas)
        except Exception:  # after the stages, of a head of fixed size; before, there is nothing to go by
            if len(outputs) < len(fields):
                break
        for known, output in zip(fields, outputs, strict=True):
            if None in known:
                known[:] = [old or new for old, new in zip(known, _fields(canvas, output, sides), strict=True)]
        if not any(None in known for known in fields):
            break
    return [(rows or Field(sides[0]), columns or Field(sides[1])) for rows, columns in fields]


def _fields(canvas: Tensor, output: Tensor, sides: list[int]) -> list[Field | None]:
    """Along both axes; None where the canvas is too small to tell."""
    middle = [length // 2 for length in output.shape[2:]]
    spans = []
    for back in (0, 1):  # a unit and the one before it on both axes
        unit = output[0, :, max(0, middle[0] - back), max(0, middle[1] - back)].sum()
        (gradient,) = torch.autograd.grad(unit, canvas, retain_graph=True)
        lit = gradient[0].sum(0) > 0
        spans.append([lit.any(dim=1 - axis).nonzero().flatten().tolist() for axis in (0, 1)])
    fields: list[Field | None] = []
    for axis, side in enumerate(sides):
        here, before = spans[0][axis], spans[1][axis]
        step, size = here[0] - before[0], here[-1] - here[0] + 1
        if size >= side:
            fields.append(Field(side))
        elif step > 0 and before[0] > 0 and here[-1] < canvas.shape[2 + axis] - 1:
            fields.append(Field(size, here[0] - middle[axis] * step, step))
        else:
            fields.append(None)
    return fields


def _positive(network: nn.Module) -> nn.Module:
    """A copy in which every output grows with every input it depends on."""
    copied = copy.deepcopy(network).cpu().double().eval().requires_grad_(False)
    for parameter in copied.parameters():
        parameter.fill_(1 / parameter[0].numel() if parameter.ndim > 1 else 1.0)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, _Mean(child))
            elif isinstance(child, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
                child.register_forward_hook(lambda module, inputs, output: output.detach())
            elif type(child).__module__ in _POINTWISE:
                setattr(module, name, nn.Identity())
    return copied


_POINTWISE = tuple(
    f"torch.nn.modules.{kind}" for kind in ("activation", "batchnorm", "instancenorm", "normalization", "dropout")
)


class _Mean(nn.Module):
    """A depthwise convolution of ones in a maximum's place, which sees the same pixels."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self._pool = pool

    def forward(self, features: Tensor) -> Tensor:
        pool = self._pool
        size = pool.kernel_size if isinstance(pool.kernel_size, tuple) else (pool.kernel_size, pool.kernel_size)
        ones = features.new_ones(features.shape[1], 1, *size)
        return functional.conv2d(
            features, ones, None, pool.stride, pool.padding, pool.dilation, groups=features.shape[1]
        )


class _NoMapError(Exception):
    """A stage's output is no feature map."""


class _Watcher:
    """Collects what one stage says of every image."""

    def __init__(self) -> None:
        self.maxima: list[Tensor] = []
        self._places: list[Tensor] = []
        self._least: list[Tensor] = []
        self._moments = Moments()
        self._width = 1

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise _NoMapError
        self._moments(module, inputs, output)
        self._width = output.shape[3]
        flat = output.flatten(2)
        most, place = flat.max(2)
        self.maxima.append(most.cpu())
        self._places.append(place.cpu())
        self._least.append(flat.amin((0, 2)).cpu())

    def sight(self, rows: Field, columns: Field) -> StageSight:
        covariance = self._moments.covariance()
        most, places = torch.cat(self.maxima).numpy(), torch.cat(self._places).numpy()
        best = np.argsort(-most, axis=0, kind="stable")[:PATCHES].T
        filters = np.arange(most.shape[1])[:, None]
        least = torch.stack(self._least).amin(0).numpy()
        dead = least == most.max(axis=0)
        found = places[best, filters]
        return StageSight(
            np.where(dead, 0.0, np.diagonal(covariance)),
            effective_number(covariance),
            int(dead.sum()),
            rows,
            columns,
            best,
            np.stack([found // self._width, found % self._width], axis=2),
            most[best, filters],
            least,
        )


def _cut(
    image: NDArray[np.generic], rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    _, height, width = image.shape
    (top, bottom), (left, right) = rows, columns
    patch = np.zeros((len(image), bottom - top, right - left), image.dtype)
    inside = np.zeros(patch.shape[1:], dtype=bool)
    within = slice(max(0, -top), min(bottom, height) - top), slice(max(0, -left), min(right, width) - left)
    patch[:, *within] = image[:, max(0, top) : bottom, max(0, left) : right]
    inside[within] = True
    return patch, inside
