"""Lists of commands: what is done, what is stopped."""

import signal
import subprocess
import sys
import time

import pytest

from mrcnn_tf.console import running
from mrcnn_tf.console.running import Stage
from tests.marks import one_quick

# Two stages: the first one does not care for signals and ends well, the second one leaves a file.
LIST = """
import sys
from mrcnn_tf.console import running
deaf = (
    "import signal, sys, time; signal.signal(signal.{name}, signal.SIG_IGN); "
    "open(sys.argv[1], 'w').close(); time.sleep(2)"
)
running.run(
    [
        running.Stage("deaf", ("-c", deaf, sys.argv[1] + "/began")),
        running.Stage("next", ("-c", "import sys; open(sys.argv[1], 'w')", sys.argv[1] + "/next")),
    ],
    sys.argv[1],
)
"""


@pytest.mark.parametrize("name", one_quick(["SIGTERM", "SIGINT"]))
def test_a_signal_holds_also_if_the_stage_ends_well(tmp_path, name):
    code = LIST.replace("{name}", name)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "began").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert said.splitlines()[-1] == "stopped; the same command goes on from there"
    assert not (tmp_path / "next").exists()
    assert '"deaf"' in (tmp_path / running.FINISHED).read_text()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file: .*not a directory"):
        running.run([Stage("x", ("-c", ""))], str(tmp_path / "file"))
