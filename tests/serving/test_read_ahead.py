"""Order and bounds of the work beside the network, without a network."""

import threading
import time

import pytest

from mrcnn_tf.serving import read_ahead


@pytest.fixture
def pool():
    with read_ahead.threads(3) as pool:
        yield pool


def test_ahead_keeps_the_order_and_its_distance(pool):
    started = []

    def slow_if_even(number):
        started.append(number)
        time.sleep(0.02 if number % 2 == 0 else 0.0)
        return 10 * number

    results = read_ahead.ahead(pool, slow_if_even, range(20), depth=3)
    for k, result in enumerate(results):
        assert result == 10 * k
        assert max(started) <= k + 3
    assert sorted(started) == list(range(20))
    assert list(read_ahead.ahead(pool, slow_if_even, [], depth=3)) == []


def test_ahead_raises_in_its_place(pool):
    results = read_ahead.ahead(pool, lambda number: 6 // number, [3, 2, 0, 1], depth=2)
    assert next(results) == 2
    assert next(results) == 3
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(
    ("letters", "batch_size", "window", "expected"),
    [
        ("", 2, 4, []),
        ("aba", 1, 2, ["a", "b", "a"]),
        ("abababab", 2, 4, ["aa", "bb", "aa", "bb"]),
        # b waits until four are there, then goes alone; it is not overtaken again.
        ("baaaaaa", 2, 4, ["b", "aa", "aa", "aa"]),
        ("aaaaaba", 2, 4, ["aa", "aa", "aa", "b"]),
        ("abcd", 3, 6, ["a", "b", "c", "d"]),
        ("aaaaa", 2, 4, ["aa", "aa", "a"]),
    ],
)
def test_by_canvas(letters, batch_size, window, expected):
    elements = list(enumerate(letters))
    batches = list(read_ahead.by_canvas(elements, lambda e: e[1], batch_size, window))
    assert ["".join(letter for _, letter in batch) for batch in batches] == expected
    assert sorted(e for batch in batches for e in batch) == elements
    oldest = [batch[0][0] for batch in batches]
    assert oldest == sorted(oldest)


def test_by_canvas_holds_no_more_than_its_window():
    given = []

    def elements():
        for k in range(50):
            given.append(k)
            yield k, "ab"[k % 7 == 0]

    taken = 0
    for batch in read_ahead.by_canvas(elements(), lambda e: e[1], 3, 6):
        assert len(given) - taken <= 6
        taken += len(batch)
    assert taken == 50


def test_results_come_in_order_whatever_ends_first(pool):
    jobs = read_ahead.InOrder(pool, max_unfinished=10)
    release = threading.Event()
    jobs.put(2, lambda: "c")
    jobs.put(0, release.wait, 30.0)
    jobs.put(1, lambda: "b")
    time.sleep(0.05)
    assert list(jobs.ready()) == []  # the first one is not finished
    release.set()
    assert list(jobs.rest()) == [True, "b", "c"]
    assert list(jobs.rest()) == []


def test_put_waits_for_room(pool):
    jobs = read_ahead.InOrder(pool, max_unfinished=2)
    running, most = set(), []
    lock = threading.Lock()

    def job(number):
        with lock:
            running.add(number)
            most.append(len(running))
        time.sleep(0.01)
        with lock:
            running.remove(number)
        return number

    for k in range(12):
        jobs.put(k, job, k)
    assert list(jobs.rest()) == list(range(12))
    assert max(most) <= 2


def test_what_a_job_raises_is_raised(pool):
    jobs = read_ahead.InOrder(pool, max_unfinished=2)
    jobs.put(0, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        list(jobs.rest())


def test_leaving_drops_what_waits():
    done = []

    def job(number):
        time.sleep(0.05)
        done.append(number)

    with read_ahead.threads(1) as pool:
        for k in range(100):
            pool.submit(job, k)
    time.sleep(0.2)
    assert len(done) <= 2


def test_in_thread_keeps_the_order_and_its_distance():
    started = []

    def numbers():
        for k in range(50):
            started.append(k)
            yield k

    elements = read_ahead.in_thread(numbers(), depth=3)
    for k, element in enumerate(elements):
        assert element == k
        time.sleep(0.001)
        assert max(started) <= k + 4  # three wait, one is there and has no place yet
    assert started == list(range(50))
    assert list(read_ahead.in_thread([], depth=3)) == []


def test_in_thread_goes_on_beside_the_caller():
    caller, has_started = threading.get_ident(), threading.Event()

    def one():
        assert threading.get_ident() != caller
        has_started.set()
        yield 1

    elements = read_ahead.in_thread(one(), depth=1)
    assert next(elements) == 1
    assert has_started.is_set()


def test_in_thread_raises_behind_what_was_there():
    def two_then_wrong():
        yield from (1, 2)
        raise ValueError("broken")

    elements = read_ahead.in_thread(two_then_wrong(), depth=5)
    assert (next(elements), next(elements)) == (1, 2)
    with pytest.raises(ValueError, match="broken"):
        next(elements)


def test_in_thread_ends_when_it_is_closed():
    is_closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            is_closed.set()

    before = threading.active_count()
    elements = read_ahead.in_thread(endless(), depth=2)
    assert next(elements) == 0
    elements.close()
    assert threading.active_count() == before
    assert is_closed.wait(5)


def test_in_thread_drops_what_the_caller_has_no_time_for():
    """Ten are there before the caller comes for the second: it gets the newest two."""
    go_on, all_there = threading.Event(), threading.Event()

    def numbers():
        yield 0
        go_on.wait(5)
        yield from range(1, 11)
        all_there.set()

    elements = read_ahead.in_thread(numbers(), depth=2, newest_only=True)
    assert next(elements) == 0
    go_on.set()
    assert all_there.wait(5)
    assert list(elements) == [9, 10]
