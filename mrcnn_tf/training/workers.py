"""The processes that train one run together: which of them this is, what they tell each other.

Each runs the same program on its own machine, and TensorFlow's collectives come together only if
all of them come to the same ones in the same order. So what one of them alone can know (a signal,
a score, the newest checkpoint) is told to all before anybody acts on it. The first worker, the
chief, writes what is to be kept; all have to save, because reading what is spread over the machines
takes all of them.

With one process everything here is free, and its answers are plain.
"""

import atexit
import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn_tf.training.stopping import RESTART

# How TensorFlow says that another process does not answer any more.
_GONE = re.compile(
    r"Collective ops is aborted by|from remote target /job:|heartbeat|[Cc]oordination ?[Ss]ervice"
)
_PEER = r"/job:(chief|worker)/(?:replica:\d+/)?task:(\d+)"
_LONGEST_WAIT_MS = 60_000
_KEYS = "mrcnn_tf"  # what begins the names of our words at TensorFlow's coordination service
_FAILING, _FAILED = f"{_KEYS}/failing", f"{_KEYS}/failed"
_FIRST_WORD_MS = 5_000
_GOODBYE_SECONDS = 1.0
_MARK = "this worker failed: "  # before what `report` says: TensorFlow reports errors, too
_REPORTED = re.compile(rf"Error reported from {_PEER}: {_MARK}(.*)")


class WorkerGone(Exception):  # noqa: N818, what went wrong is somewhere else
    """Another process of this run has ended, so this one cannot go on.

    Attributes:
      exit_code: 1 if the other has failed, `RESTART` if nobody knows why it is gone.
    """

    def __init__(self, text: str, exit_code: int):
        super().__init__(text)
        self.exit_code = exit_code


class Workers:
    """This process among those that share a strategy.

    Attributes:
      hosts: "host:port" of each, the chief's first; one without a name for a run of one machine.
      index: which of them this is.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        """Find out.

        Args:
          strategy: what trains; None for this process alone.
        """
        self._strategy: Any = strategy
        self.hosts: list[str] = [""]
        self.index = 0
        self._chiefs = 0
        # Only there has each machine a process of its own that decides something.
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            cluster = resolver.cluster_spec().as_dict()
            chiefs = cluster.get("chief", [])
            self.hosts = [*chiefs, *cluster.get("worker", [])] or [""]
            self._chiefs = len(chiefs)
            self.index = self._place(resolver.task_type, resolver.task_id)

        @tf.function(autograph=False)
        def sums(values: tf.Tensor) -> tf.Tensor:
            def of_replica() -> tf.Tensor:
                context = tf.distribute.get_replica_context()
                return context.all_reduce("sum", tf.identity(values))

            return self._strategy.run(of_replica)

        self._sums = sums

    @property
    def count(self) -> int:
        """Processes of the run."""
        return len(self.hosts)

    @property
    def is_chief(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Return "worker 1 (10.0.0.2:2222)"."""
        return f"worker {index} ({self.hosts[index]})"

    def numbers(self, number: int) -> list[int]:
        """Return every worker's number; they all ask at the same place, and wait for each other.

        Args:
          number: this worker's, of 31 bits.
        """
        if self.count == 1:
            return [number]
        values = np.zeros(self.count, np.int32)
        values[self.index] = number
        summed = self._strategy.experimental_local_results(self._sums(tf.constant(values)))
        # Each replica of a worker has added its worker's number.
        return (summed[0].numpy() // len(summed)).tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return every worker's value; they all ask at the same place, and wait for each other.

        Takes about a tenth of a second, however small the value is.

        Args:
          value: anything that JSON can say.
        """
        return list(_unpacked(self._joined(value))) if self.count > 1 else [value]

    def to_chief(self, values: Iterator[Any]) -> Iterator[Any]:
        """Yield every worker's values to the chief, and nothing to the others; see `gather`.

        They travel one by one, so that what is much together need not fit into one message.

        Args:
          values: this worker's, as many as it has.
        """
        while self.count > 1:
            mine = list(itertools.islice(values, 1))
            if not any(self.numbers(len(mine))):
                return
            joined = self._joined(mine)
            if self.is_chief:
                yield from itertools.chain.from_iterable(_unpacked(joined))

    def _joined(self, value: Any) -> np.ndarray:
        """Pack every worker's value, one behind the other: int32 [n]."""
        part = _packed(value)
        first = self.index * (self._strategy.num_replicas_in_sync // self.count)

        def of_replica(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            is_first = context.replica_id_in_sync_group == first
            # Bytes are not taken, and there is no kernel for int64 everywhere.
            return tf.constant(part if is_first else part[:0], tf.int32)

        parts = self._strategy.experimental_distribute_values_from_function(of_replica)
        return self._strategy.gather(parts, axis=0).numpy()

    def from_chief(self, value: Any) -> Any:
        """Return the chief's value; see `gather`. Whatever it has done before is done then."""
        return self.gather(value if self.is_chief else None)[0]

    def before_collectives(self, what: str, text: str) -> list[str]:
        """Return what every worker says, told by TensorFlow's coordination service.

        That takes no collective, for which all have to have as many replicas. Once per `what`.

        Args:
          what: is said.
          text: this worker's.

        Raises:
          OpError: another worker is gone.
        """
        if self.count == 1:
            return [text]
        from tensorflow.python.eager import context

        service = context.context()
        service.set_config_key_value(f"{_KEYS}/{what}/{self.index}", text)
        keys = [f"{_KEYS}/{what}/{k}" for k in range(self.count)]
        told = [service.get_config_key_value(key, _LONGEST_WAIT_MS) for key in keys]
        with contextlib.suppress(tf.errors.OpError):
            # The chief's process, which may be about to end, is the service: all have heard it.
            service.wait_at_barrier(f"{_KEYS}/{what}", _LONGEST_WAIT_MS)
        return told

    def leave(self) -> None:
        """Return when all workers have done everything, and need nothing of each other."""
        self.gather("done")
        if self.count == 1:
            return
        # Each fetches the others' words from their processes: who has them all is not yet free to
        # go. Who is not told so in time has nothing left to do either.
        from tensorflow.python.eager import context

        with contextlib.suppress(tf.errors.OpError):
            context.context().wait_at_barrier("leave", _LONGEST_WAIT_MS)
        self._let_others_hear()

    def folder_to_write(self, model_dir: str) -> str:
        """Return where this process writes: the run's folder, or one that is gone at its end."""
        if self.is_chief:
            return model_dir
        # A name of its own, so that what a killed process left is removed by the next one.
        run = f"{os.path.abspath(model_dir)} {self.index}"
        key = hashlib.sha256(run.encode()).hexdigest()[:16]
        folder = os.path.join(tempfile.gettempdir(), f"mrcnn_tf_worker_{os.getuid()}_{key}")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o700)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def raise_if_gone(self, error: Exception) -> None:
        """Say it plainly if an error means that another process of the run has ended.

        Args:
          error: of TensorFlow.

        Raises:
          WorkerGone: it does.
        """
        if self.count == 1 or not isinstance(error, tf.errors.OpError | RuntimeError):
            return
        text = getattr(error, "message", str(error))
        reported = _REPORTED.search(text)
        if reported:
            role, task, why = reported.groups()
            self._let_others_hear()
            raise WorkerGone(f"{self.name(self._place(role, int(task)))} failed: {why}", 1)
        if not all(_GONE.search(cause) for cause in _causes(text)):
            self._write(_FAILING, str(self.index))  # why takes longer to say, see `report`
            return
        failed = self._failed()
        if failed:
            peer, why = failed
            self._let_others_hear()
            raise WorkerGone(f"{self.name(peer)} failed: {why}", 1) from error
        found = (self._place(role, int(task)) for role, task in re.findall(_PEER, text))
        peers = sorted({peer for peer in found if peer != self.index and peer < self.count})
        who = " and ".join(map(self.name, peers)) or "another worker"
        if len(peers) > 1:  # the first took the others with it
            gone = "are gone: their processes have ended, or their machines do not answer"
        else:
            gone = "is gone: its process has ended, or its machine does not answer"
        raise WorkerGone(
            f"{who} {gone}. The same command on all machines goes on from the newest checkpoint",
            RESTART,
        ) from error

    def report(self, error: Exception) -> None:
        """Tell the others, who would wait for this worker, what has ended it.

        They hear of it in two ways, since TensorFlow says that a collective has failed, but not
        why, to those who are in one before this worker can say anything.

        Args:
          error: that this worker cannot go on from.
        """
        if self.count == 1:
            return
        from tensorflow.python.eager import context

        self._write(_FAILING, str(self.index))
        self._write(_FAILED, json.dumps([self.index, said(error)]))
        text = _MARK + said(error)
        with contextlib.suppress(tf.errors.OpError):  # the chief, who passes it on, is gone
            context.context().report_error_to_cluster(tf.errors.INVALID_ARGUMENT, text)
        self._let_others_hear()

    def _let_others_hear(self) -> None:
        """Wait a moment where they fetch all words from: from the chief's process."""
        if self.is_chief:
            time.sleep(_GOODBYE_SECONDS)

    def _failed(self) -> tuple[int, str] | None:
        """Return which other worker has failed, and what it says of it; None if none says so."""
        failing = self._read(_FAILING, _FIRST_WORD_MS)
        if failing is None or int(failing) == self.index:
            return None
        words = self._read(_FAILED, _LONGEST_WAIT_MS)
        if words is None:
            return int(failing), "see what it printed"
        peer, why = json.loads(words)
        return peer, why

    def _write(self, key: str, text: str) -> None:
        """Tell all workers something, unless another one has already: the first failure counts."""
        from tensorflow.python.eager import context

        with contextlib.suppress(tf.errors.OpError):  # there already, or the chief is gone
            context.context().set_config_key_value(key, text)

    def _read(self, key: str, patience_ms: int) -> str | None:
        """Return what a worker has told all; None if nobody has for so long."""
        from tensorflow.python.eager import context

        try:
            text: str = context.context().get_config_key_value(key, patience_ms)
        except tf.errors.OpError:
            return None
        return text

    def _place(self, role: str | None, task: int | None) -> int:
        return (task or 0) + (self._chiefs if role == "worker" else 0)


def _causes(text: str) -> list[str]:
    """Return what TensorFlow says of an error, one by one where it joins several."""
    _, joined, rest = text.partition(" root error(s) found.")
    return re.split(r"^ *\(\d+\) ", rest, flags=re.MULTILINE)[1:] if joined else [text]


def said(error: Exception) -> str:
    """Return an error as one line: its message, with the type of what nobody has thought of."""
    text = getattr(error, "message", None) or str(error)
    line = text.strip().partition("\n")[0]
    known = ValueError | OSError | FloatingPointError | RuntimeError | tf.errors.OpError
    if isinstance(error, known):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _packed(value: Any) -> np.ndarray:
    """Return a value as int32 [n]: the number of bytes, then they."""
    compressed = zlib.compress(json.dumps(value).encode(), level=1)
    rows = np.frombuffer(compressed + bytes(-len(compressed) % 4), np.int32)
    return np.concatenate([np.array([len(compressed)], np.int32), rows])


def _unpacked(joined: np.ndarray) -> Iterator[Any]:
    """Yield the values that were packed and laid behind each other."""
    while len(joined):
        size = int(joined[0])
        end = 1 + -(-size // 4)
        yield json.loads(zlib.decompress(joined[1:end].tobytes()[:size]))
        joined = joined[end:]
