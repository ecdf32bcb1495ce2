"""The collect phase of the display, with a fake reporter."""

from collections import Counter

from expert_iteration.reporting import Collecting


class FakeReporter:
    def __init__(self):
        self.events: list[object] = []

    def phase(self, name, total, iteration):
        assert name == "collect"
        self.events.append(("open", total, iteration))
        return self

    def close(self):
        self.events.append("close")

    def advance(self, phase, amount, live):
        assert phase == "collect"
        self.events.append((amount, live["selection/kept"]))


def totals(rollouts, kept):
    return Counter(rollouts=rollouts, tokens=10 * rollouts, kept=kept)


def test_one_phase_is_open_while_any_order_is_out():
    reporter = FakeReporter()
    collecting = Collecting(reporter, total=8)
    collecting.order_out(1)
    collecting.order_out(1)
    collecting.order_back(totals(4, 1))
    collecting.order_back(totals(8, 3))
    assert reporter.events == [("open", 8, 1), (4, 1.0), (4, 3.0), "close"]


def test_each_phase_counts_what_came_since_it_was_opened():
    reporter = FakeReporter()
    collecting = Collecting(reporter, total=None)
    collecting.look(totals(100, 50))  # a resumed run has these from before
    collecting.order_out(3)
    collecting.look(totals(104, 51))
    collecting.order_back(totals(110, 55))
    assert reporter.events == [("open", None, 3), (4, 1.0), (6, 5.0), "close"]


def test_seconds_of_collecting_are_handed_out_once():
    collecting = Collecting(FakeReporter(), total=None)
    assert collecting.take_seconds() == 0
    collecting.order_out(1)
    first = collecting.take_seconds()
    collecting.order_back(totals(1, 1))
    assert first > 0
    assert collecting.take_seconds() > 0
    assert collecting.take_seconds() == 0
