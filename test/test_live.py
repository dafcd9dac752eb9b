"""Disks that are sealed, forked, grown and given other modes at random while guests use them.

What was sealed is what the disks were at one moment of the command."""
import pytest

from cuts import History, Part, expect_cut


def two_histories():
    """Of two disks with two cells each: one request after the other, a larger one, and one without an answer."""
    histories = [History([0, 0]), History([0, 0])]
    for order, (disk, cells, value) in enumerate([(0, [0], 1), (1, [0], 2), (0, [0, 1], 3), (1, [0], 0), (1, [0], 4)]):
        change = histories[disk].begin(cells, value, 10 * order + 10)
        change.answered = 10 * order + 15
    histories[1].begin([1], 5, 60)
    return histories


@pytest.mark.parametrize("first,second,good", [
    ([0, 0], [0, 0], True), ([1, 0], [0, 0], True), ([1, 0], [2, 0], True), ([3, 3], [2, 0], True),
    ([3, 3], [0, 0], True), ([3, 3], [4, 0], True), ([3, 3], [4, 5], True), ([3, 3], [0, 5], False),
    ([0, 0], [2, 0], False), ([3, 0], [2, 0], False), ([1, 0], [4, 0], False), ([1, 0], [2, 5], False),
    ([7, 0], [0, 0], False), ([3, 3], [2, 2], False)])
def test_what_is_no_cut_is_found(first, second, good):
    parts = [Part(name, history, values, 0)
             for name, history, values in zip(("one", "two"), two_histories(), (first, second))]
    if good:
        expect_cut(parts, 100)
    else:
        with pytest.raises(AssertionError):
            expect_cut(parts, 100)


def test_a_cut_at_another_time_is_found():
    """Before the command was sent, or after it was answered."""
    for values, floor, ceiling, good in (([1, 0], 20, 100, True), ([1, 0], 36, 100, False), ([3, 3], 36, 31, True),
                                         ([3, 3], 36, 30, False)):
        part = Part("one", two_histories()[0], values, floor)
        if good:
            expect_cut([part], ceiling)
        else:
            with pytest.raises(AssertionError):
                expect_cut([part], ceiling)
