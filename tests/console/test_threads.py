"""`--threads`: as many threads as were asked for, whatever the machine has."""

import pathlib
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = textwrap.dedent("""
    import os
    import numpy as np
    import tensorflow as tf
    from absl import flags
    from mrcnn_tf.console import command_line, threads

    def main(argv):
        before = len(os.listdir("/proc/self/task"))
        threads.use(flags.FLAGS.threads)
        tf.function(lambda x: tf.reduce_sum(x @ x))(tf.ones([64, 64]))
        print(len(os.listdir("/proc/self/task")) - before, os.environ.get("RAYON_NUM_THREADS"))

    command_line.run("Multiply.", threads.define_flag, main)
""")


def multiply(*flags):
    """(threads that TensorFlow has started, what other libraries are told)."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    started, told = done.stdout.split()
    return int(started), told


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
@pytest.mark.slow
def test_tensorflow_starts_as_many():
    one, told_one = multiply("--threads=1")
    nine, told_nine = multiply("--threads=9")
    _, told_nothing = multiply()
    assert nine - one >= 2 * 8  # inside of operations, and between them
    assert (told_one, told_nine, told_nothing) == ("1", "9", "None")


@pytest.mark.parametrize(
    "command",
    ["train", *(pytest.param(c, marks=pytest.mark.slow) for c in ("report", "export", "predict"))],
)
def test_no_thread_is_refused(command):
    needed = {
        "predict": ["--saved_model=x", "--input=x", "--output_dir=x"],
        "export": ["--experiment=x", "--export_dir=x"],
    }
    flags = ["--threads=0", *needed.get(command, [])]
    done = subprocess.run(
        [sys.executable, "-m", f"mrcnn_tf.{command}", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "flag --threads=0: 0 is not a positive integer" in done.stderr
