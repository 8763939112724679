"""The processes of a tf.data service: whether they are there, and can read.

TensorFlow waits for a dispatcher, and for its workers, without a limit of time and without a word.
"""

import concurrent.futures
import queue
import re
import threading
import time
from typing import Any, NamedTuple

import grpc
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from mrcnn_tf.data import service

PATIENCE = 60.0  # seconds, for processes that are started together
_ANSWER = 10.0  # seconds, for an answer of the dispatcher, or of a worker
_AT_ONCE = 32  # workers that are tried
_GET_WORKERS = "/tensorflow.data.DispatcherService/GetWorkers"
_GET_TASKS = "/tensorflow.data.WorkerService/GetWorkerTasks"
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
_OF_TENSORFLOW = re.compile(r"\{\{.*?\}\} | \[Op:.*", re.DOTALL)  # in its messages
_FIELD = "task.train_data.tf_data_service_address"


class Found(NamedTuple):
    """The workers of a service that its dispatcher knows and that are not gone.

    Attributes:
      there: "host:port" of those that answer.
      silent: of those that do not, although nobody refuses the connection: a process that was
        stopped takes one, and a machine that was switched off says nothing at all.
    """

    there: list[str]
    silent: list[str]


def find(address: str, patience: float = PATIENCE) -> Found:
    """Look for the workers of a service, until one of them answers.

    Args:
      address: of the dispatcher.
      patience: seconds in which it has to answer, and one of its workers.

    Raises:
      ValueError: they have not; or this is no address.
    """
    protocol, _, target = address.rpartition("://")
    if (protocol or service.PROTOCOL) != service.PROTOCOL or not _is_address(target):
        raise ValueError(f"{_FIELD}: got {address!r}, needs grpc://HOST:PORT of a dispatcher")
    end = time.monotonic() + patience
    while True:
        try:
            registered = _workers(target, min(_ANSWER, max(patience, 1.0)))
            with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
                answers = list(zip(registered, pool.map(_answers, registered), strict=True))
            there = [one for one, answer in answers if answer]
            if there:
                return Found(there, [one for one, answer in answers if answer is None])
            why = "its dispatcher knows of no worker"
            if registered:
                why = f"none of its workers ({', '.join(registered)}) answers"
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                text = f"{_FIELD}: what answers at {address!r} is no dispatcher"
                raise ValueError(text) from error
            why = f"no dispatcher answers ({error.details()})"
        if time.monotonic() > end:
            raise ValueError(
                f"{_FIELD}: {address!r}: {why}. docs/many-machines.md says how dispatcher and "
                "workers are started; task.train_data.enable_tf_data_service: false does without"
            )
        time.sleep(1.0)


def check(address: str, file: str, patience: float = PATIENCE) -> list[str]:
    """Have every worker of a service read the first record of a file.

    Args:
      address: of the dispatcher.
      file: of records.
      patience: seconds that the workers have, once for appearing and once for reading.

    Returns:
      The addresses of the workers that answer.

    Raises:
      ValueError: see `find`; or a worker cannot read the file.
    """
    workers = find(address, patience).there
    where = f"the tf.data service at {address!r} (workers: {', '.join(workers)})"
    (file,) = service.absolute([file])
    lengths = tf.data.TFRecordDataset(file).take(1).map(tf.strings.length)
    of_each = lengths.apply(
        tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.OFF, address
        )
    )
    ended: queue.Queue[tf.errors.OpError | None] = queue.Queue()

    def read() -> None:
        try:
            for _ in of_each.take(len(workers)):  # nobody waits for one that is lost
                pass
            ended.put(None)
        except tf.errors.OpError as error:
            ended.put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        error = ended.get(timeout=patience)
    except queue.Empty:
        raise ValueError(f"{where} has read no record of {file!r} in {patience:.0f} s") from None
    if error:
        raise ValueError(
            f"{where} cannot read {file!r}; its workers need the record files under the same "
            f"names: {_OF_TENSORFLOW.sub('', error.message)}"
        ) from error
    return workers


def _is_address(target: str) -> bool:
    host, _, port = target.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def _answers(worker: str) -> bool | None:
    """Whether a worker says something, whatever it is; None if it is silent, False if gone."""
    with grpc.insecure_channel(worker, _OPTIONS) as channel:
        try:
            channel.unary_unary(_GET_TASKS)(b"", timeout=_ANSWER)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return None
            return error.code() is not grpc.StatusCode.UNAVAILABLE
    return True


def _workers(target: str, timeout: float) -> list[str]:
    with grpc.insecure_channel(target, _OPTIONS) as channel:
        call = channel.unary_unary(_GET_WORKERS, response_deserializer=_Workers.FromString)
        return [worker.address for worker in call(b"", timeout=timeout).workers]


def _message_of_workers() -> Any:
    """Return the class of what `_GET_WORKERS` answers, as far as it is read.

    Source: tensorflow/core/data/service/dispatcher.proto, which is not in TensorFlow's package.
    """
    file = descriptor_pb2.FileDescriptorProto(name="mrcnn_tf/data/service.proto", syntax="proto3")
    worker, answer = (file.message_type.add(name=name) for name in ("WorkerInfo", "Workers"))
    kind = descriptor_pb2.FieldDescriptorProto
    worker.field.add(name="address", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    of_workers = {"type": kind.TYPE_MESSAGE, "type_name": ".WorkerInfo"}
    answer.field.add(name="workers", number=1, label=kind.LABEL_REPEATED, **of_workers)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Workers"))


_Workers = _message_of_workers()
