"""A training step compiled in one process is read by the next, which gets the same loss."""

import os
import pathlib
import subprocess
import sys

import pytest

from mrcnn_tf.console import xla_cache

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIRECTORY = "--tf_xla_persistent_cache_directory="

PROGRAM = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
from mrcnn_tf.console import xla_cache
xla_cache.use()
weights = tf.constant([[0.3, -0.7], [1.1, 0.2]])

@tf.function(jit_compile=True)
def gradient(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.tanh(x @ weights))
    return tape.gradient(loss, x)

print(gradient(tf.constant([[1.0, 2.0]])).numpy().tolist())
"""


def run(home):
    environment = {**os.environ, "XDG_CACHE_HOME": str(home), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TF_XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_next_process_reads_what_the_first_compiled(tmp_path):
    first = run(tmp_path)
    (folder,) = (tmp_path / "mrcnn_tf/xla").iterdir()
    (entry,) = folder.iterdir()
    written = entry.stat().st_mtime_ns
    assert run(tmp_path) == first
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == [written]
    # It is read: TensorFlow does not pass over what is broken.
    entry.write_bytes(b"broken")
    with pytest.raises(AssertionError, match="OutOfRangeError"):
        run(tmp_path)


def test_a_folder_of_the_users_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TF_XLA_FLAGS", f"--tf_xla_cpu_global_jit {DIRECTORY}/mine")
    xla_cache.use()
    assert os.environ["TF_XLA_FLAGS"] == f"--tf_xla_cpu_global_jit {DIRECTORY}/mine"
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_cpu_global_jit")
    xla_cache.use()
    assert os.environ["TF_XLA_FLAGS"].startswith(f"--tf_xla_cpu_global_jit {DIRECTORY}{tmp_path}/")


def test_where_nothing_can_be_written_there_is_no_cache(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    xla_cache.use()
    assert "TF_XLA_FLAGS" not in os.environ
