"""Order, errors and threads of what is done in the background."""

import threading

import pytest

from mrcnn_tf.training.background import Background


def test_work_is_done_in_order_and_one_at_a_time():
    background, done, running = Background(), [], []

    def work(k):
        running.append(k)
        assert len(running) == 1
        done.append(k)
        running.remove(k)

    for k in range(100):
        background.run(lambda k=k: work(k))
    background.wait()
    assert done == list(range(100))


def test_the_caller_goes_on():
    background, begun, may_end = Background(), threading.Event(), threading.Event()
    background.run(lambda: (begun.set(), may_end.wait(60)))
    assert begun.wait(60)
    may_end.set()
    background.wait()


def fail():
    raise ValueError("image 7")


def test_an_error_is_raised_once_and_the_next_work_is_not_begun():
    background, done = Background(), []
    background.run(fail)
    with pytest.raises(ValueError, match="image 7"):
        background.run(lambda: done.append(1))
    background.wait()
    assert done == []
    background.run(lambda: done.append(2))
    background.wait()
    assert done == [2]


def test_nothing_is_left_of_what_is_abandoned():
    threads = threading.active_count()
    background = Background()
    background.run(fail)
    background.abandon()
    background.wait()
    assert threading.active_count() == threads
