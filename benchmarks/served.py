"""A model server in a process of its own, and photos to send to it."""

import contextlib
import io
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scene
from PIL import Image

MODEL_NAME = "benchmark"
# What telephones and cameras send: 4:3 and 16:9, lying and standing. (height, width), pixels.
SIZES_HW = ((1200, 1600), (1600, 1200), (1080, 1920), (1920, 1080))


class Process(NamedTuple):
    """A running `model_server.py`.

    Attributes:
      addresses: "host:port" by protocol.
      load_s: seconds until both doors were open, warm-up requests included.
      pid: of the process.
    """

    addresses: dict[str, str]
    load_s: float
    pid: int

    def memory_mib(self) -> float:
        """Resident memory now."""
        return _status(self.pid, "VmRSS")

    def peak_memory_mib(self) -> float:
        """Largest resident memory so far."""
        return _status(self.pid, "VmHWM")


def _status(pid: int, field: str) -> float:
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return round(int(line.split()[1]) / 1024, 1)
    raise ValueError(f"no {field} of process {pid}")


@contextlib.contextmanager
def process(base_path: pathlib.Path, warm_up: bool = True) -> Iterator[Process]:
    """Serve the newest version below a base path while the block runs."""
    script = pathlib.Path(__file__).with_name("model_server.py")
    command = [sys.executable, str(script), f"--model_base_path={base_path}"]
    command += [f"--model_name={MODEL_NAME}", f"--enable_model_warmup={str(warm_up).lower()}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            text = server.stdout.readline()
            if not text:
                raise RuntimeError(f"{' '.join(command)} did not start")
            line = json.loads(text)
            addresses = {protocol: line[protocol] for protocol in ("grpc", "rest")}
            yield Process(addresses, line["load_s"], server.pid)
        finally:
            server.stdin.close()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def photos(count: int) -> list[bytes]:
    """Draw JPEG files of `SIZES_HW` in turn."""
    files = []
    for k in range(count):
        pixels = 128 + 50 * scene.image(*SIZES_HW[k % len(SIZES_HW)], seed=k)
        buffer = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files
