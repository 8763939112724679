"""Commands that run as the workers of one run, on free ports of this machine, never for ever."""

import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Workers:
    """The processes of one run; what they print goes to a file each.

    Args:
      commands: of each worker, behind `python`.
      folder: for what they print.
      seconds: after which all that is left of them is killed.
      knows: how a worker learns where the others are: "TF_CONFIG", or "fields".
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        folder: pathlib.Path,
        seconds: float = 1500.0,
        knows: str = "TF_CONFIG",
    ):
        self._end = time.monotonic() + seconds
        self.hosts = [f"127.0.0.1:{port}" for port in free_ports(len(commands))]
        self._logs, self._processes = [], []
        folder.mkdir(exist_ok=True, parents=True)
        common = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
        common |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
        for index, command in enumerate(commands):
            environment = dict(common)
            given = list(command)
            if len(commands) > 1 and knows == "TF_CONFIG":
                task = {"type": "worker", "index": index}
                cluster = {"cluster": {"worker": self.hosts}, "task": task}
                environment["TF_CONFIG"] = json.dumps(cluster)
            elif len(commands) > 1:
                where = {"runtime.worker_hosts": ",".join(self.hosts), "runtime.task_index": index}
                given = [_with_fields(flag, where) for flag in given]
            path = folder / f"worker{index}.log"
            self._logs.append(path)
            with path.open("w") as log:
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, *given],
                        cwd=ROOT,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        preexec_fn=die_with_parent,
                    )
                )

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def printed(self, index: int) -> str:
        """What a worker has printed so far."""
        return self._logs[index].read_text()

    def wait_for(self, text: str, index: int = 0) -> None:
        """Wait until a worker has printed something."""
        while text not in self.printed(index):
            assert self._processes[index].poll() is None, self.printed(index)[-3000:]
            self._sleep(f"worker {index} did not print {text!r}")

    def send(self, number: signal.Signals, index: int) -> None:
        """Send a worker a signal."""
        self._processes[index].send_signal(number)

    def wait(self, seconds: float = float("inf")) -> list[int]:
        """Wait for all, so long at most; return their exit codes, -9 for a killed one."""
        self._end = min(self._end, time.monotonic() + seconds)
        while any(process.poll() is None for process in self._processes):
            self._sleep("they did not end")
        return [process.returncode for process in self._processes]

    def _sleep(self, what: str) -> None:
        if time.monotonic() > self._end:
            logs = "\n---\n".join(log.read_text()[-3000:] for log in self._logs)
            raise AssertionError(f"{what}:\n{logs}")
        time.sleep(0.05)


def die_with_parent() -> None:
    """Have Linux kill this process when the one that started it ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _with_fields(flag: str, fields: dict[str, object]) -> str:
    """Add fields to a `--params_override` of JSON; leave other flags as they are."""
    name, _, value = flag.partition("=")
    if name != "--params_override":
        return flag
    return f"{name}={json.dumps(json.loads(value) | fields)}"
