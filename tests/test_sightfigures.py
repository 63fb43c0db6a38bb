import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from search import drawing, sightfigures
from search.filtersight import PATCHES, Field, NetworkSight, StageSight
from search.sightfigures import Shown, filters


def _stage(count, effective, dead, field, places, rng):
    variances = np.sort(rng.uniform(1, 2, count))[::-1].copy()
    variances[count - dead :] = 0
    responses = np.sort(rng.uniform(1, 2, (count, PATCHES)))[:, ::-1]
    return StageSight(
        variances,
        effective,
        dead,
        field,
        field,
        rng.integers(0, 12, (count, PATCHES)),
        rng.integers(0, places, (count, PATCHES, 2)),
        responses.astype(np.float32),
        np.zeros(count, np.float32),
    )


def _shown(schedule, title="best confirmed", colour=drawing.BLUE, channels=1, side=8, dead=0):
    rng = np.random.default_rng(len(schedule))
    kernels = rng.normal(size=(schedule[0], channels, 3, 3)).astype(np.float32)
    stages = tuple(
        _stage(count, count / 2.5, dead, Field(min(side, 3 + 5 * number), -1, 2), side // 2, rng)
        for number, count in enumerate(schedule)
    )
    raw = rng.integers(0, 256, (12, channels, side, side), dtype=np.uint8)
    return Shown(f"{title}: {'-'.join(map(str, schedule))}", colour, NetworkSight(kernels, stages), raw)


_PAIRS = {
    "digits": [_shown((12, 6, 10)), _shown((4, 7, 15), "doubling", drawing.VERMILLION)],
    "one network": [_shown((4, 7, 15), "best confirmed, itself doubling")],
    "five stages": [_shown((64, 128, 256, 512, 512), dead=30), _shown((24,) * 5, "doubling", drawing.VERMILLION)],
    "large colour images": [_shown((40, 3, 9), channels=3, side=224), _shown((16, 32, 64), channels=3, side=224)],
    "two channels": [_shown((3, 2), channels=2, side=20)],
}


@pytest.fixture(params=_PAIRS.values(), ids=_PAIRS)
def shown(request):
    return request.param


def _texts(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [(text, text.get_window_extent(canvas.get_renderer())) for text in texts]


def _boxes(figure):
    """Left, right, top and bottom of every image drawn, in inches."""
    found = []
    for image in figure.axes[0].images:
        left, right, bottom, top = image.get_extent()
        found.append((left, right, top, bottom))
    return found


def test_labels_are_legible_inside_the_figure_and_apart(shown):
    figure = filters("What the filters see within 1,048,576 activations", shown)
    width, height = figure.get_size_inches() * figure.dpi
    texts = _texts(figure)
    for text, box in texts:
        assert text.get_fontsize() >= 9, text.get_text()
        assert box.x0 >= 0, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.x1 <= width, text.get_text()
        assert box.y1 <= height, text.get_text()
    for (a, box), (b, other) in itertools.combinations(texts, 2):
        assert not box.shrunk(0.98, 0.9).overlaps(other.shrunk(0.98, 0.9)), (a.get_text(), b.get_text())


def test_kernels_and_squares_lie_inside_the_page_and_apart_from_each_other_and_from_text(shown):
    figure = filters("What the filters see", shown)
    width, height = figure.get_size_inches()
    boxes = _boxes(figure)
    for left, right, top, bottom in boxes:
        assert (left, top) >= (0, 0)
        assert right <= width
        assert bottom <= height
        assert right - left == pytest.approx(bottom - top)  # squares stay square
    for (left, right, top, bottom), (l2, r2, t2, b2) in itertools.combinations(boxes, 2):
        assert right < l2 or r2 < left or bottom < t2 or b2 < top
    for text, box in _texts(figure):
        for left, right, top, bottom in boxes:
            apart = box.x1 < left * figure.dpi or box.x0 > right * figure.dpi
            above = box.y0 > (height - top) * figure.dpi or box.y1 < (height - bottom) * figure.dpi
            assert apart or above, text.get_text()


def test_every_kernel_and_at_most_eight_filters_of_a_stage_are_drawn():
    figure = filters("digits", _PAIRS["digits"])
    assert len(figure.axes[0].images) == (12 + 8 + 6 + 8) + (4 + 4 + 7 + 8)
    wide = filters("five", _PAIRS["five stages"][:1])
    assert len(wide.axes[0].images) == sightfigures.KERNELS + 5 * sightfigures.TILES
    assert "36 of 64 kernels" in " ".join(text.get_text() for text, _ in _texts(wide))


def test_headings_say_what_is_in_use_and_what_a_unit_sees():
    said = [text.get_text() for text, _ in _texts(filters("five", _PAIRS["five stages"]))]
    assert "Stage 4: 512 filters, 204.8 in effect, 30 dead" in said
    assert "Stage 1: 24 filters, 9.6 in effect" in said
    assert said.count("sees 3x3") == 2


def test_bars_are_as_long_as_the_filters_and_their_dark_part_as_those_in_effect():
    axes = filters("digits", _PAIRS["digits"]).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    living, used = widths[0::2], widths[1::2]
    assert living[0] / living[3] == pytest.approx(12 / 4)  # first stages on one scale, and so on
    assert living[2] / living[5] == pytest.approx(10 / 15)
    assert [part / whole for part, whole in zip(used, living, strict=True)] == pytest.approx([1 / 2.5] * 6)


def test_a_kernel_is_grey_where_it_is_0_and_full_where_it_is_largest():
    (one,) = _PAIRS["one network"]
    kernel = np.array([[[[-2.0, 0, 1]]]], np.float32)
    figure = filters("kernel", [replace(one, sight=replace(one.sight, kernels=kernel))])
    pixels = figure.axes[0].images[0].get_array()
    assert pixels.shape == (1, 3, 3)
    assert pixels[0].tolist() == [[0.0] * 3, [0.5] * 3, [0.75] * 3]


def test_a_square_holds_the_patches_of_one_filter_and_grey_beyond_the_image():
    one = _shown((1,), side=30)
    stage = one.sight.stages[0]
    stage.images[:], stage.places[:] = 3, 0
    stage.places[0, 1] = 4  # sees rows and columns 7 to 9
    figure = filters("patches", [replace(one, sight=replace(one.sight, stages=(replace(stage, dead=0),)))])
    square = np.asarray(figure.axes[0].images[1].get_array())
    times, gap = 10, 2  # a patch of 3 pixels is 30 wide
    first, second = (square[gap : gap + 30, left : left + 30] for left in (gap, 2 * gap + 30))
    assert (first[:times] == sightfigures._BEYOND).all()
    assert (first[:, :times] == sightfigures._BEYOND).all()
    low, high = float(one.raw.min()), float(one.raw.max())
    expected = (one.raw[3, 0, 7:10, 7:10] - low) / (high - low)
    assert second[times // 2 :: times, times // 2 :: times, 0] == pytest.approx(expected)


def test_a_filter_with_few_patches_leaves_cells_empty():
    one = _shown((1,))
    stage = one.sight.stages[0]
    stage.responses[0, 4:] = 0
    square = np.asarray(filters("few", [one]).axes[0].images[1].get_array())
    cell = square.shape[0] // 3
    corner = square[-cell + 4 : -4, -cell + 4 : -4].reshape(-1, 3)
    assert len(np.unique(corner, axis=0)) == 1


def test_a_stage_of_dead_filters_can_be_drawn():
    assert filters("dead", [_shown((4, 3), dead=3)])


@pytest.mark.parametrize("name", ["digits", "large colour images"])
def test_the_same_picture_is_the_same_file_and_loads_nothing(name):
    shown = _PAIRS[name]
    first, second = (drawing.to_svg(filters("same", shown)) for _ in range(2))
    assert first == second
    assert set(re.findall(r'href="(data:image/png|#|[^"]{4})', first)) <= {"data:image/png", "#"}
    assert drawing.to_png(filters("same", shown)) == drawing.to_png(filters("same", shown))
