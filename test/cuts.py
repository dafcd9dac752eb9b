"""What is sent to disks and answered, in one order, and whether what is found is all of it up to one moment.

A disk is a row of cells, blocks or files, each of which has one writer at a time; what is written has a number of its
own, and 0 is nothing. What is found in the cells of one or more disks is a cut when there is a moment at which they had
just that: whatever had been answered before anything that is there was sent, is there too."""
import itertools
import math


class Change:
    """What one request makes of its cells."""
    __slots__ = ("value", "sent", "answered")

    def __init__(self, value, sent, answered=math.inf):
        self.value, self.sent, self.answered = value, sent, answered

    def __str__(self):
        answer = "not answered" if math.isinf(self.answered) else f"answered at {self.answered}"
        return f"{self.value} (sent at {self.sent}, {answer})"


class Clock:
    """An order of all that the threads of this process do."""

    def __init__(self):
        self.now = itertools.count(1).__next__


class History:
    """What became of the cells of one disk, from a state that was found or made."""

    def __init__(self, values):
        self.cells = [[Change(value, 0, 0)] for value in values]
        self.durable = 0  # what was answered before that survives a crash
        self.left = None  # what was found in the end

    def begin(self, cells, value, now):
        """Before a request is sent."""
        change = Change(value, now)
        for cell in cells:
            self.cells[cell].append(change)
        return change

    def make_durable(self, order):
        self.durable = max(self.durable, order)

    def last(self, cell):
        return self.cells[cell][-1].value


class Part:
    """What was found of one disk; what was answered before FLOOR must be there."""

    def __init__(self, name, history, values, floor):
        assert len(values) == len(history.cells), f"{name}: {len(values)} cells, not {len(history.cells)}"
        self.name, self.floor = name, floor
        self.cells = list(zip(history.cells, values))
        self.chosen = []

    def first(self, cell):
        """Several changes may have made the same of a cell, such as nothing: the first that may be the one."""
        changes, value = self.cells[cell]
        found = None
        for index, change in enumerate(changes):
            if change.value == value:
                found = index
                if self.following(changes, index).answered > self.floor:
                    return index
        if found is None:
            raise AssertionError(f"{self.name}: cell {cell} has {value}, which is none of {say(changes)}")
        raise AssertionError(f"{self.name}: cell {cell} has {value}, and not what was answered before {self.floor}: "
                             f"{say(changes)}")

    @staticmethod
    def following(changes, index):
        return changes[index + 1] if index + 1 < len(changes) else NEVER

    def absent(self, cell):
        """The first that is not there."""
        return self.following(self.cells[cell][0], self.chosen[cell])

    def present(self):
        return (changes[index] for (changes, _), index in zip(self.cells, self.chosen))

    def go_on(self, cell):
        """Takes the next that made the same; False: there is none."""
        changes, value = self.cells[cell]
        for index in range(self.chosen[cell] + 1, len(changes)):
            if changes[index].value == value:
                self.chosen[cell] = index
                return True
        return False


    def expect_not_after(self, left):
        """What was found later, LEFT, is the same or newer."""
        for cell, ((changes, _), chosen) in enumerate(zip(self.cells, self.chosen)):
            assert any(change.value == left[cell] for change in changes[chosen:]), \
                f"{self.name}: cell {cell} has {changes[chosen]}, and the disk had {left[cell]} later: {say(changes)}"


NEVER = Change(0, math.inf)


def say(changes):
    return ", ".join(str(change) for change in changes[-6:])


def settle(parts, whole):
    """Chooses what is no cut by itself as late as it must be."""
    while True:
        latest = max((change for part in parts for change in part.present()), key=lambda change: change.sent)
        there = {id(change) for part in parts for change in part.present()} if whole else set()
        moved = False
        for part in parts:
            for cell in range(len(part.cells)):
                absent = part.absent(cell)
                if absent.answered >= latest.sent and id(absent) not in there:
                    continue
                if not part.go_on(cell):
                    raise AssertionError(f"{part.name}: cell {cell} has not {absent}, while {latest} is there")
                moved = True
        if not moved:
            return latest


def expect_cut(parts, ceiling, whole=True):
    """PARTS, taken together, are a cut in which nothing is that was sent after CEILING; WHOLE: no request is there in
    part."""
    for part in parts:
        part.chosen = [part.first(cell) for cell in range(len(part.cells))]
    latest = settle(parts, whole)
    assert latest.sent < ceiling, f"{[part.name for part in parts]}: {latest} is there, and was sent after {ceiling}"


def expect_known(part):
    """What is there was sent, and what was answered before the floor is there."""
    part.chosen = [part.first(cell) for cell in range(len(part.cells))]
