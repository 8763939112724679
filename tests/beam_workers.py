"""Worker processes that a command of ours has Beam start on this machine."""

import pathlib
import signal
import subprocess
import time
from collections.abc import Callable

PROCESSES = [
    "--runner=FnApiRunner",
    "--direct_running_mode=multi_processing",
    "--direct_num_workers=2",
]


def of(command: int) -> list[int]:
    """Return the process ids of the workers that a process has started."""
    parents, arguments = {}, {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            arguments[int(folder.name)] = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = []
    for pid in arguments:
        above = parents.get(pid)
        while above and above != command:
            above = parents.get(above)
        if above and b"apache_beam.runners.worker.sdk_worker_main" in arguments[pid]:
            found.append(pid)
    return found


def wait_until(happened: Callable[[], bool], command: subprocess.Popen, seconds: float) -> None:
    """Wait while a command runs."""
    end = time.monotonic() + seconds
    while not happened():
        assert command.poll() is None, "the command has ended before that"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def end(command: subprocess.Popen) -> int:
    """Wait a while for a command whose worker was killed, then press Ctrl-C; return its exit code.

    Beam's FnApiRunner waits for a lost worker for ever.
    """
    try:
        return command.wait(10)
    except subprocess.TimeoutExpired:
        command.send_signal(signal.SIGINT)
        return command.wait(300)
