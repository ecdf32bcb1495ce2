"""How far a single piece of work is, in one line."""

import io

from expert_iteration.reporting.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Shows the time that it was set to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_sees_one_line_with_the_time_that_is_left():
    terminal, clock = Terminal(), Clock()
    progress = Progress(40, "answers", terminal, clock)
    clock.now += 30
    progress.advance(10)
    clock.now += 30
    progress.advance(10)
    progress.end()
    assert terminal.getvalue() == (
        "\r[0:00:30] 10/40 answers (25%), 0:01:30 left\x1b[K"
        "\r[0:01:00] 20/40 answers (50%), 0:01:00 left\x1b[K\n"
    )


def test_elsewhere_a_line_comes_now_and_then_and_at_the_end():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(40, "prompts", stream, clock)
    for _ in range(40):
        clock.now += 1
        progress.advance(1)
    progress.end()
    assert stream.getvalue().splitlines() == [
        "[0:00:10] 10/40 prompts (25%), 0:00:30 left",
        "[0:00:20] 20/40 prompts (50%), 0:00:20 left",
        "[0:00:30] 30/40 prompts (75%), 0:00:10 left",
        "[0:00:40] 40/40 prompts (100%), 0:00:00 left",
    ]
