"""What a served export takes: the first request, parallel clients, batches, memory.

The server is `model_server.py` in a process of its own: TensorFlow's C++ loader and session, which
TensorFlow Serving has too, behind doors in Python. Clients are threads of this process with
`mrcnn_tf.remote`, which send JPEG photos of four sizes (`served.SIZES_HW`) and read the answers,
but paste no masks. Both share the machine's cores. There is no batching in this server, so a batch
is what one request holds.

    python benchmarks/serving.py --model_base_path=kit/models/shapes [--memory_requests=20000]

prints JSON lines; without a base path, R50-FPN with random weights that finds 100 objects in every
photo is exported first:

* `first request`: seconds of the first three requests, of a lying photo, after a start with and
  without the warm-up requests of the export, and how long either start took.
* `clients`: for 1, 2, 4, 8 clients at a time: seconds per request and photos per second.
* `batches`: the same for one client with 1, 2, 4, 8 photos of one size per request.
* `memory`: the server's resident memory over a number of requests of one photo each, and its growth
  from the end of the first tenth to the end.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import served
import timing

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from mrcnn_tf.remote.served_model import ServedModel  # noqa: E402
from mrcnn_tf.remote.server import Server  # noqa: E402

COUNTS = (1, 2, 4, 8)
_DEADLINE_S = 600.0  # eight photos at once on a slow machine
_MEMORY_POINTS = 10


def connect(server: served.Process, protocol: str) -> ServedModel:
    """Return a client of the server."""
    return ServedModel(Server(server.addresses[protocol], protocol, served.MODEL_NAME, _DEADLINE_S))


def first_requests(base: pathlib.Path, protocol: str, photo: bytes) -> None:
    """Start the server in both ways."""
    for warm_up in (False, True):
        with served.process(base, warm_up) as server:
            model = connect(server, protocol)
            seconds = []
            for _ in range(3):
                start = time.perf_counter()
                model.call([photo])
                seconds.append(round(time.perf_counter() - start, 4))
        timing.print_line(
            benchmark="first request", warm_up=warm_up, load_s=server.load_s, seconds=seconds
        )


def _summary(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "median": round(statistics.median(ordered), 4),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 4),
        "max": round(ordered[-1], 4),
    }


def at_a_time(
    clients: int, requests: int, call: Callable[[int], object]
) -> tuple[list[float], float]:
    """Make requests from threads that take the next one as soon as theirs is answered.

    Returns:
      Seconds of each request, and from the first one's start to the last one's end.
    """
    numbers = iter(range(requests))
    lock = threading.Lock()
    seconds: list[float] = []
    failures: list[Exception] = []

    def client() -> None:
        while not failures:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            start = time.perf_counter()
            try:
                call(number)
            except Exception as error:
                failures.append(error)
                return
            with lock:
                seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return seconds, time.perf_counter() - start


def parallel_clients(server: served.Process, protocol: str, photos: list[bytes], n: int) -> None:
    """Measure 1, 2, 4, 8 clients, `n` requests each time."""
    model = connect(server, protocol)
    for clients in COUNTS:
        seconds, wall = at_a_time(clients, n, lambda k: model.call([photos[k % len(photos)]]))
        timing.print_line(
            benchmark="clients",
            protocol=protocol,
            clients=clients,
            requests=n,
            seconds=_summary(seconds),
            photos_per_s=round(n / wall, 3),
        )


def batches(server: served.Process, protocol: str, photos: list[bytes], n: int) -> None:
    """Measure one client with 1, 2, 4, 8 photos a request, `n` photos each time, at least two."""
    model = connect(server, protocol)
    for size in COUNTS:
        requests = max(2, n // size)
        # Every fourth photo has one size, so all of a request share a canvas.
        request = [photos[4 * k % len(photos)] for k in range(size)]
        model.call(request)  # kernels for a batch of this size
        seconds, wall = at_a_time(1, requests, lambda k, request=request: model.call(request))
        timing.print_line(
            benchmark="batches",
            protocol=protocol,
            photos=size,
            requests=requests,
            seconds=_summary(seconds),
            photos_per_s=round(requests * size / wall, 3),
        )


def memory(server: served.Process, protocol: str, photos: list[bytes], n: int) -> None:
    """Note the server's memory at every tenth of `n` requests, from two clients."""
    model = connect(server, protocol)
    mib = []
    for _ in range(_MEMORY_POINTS):
        at_a_time(2, n // _MEMORY_POINTS, lambda k: model.call([photos[k % len(photos)]]))
        mib.append(server.memory_mib())
    timing.print_line(
        benchmark="memory",
        protocol=protocol,
        requests=n // _MEMORY_POINTS * _MEMORY_POINTS,
        mib=mib,
        growth=round(mib[-1] / mib[0] - 1, 4),
        peak_mib=server.peak_memory_mib(),
    )


def main() -> None:
    """Measure what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_base_path", type=pathlib.Path)
    parser.add_argument("--protocol", default="grpc", choices=["grpc", "rest"])
    parser.add_argument("--requests", type=int, default=40, help="per number of clients or photos")
    parser.add_argument("--memory_requests", type=int, default=200)
    args = parser.parse_args()
    photos = served.photos(8)
    with tempfile.TemporaryDirectory() as temporary:
        base = args.model_base_path
        if base is None:
            import random_detector

            base = pathlib.Path(temporary) / "models"
            random_detector.export(base / "1")
        first_requests(base, args.protocol, photos[0])
        with served.process(base) as server:
            parallel_clients(server, args.protocol, photos, args.requests)
            batches(server, args.protocol, photos, args.requests)
        with served.process(base) as server:
            memory(server, args.protocol, photos, args.memory_requests)


if __name__ == "__main__":
    main()
