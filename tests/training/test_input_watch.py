"""input_watch.py: the process ends when nobody makes images any more, and not before."""

import os
import socket
import threading

import pytest
import tensorflow as tf

from mrcnn_tf.data import service_processes
from mrcnn_tf.data.service_processes import Found
from mrcnn_tf.training import input_watch
from mrcnn_tf.training.workers import WorkerGone

servers = tf.data.experimental.service


def test_a_service_that_is_gone_ends_the_process(monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"grpc://localhost:{free.getsockname()[1]}"
    ended, codes = threading.Event(), []

    def end(code):
        codes.append(code)
        ended.set()

    monkeypatch.setattr(os, "_exit", end)
    with input_watch.watch(address, seconds=0.2):
        assert ended.wait(30)
    assert codes[0] == 42
    said = capsys.readouterr().out
    assert f"gone for 0 s: task.train_data.tf_data_service_address: '{address}': no disp" in said
    assert "The same command goes on from the newest checkpoint" in said


def test_a_service_that_is_there_does_not(monkeypatch):
    dispatcher = servers.DispatchServer()
    worker = servers.WorkerServer(servers.WorkerConfig(dispatcher.target.removeprefix("grpc://")))
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    with input_watch.watch(dispatcher.target, seconds=0.2):
        assert not ended.wait(2)
    del worker


def test_a_worker_that_is_silent_is_named_once(monkeypatch, capsys):
    """It answered at first; the other one, which answers, keeps the run alive."""
    looks = [Found(["a:1", "b:2"], []), *[Found(["a:1"], ["b:2"])] * 30]
    is_over = threading.Event()

    def find(address, patience):
        if len(looks) == 1:
            is_over.set()
        return looks.pop(0) if len(looks) > 1 else looks[0]

    monkeypatch.setattr(service_processes, "find", find)
    monkeypatch.setattr(input_watch, "_EVERY", 0.02)
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("ended"))
    with input_watch.watch("grpc://c:3", seconds=0.2):
        assert is_over.wait(30)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("worker b:2 of the tf.data service has not answered for 0 s, and is")


def test_a_dispatcher_that_was_started_anew_is_said():
    """The message is what a run said whose dispatcher was killed and started within 5 s."""
    text = (
        "Failed to get element from worker localhost:58877: Failed to get an element, with a "
        "nonretryable error: Failed to get element: Failed to get split: Iteration id 2000 not "
        "found"
    )
    with pytest.raises(WorkerGone, match="started anew") as caught:
        input_watch.raise_if_forgotten(tf.errors.NotFoundError(None, None, text))
    assert caught.value.exit_code == 42
    input_watch.raise_if_forgotten(tf.errors.NotFoundError(None, None, "a.tfrecord; No such file"))
