"""Attempts and pauses on a clock of the test's own."""

import contextlib
import itertools
import types

import pytest

from mrcnn_tf.remote import retries
from mrcnn_tf.remote.failures import ServerError, first_line


class Clock:
    """Sleeping moves it on; so does an attempt, as the test says."""

    def __init__(self):
        self.now = 0.0
        self.pauses = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(retries, "time", clock)
    monkeypatch.setattr(retries, "random", types.SimpleNamespace(uniform=lambda low, high: 1.0))
    return clock


def failing(times, clock=None, seconds=0.0, is_temporary=True):
    """An attempt that fails so often, and notes what it was given."""
    given = []
    count = itertools.count(1)

    def attempt(timeout_s):
        given.append(timeout_s)
        if clock:
            clock.now += seconds
        if next(count) <= times:
            raise ServerError("busy", is_temporary)
        return "answer"

    return attempt, given


def test_pauses_double_and_the_rest_of_the_deadline_is_handed_on(clock):
    attempt, given = failing(3, clock, seconds=1.0)
    assert retries.Retries(60.0).call(attempt) == "answer"
    assert clock.pauses == [0.25, 0.5, 1.0]
    assert given == [60.0, 58.75, 57.25, 55.25]


def test_five_attempts_are_all(clock):
    attempt, given = failing(99)
    with pytest.raises(ServerError, match=r"busy \(5 attempts in 3\.8 s\)"):
        retries.Retries(60.0).call(attempt)
    assert len(given) == 5


def test_no_pause_beyond_the_deadline(clock):
    attempt, given = failing(99, clock, seconds=0.3)
    with pytest.raises(ServerError, match=r"2 attempts in 0\.9 s"):
        retries.Retries(1.0).call(attempt)
    assert given == [1.0, pytest.approx(0.45)]


def test_what_will_not_change_is_not_tried_again(clock):
    attempt, given = failing(99, is_temporary=False)
    with pytest.raises(ServerError, match="^busy$"):
        retries.Retries(60.0).call(attempt)
    assert len(given) == 1


def test_a_server_that_is_gone_gets_one_attempt_until_it_answers(clock):
    caller = retries.Retries(60.0)
    gone, given = failing(99)
    for _ in range(4):
        with pytest.raises(ServerError):
            caller.call(gone)
    assert len(given) == 5 + 3
    assert caller.call(lambda timeout_s: "back") == "back"
    attempt, given = failing(1)
    assert caller.call(attempt) == "answer"
    assert len(given) == 2


def hanging(clock, given):
    """An attempt that takes all the time it gets."""

    def attempt(timeout_s):
        given.append(timeout_s)
        clock.now += timeout_s
        raise ServerError(f"no answer within {timeout_s:.3g} s", is_timeout=True)

    return attempt


def test_a_server_that_hangs_gets_seconds_until_it_answers(clock):
    caller, given = retries.Retries(60.0), []
    hang = hanging(clock, given)
    for _ in range(2):
        with pytest.raises(ServerError, match="^no answer within 60 s$") as error:
            caller.call(hang)
    assert error.value.is_timeout
    for _ in range(2):
        with pytest.raises(ServerError, match=r"within 5 s \(instead of 60 s: those before"):
            caller.call(hang)
    assert given == [60.0, 60.0, 5.0, 5.0]
    assert caller.call(lambda timeout_s: timeout_s) == 5.0
    assert caller.call(lambda timeout_s: timeout_s) == 60.0


def test_a_slow_server_is_given_twice_its_slowest_answer(clock):
    caller, given = retries.Retries(60.0), []
    slow, _ = failing(0, clock, seconds=10.0)
    caller.call(slow)
    for _ in range(3):
        with pytest.raises(ServerError):
            caller.call(hanging(clock, given))
    assert given == [60.0, 60.0, 20.0]


@pytest.mark.parametrize("answers", [True, False])
def test_two_in_a_row_or_not(clock, answers):
    """An answer or a refusal in between shows that the server does not hang."""
    caller, given = retries.Retries(60.0), []
    between, _ = failing(0 if answers else 99, is_temporary=False)
    for _ in range(3):
        with pytest.raises(ServerError, match="no answer"):
            caller.call(hanging(clock, given))
        with contextlib.nullcontext() if answers else pytest.raises(ServerError, match="busy"):
            caller.call(between)
    assert given == [60.0, 60.0, 60.0]


def test_no_answer_to_a_second_attempt_says_what_there_was_in_all(clock):
    given = []
    busy, _ = failing(1, clock, seconds=29.75)
    hang = hanging(clock, given)

    def attempt(timeout_s):
        return busy(timeout_s) if clock.now < 1 else hang(timeout_s)

    with pytest.raises(ServerError, match=r"within 30 s \(the rest of 60 s, attempt 2\)"):
        retries.Retries(60.0).call(attempt)
    assert given == [30.0]


def test_a_failure_keeps_its_kind_when_it_is_named():
    busy, late = ServerError("busy", True), ServerError("no answer", is_timeout=True)
    for error in (busy, late):
        named = error.about("a.jpg")
        assert str(named) == f"a.jpg: {error}"
        assert (named.is_temporary, named.is_timeout) == (error.is_temporary, error.is_timeout)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{{function_node __inference_1}} {{node x}} Odd file.\n\t [[{{node y}}]]", "Odd file."),
        ("\n  second \n third", "second"),
        ("", "no reason given"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_one_line_of_what_a_server_says(text, line):
    assert first_line(text) == line
