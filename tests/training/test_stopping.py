import os
import signal
import subprocess
import sys
import time

import pytest

from mrcnn_tf.training.stopping import Stopped, StopRequest


def test_a_signal_is_noted_answered_and_raised_where_it_is_asked_for(capsys):
    before = signal.getsignal(signal.SIGTERM)
    stop = StopRequest()
    stop.check("nothing yet")
    with stop.listen("in a moment"):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            if stop.number is not None:
                break
            time.sleep(0.01)
    with pytest.raises(Stopped, match="^stopped by SIGTERM at step 3$") as stopped:
        stop.check(" at step 3")
    assert stopped.value.exit_code == 143
    assert "SIGTERM: in a moment\n" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.set_wakeup_fd(-1) == -1


TWICE = """
import os, signal, time
from mrcnn_tf.training.stopping import StopRequest
with StopRequest().listen("soon"):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
"""


def test_the_second_signal_ends_the_process_at_once():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=20)
    assert done.returncode == 130
    assert done.stdout == "SIGINT: soon\n"
