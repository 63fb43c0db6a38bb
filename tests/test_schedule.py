import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import ConfigError
from search.schedule import FilterSchedule

filters = st.lists(st.integers(1, 2**40), min_size=1, max_size=12).map(tuple)


@given(filters)
def test_the_text_form_reads_back(values):
    schedule = FilterSchedule(values)
    assert FilterSchedule.parse(str(schedule)) == schedule
    assert len(schedule) == len(values)


def test_the_text_form_is_filters_joined_by_dashes():
    assert str(FilterSchedule((8, 16, 32))) == "8-16-32"


@pytest.mark.parametrize(
    "text", ["", "8-", "-8", "8--16", "8-0-4", "a", "8-1.5", "8 - 16", "+8", "1_0", "08", "٨", "9" * 99]
)
def test_other_text_is_refused_with_an_example(text):
    with pytest.raises(
        ConfigError, match="is no schedule; write the filters of each stage joined by '-', such as 8-16-32"
    ):
        FilterSchedule.parse(text)


@pytest.mark.parametrize("values", [(), (0,), (4, -1)])
def test_a_stage_has_filters(values):
    with pytest.raises(ValueError, match="one or more stages of at least 1 filter"):
        FilterSchedule(values)


def test_ratios_are_taken_between_neighbours():
    assert FilterSchedule((8, 16, 4)).ratios == (2.0, 0.25)
    assert FilterSchedule((8,)).ratios == ()


@given(filters, filters)
def test_equal_filters_are_one_schedule(one, other):
    assert (FilterSchedule(one) == FilterSchedule(other)) == (one == other)
    assert len({FilterSchedule(one), FilterSchedule(one)}) == 1
