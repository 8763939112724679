"""workers.py in one process; tests/end_to_end/test_workers.py has the real ones."""

import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from mrcnn_tf.training import stopping, workers
from mrcnn_tf.training.stopping import RESTART
from mrcnn_tf.training.workers import WorkerGone, Workers

ALONE = Workers()

RESET = """Graph execution error:

Detected at node CollectiveReduceV2 defined at (most recent call last):
Collective ops is aborted by: recvmsg:Connection reset by peer
Additional GRPC error information from remote target /job:worker/replica:0/task:2 while calling \
/tensorflow.WorkerService/RecvBuf:
The error could be from a previous operation. Restart your program to reset."""
UNHEALTHY = """Collective ops is aborted by: Error reported from /job:worker/task:1: The following \
tasks are unhealthy (stopped sending heartbeats):
/job:worker/replica:0/task:1
The tasks have crashed."""
LEADER = """Collective ops is aborted by: Failed to send RPC to coordination service. Either the \
leader task was preempted/died/restarted unexpectedly or this task is experiencing network issues.
Additional GRPC error information from remote target /job:chief/replica:0/task:0 while calling \
/tensorflow.CoordinationService/Heartbeat:"""
REPORTED = """Collective ops is aborted by: Error reported from /job:worker/task:2: this worker \
failed: a record cannot be read
The error could be from a previous operation."""


@pytest.fixture(autouse=True)
def board(monkeypatch):
    """In the place of what TensorFlow's coordination service keeps for all: {key: text}."""
    said = {}
    monkeypatch.setattr(Workers, "_write", lambda _, key, text: said.setdefault(key, text))
    monkeypatch.setattr(workers, "_GOODBYE_SECONDS", 0.0)
    monkeypatch.setattr(context.Context, "report_error_to_cluster", lambda *_: None)
    monkeypatch.setattr(Workers, "_read", lambda _, key, patience_ms: said.get(key))
    return said


def worker(index, hosts=("a:1", "b:2", "c:3"), chiefs=0):
    """One of several, without the others."""
    one = Workers()
    one.hosts, one.index, one._chiefs = list(hosts), index, chiefs
    return one


@pytest.mark.parametrize(
    ("text", "me", "said", "code"),
    [
        (RESET, worker(0), "worker 2 (c:3) is gone: ", RESTART),
        (UNHEALTHY, worker(0), "worker 1 (b:2) is gone: ", RESTART),
        (RESET + UNHEALTHY, worker(0), "worker 1 (b:2) and worker 2 (c:3) are gone: ", RESTART),
        (LEADER, worker(1, chiefs=1), "worker 0 (a:1) is gone: ", RESTART),
        # Of a cluster with a chief, the second worker is the third process.
        (UNHEALTHY, worker(0, chiefs=1), "worker 2 (c:3) is gone: ", RESTART),
        (UNHEALTHY.replace("task:1", "task:0"), worker(0), "another worker is gone: ", RESTART),
        (REPORTED, worker(1), "worker 2 (c:3) failed: a record cannot be read", 1),
    ],
)
def test_what_tensorflow_says_of_the_others_becomes_one_line(text, me, said, code):
    error = tf.errors.UnavailableError(None, None, text)
    with pytest.raises(WorkerGone) as gone:
        me.raise_if_gone(error)
    assert str(gone.value).startswith(said)
    assert "\n" not in str(gone.value)
    assert gone.value.exit_code == code


ABORTED = """Collective ops is aborted by: truncated record at 0
Additional GRPC error information from remote target /job:worker/replica:0/task:1 while calling \
/tensorflow.WorkerService/RecvBuf:"""
JOINED = """Graph execution error:

Detected at node IteratorGetNext defined at (most recent call last):
2 root error(s) found.
  (0) DATA_LOSS:  truncated record at 0
\t [[{{node IteratorGetNext}}]]
  (1) INTERNAL:  Collective ops is aborted by: truncated record at 0
The error could be from a previous operation. Restart your program to reset.
\t [[{{node CollectiveReduceV2}}]]
0 successful operations.
0 derived errors ignored."""


@pytest.mark.parametrize("text", [ABORTED, RESET, REPORTED.replace("this worker failed: ", "")])
def test_who_is_told_by_tensorflow_that_a_step_failed_asks_why(board, text):
    error = tf.errors.DataLossError(None, None, text)
    failing, other = worker(1), worker(0)
    failing.raise_if_gone(tf.errors.DataLossError(None, None, "truncated record at 0"))
    with pytest.raises(WorkerGone, match=r"^worker 1 \(b:2\) failed: see what it printed$"):
        other.raise_if_gone(error)  # its machine is gone before it has found words
    failing.report(ValueError("step 4 failed: train.tfrecord: record 1\nand more"))
    with pytest.raises(WorkerGone) as gone:
        other.raise_if_gone(error)
    assert str(gone.value) == "worker 1 (b:2) failed: step 4 failed: train.tfrecord: record 1"
    assert gone.value.exit_code == 1
    # The first one counts: what fails because of it says nothing.
    worker(2).report(ValueError("also"))
    with pytest.raises(WorkerGone, match=r"^worker 1 \(b:2\) failed: step 4"):
        other.raise_if_gone(error)


def test_of_joined_errors_a_workers_own_counts(board):
    worker(1).raise_if_gone(tf.errors.DataLossError(None, None, JOINED))
    assert list(board.values()) == ["1"]
    both = JOINED.replace("DATA_LOSS:  truncated", "INTERNAL:  Collective ops is aborted by: ")
    with pytest.raises(WorkerGone, match="failed: see what it printed"):
        worker(0).raise_if_gone(tf.errors.InternalError(None, None, both))


def test_other_errors_are_left_alone():
    worker(0).raise_if_gone(tf.errors.InvalidArgumentError(None, None, "shapes do not match"))
    worker(0).raise_if_gone(ValueError(RESET))
    ALONE.raise_if_gone(tf.errors.UnavailableError(None, None, RESET))


def test_packed_values_come_back_in_order():
    """What `gather` sends, laid behind each other; lengths that are and are not whole words."""
    values = [None, {"score": 0.1 + 0.2, "id": 2**60}, "\u00e4" * 5, [float("nan")], 7]
    joined = np.concatenate([workers._packed(value) for value in values])
    assert joined.dtype == np.int32
    found = list(workers._unpacked(joined))
    assert found[:3] == values[:3]
    assert np.isnan(found[3][0])
    assert found[4] == 7


def test_one_process_asks_nobody():
    assert (ALONE.count, ALONE.index, ALONE.is_chief) == (1, 0, True)
    thing = object()
    assert ALONE.gather(thing) == [thing]
    assert ALONE.from_chief(thing) is thing
    assert ALONE.numbers(3) == [3]
    assert ALONE.folder_to_write("runs/x") == "runs/x"
    assert Workers(tf.distribute.OneDeviceStrategy("CPU:0")).count == 1


def test_values_reach_the_chief_one_by_one(monkeypatch):
    """Worker 1 has two, worker 2 one; the chief has none and gets three."""
    chief = worker(0)
    others = [["a", "b"], ["c"]]
    sent = []

    def numbers(mine):
        return [mine, *(int(bool(values)) for values in others)]

    def joined(mine):
        values = [mine, *([v.pop(0)] if v else [] for v in others)]
        sent.append(values)
        return np.concatenate([workers._packed(value) for value in values])

    monkeypatch.setattr(chief, "numbers", numbers)
    monkeypatch.setattr(chief, "_joined", joined)
    assert list(chief.to_chief(iter(()))) == ["a", "c", "b"]
    assert sent == [[[], ["a"], ["c"]], [[], ["b"], []]]
    assert list(ALONE.to_chief(iter([1, 2]))) == []


def test_leaving_takes_all_of_them(monkeypatch):
    """All meet once more behind the last words; who is not told so in time goes anyway."""
    steps = []

    class Coordination:
        def wait_at_barrier(self, name, milliseconds):
            steps.append(("barrier", name, milliseconds))
            raise tf.errors.DeadlineExceededError(None, None, "not all came")

    monkeypatch.setattr(context, "context", Coordination)
    monkeypatch.setattr(workers.time, "sleep", lambda seconds: steps.append(("sleep", seconds)))
    for index, last in ((0, [("sleep", workers._GOODBYE_SECONDS)]), (1, [])):
        me = worker(index)
        monkeypatch.setattr(me, "gather", lambda value: steps.append(value))
        steps.clear()
        me.leave()
        assert steps == ["done", ("barrier", "leave", 60_000), *last]
    steps.clear()
    ALONE.leave()
    assert steps == []


def test_a_signal_to_another_worker_stops_this_one(monkeypatch):
    me = worker(0)
    told = [0, 0, 0]
    monkeypatch.setattr(me, "numbers", lambda number: [number, *told[1:]])
    stop = stopping.StopRequest(me)
    assert not stop.is_there()
    told[2] = signal.SIGTERM
    assert stop.is_there()
    told[2] = 0  # it is remembered: nobody asks twice
    with pytest.raises(
        stopping.Stopped, match=r"^stopped by SIGTERM to worker 2 \(c:3\) here$"
    ) as e:
        stop.check(" here")
    assert e.value.exit_code == RESTART
    stop = stopping.StopRequest(me)
    stop.number = signal.SIGINT
    with pytest.raises(stopping.Stopped, match=r"^stopped by SIGINT to worker 0") as e:
        stop.check()
    assert e.value.exit_code == 130
