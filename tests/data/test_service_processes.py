"""service_processes.py: whoever is not there, or cannot read, is named in bounded time."""

import re
import socket

import pytest
import tensorflow as tf

from mrcnn_tf.data import record_files, service_processes

servers = tf.data.experimental.service


@pytest.mark.parametrize(
    "address", ["localhost", "http://localhost:5050", "grpc://:5", "a:b", "a:0", "a:65536", ""]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match=rf"got '{address}', needs grpc://HOST:PORT"):
        service_processes.find(address)


def test_where_no_dispatcher_answers_is_said_in_time():
    with socket.create_server(("localhost", 0)) as silent:
        address = f"grpc://localhost:{silent.getsockname()[1]}"
        with pytest.raises(ValueError, match=rf"'{address}': no dispatcher answers \("):
            service_processes.find(address, patience=0.5)
    with pytest.raises(ValueError, match=rf"'{address}': no dispatcher answers \(.*refused"):
        service_processes.find(address, patience=0.5)


@pytest.fixture
def dispatcher():
    """A dispatcher of this process."""
    return servers.DispatchServer()


@pytest.fixture
def workers(dispatcher):
    """Two workers of this process."""
    address = dispatcher.target.removeprefix("grpc://")
    return [servers.WorkerServer(servers.WorkerConfig(address)) for _ in range(2)]


def test_a_dispatcher_without_workers_is_refused(dispatcher):
    text = re.escape(f"{dispatcher.target!r}: its dispatcher knows of no worker")
    with pytest.raises(ValueError, match=text):
        service_processes.find(dispatcher.target, patience=0.5)


def test_workers_are_found_and_read(dispatcher, workers, make_scene, write_records, tmp_path):
    (file, *_) = record_files.find(write_records([make_scene(0, 30, 40, num_objects=1)], 1))
    addresses = sorted(worker._address for worker in workers)
    assert sorted(service_processes.check(dispatcher.target, file, patience=20.0)) == addresses
    with pytest.raises(ValueError, match="is no dispatcher"):
        service_processes.find(addresses[0])
    missing = tmp_path / "missing.tfrecord"
    text = rf"cannot read '{missing}'; its workers need the record files under the same names: .*"
    with pytest.raises(ValueError, match=text):
        service_processes.check(dispatcher.target, str(missing), patience=20.0)


def test_a_worker_that_cannot_be_reached_is_said_in_time(dispatcher):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        nowhere = f"localhost:{free.getsockname()[1]}"
    address = dispatcher.target.removeprefix("grpc://")
    worker = servers.WorkerServer(servers.WorkerConfig(address, worker_address=nowhere))
    with pytest.raises(ValueError, match=rf"none of its workers \({nowhere}\) answers"):
        service_processes.find(dispatcher.target, patience=0.5)
    del worker


def test_a_worker_that_takes_connections_and_says_nothing_is_silent(
    dispatcher, workers, monkeypatch
):
    """As a process does that was stopped; one that is gone is in neither list."""
    monkeypatch.setattr(service_processes, "_ANSWER", 2.0)
    with socket.create_server(("localhost", 0)) as stopped, socket.socket() as free:
        free.bind(("localhost", 0))
        names = [f"localhost:{one.getsockname()[1]}" for one in (stopped, free)]
        there = [worker._address for worker in workers]
        monkeypatch.setattr(service_processes, "_workers", lambda *_: [*names, *there])
        found = service_processes.find(dispatcher.target, patience=0.0)
    assert found == (there, names[:1])
