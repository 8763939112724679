"""A file is there as a whole or not at all, and what goes wrong names it."""

import errno
import os
import resource
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

from mrcnn_tf.console import whole_file


@pytest.mark.parametrize("folder", ["{}", "ram://whole_file"])
def test_text_and_bytes_replace_what_was_there(folder, tmp_path):
    folder = folder.format(tmp_path)
    tf.io.gfile.makedirs(folder)
    for content, want in (("Füße\n", "Füße\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")):
        whole_file.write(f"{folder}/a.json", content)
        with tf.io.gfile.GFile(f"{folder}/a.json", "rb") as file:
            assert file.read() == want
    assert tf.io.gfile.listdir(folder) == ["a.json"]


def test_without_room_the_old_file_stays_and_the_error_names_it(tmp_path):
    """A limit on the size of files stands for a full disk: writing fails half-way."""
    path = tmp_path / "params.yaml"
    whole_file.write(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="params.yaml") as raised:
            whole_file.write(path, "new " * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.errno == errno.EFBIG
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["params.yaml"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone/a.json"):
        whole_file.write(tmp_path / "gone" / "a.json", "text")


KILLED = """
import os, signal, sys
from mrcnn_tf.console import whole_file
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
whole_file.write(sys.argv[1], "half")
"""


def test_killed_while_it_writes(tmp_path):
    path = tmp_path / "a.json"
    whole_file.write(path, "whole")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "whole"
    whole_file.write(path, "new")  # what the kill left is no obstacle
    assert os.listdir(tmp_path) == ["a.json"]
