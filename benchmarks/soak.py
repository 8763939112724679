"""A served export under load for an hour: does it stay right, quick and small?

Four clients, two per protocol, send photos of four sizes, one or two a request, and now and then a
damaged one, which has to be refused without harm to the others. Each answer is compared with the
first one to the same request: as many detections, and every score within `SCORE_TOLERANCE`. Every
minute the server's memory and the seconds per request are noted. The server is `model_server.py`
over TensorFlow's C++ loader, in a process of its own.

    python benchmarks/soak.py --model_base_path=kit/models/shapes --minutes=60

prints one JSON line a minute and one at the end, and exits with 1 if an answer was wrong or missing
or if memory grew by more than 2 % from the end of the first tenth of the time to the end.
"""

import argparse
import os
import pathlib
import random
import statistics
import sys
import threading
import time

import numpy as np
import served
import timing

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from mrcnn_tf.remote.failures import ServerError  # noqa: E402
from mrcnn_tf.remote.served_model import ServedModel  # noqa: E402
from mrcnn_tf.remote.server import Server  # noqa: E402

PROTOCOLS = ("grpc", "grpc", "rest", "rest")
SCORE_TOLERANCE = 1e-3  # threads add up in another order
MAX_GROWTH = 0.02
_DEADLINE_S = 120.0
_DAMAGED = 0.02  # of the requests


class Soak:
    """What the clients share.

    Attributes:
      seconds: of each request since they were last taken.
      num_requests: answered so far.
      num_refused: damaged photos that were refused.
      wrong: what was wrong, in words.
    """

    def __init__(self, photos: list[bytes], end: float):
        self._photos = photos
        self._end = end
        self._expected: dict[tuple[int, ...], np.ndarray] = {}
        self._lock = threading.Lock()
        self.seconds: list[float] = []
        self.num_requests = 0
        self.num_refused = 0
        self.wrong: list[str] = []

    def client(self, server: Server, seed: int) -> None:
        """Send requests until the time is over."""
        draw = random.Random(seed)
        try:
            model = ServedModel(server)
            while time.monotonic() < self._end:
                if draw.random() < _DAMAGED:
                    self._send_damaged(model, draw)
                else:
                    self._send(model, draw)
        except Exception as error:
            self._note_wrong(f"{server.protocol}: {type(error).__name__}: {error}")

    def _send(self, model: ServedModel, draw: random.Random) -> None:
        # Either one photo, or two of one size.
        first = draw.randrange(4)
        chosen = (first,) if draw.random() < 0.75 else (first, first + 4)
        start = time.perf_counter()
        answer = model.call([self._photos[k] for k in chosen])
        taken = time.perf_counter() - start
        scores = answer["detection_scores"]
        with self._lock:
            self.seconds.append(taken)
            self.num_requests += 1
            expected = self._expected.setdefault(chosen, scores)
        if scores.shape != expected.shape or np.abs(scores - expected).max() > SCORE_TOLERANCE:
            self._note_wrong(f"photos {chosen}: other scores than at first")

    def _send_damaged(self, model: ServedModel, draw: random.Random) -> None:
        photo = self._photos[draw.randrange(len(self._photos))]
        try:
            answer = model.call([photo[:2] + b"\0" * 100])
        except ServerError as error:
            refused = not error.is_temporary
        else:
            refused = bool(np.all(answer.get("detection_status", np.zeros(1))))
        if not refused:
            self._note_wrong("a damaged photo was not refused")
        with self._lock:
            self.num_requests += 1
            self.num_refused += refused

    def _note_wrong(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)

    def take_seconds(self) -> list[float]:
        """Return what was measured since the last call."""
        with self._lock:
            seconds, self.seconds = sorted(self.seconds), []
        return seconds


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_base_path", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    args = parser.parse_args()
    photos = served.photos(8)
    with served.process(args.model_base_path) as server:
        start = time.monotonic()
        soak = Soak(photos, start + 60 * args.minutes)
        clients = [
            threading.Thread(
                target=soak.client,
                args=(
                    Server(server.addresses[protocol], protocol, served.MODEL_NAME, _DEADLINE_S),
                    number,
                ),
            )
            for number, protocol in enumerate(PROTOCOLS)
        ]
        for client in clients:
            client.start()
        interval = min(60.0, 6 * args.minutes)  # ten points at least
        mib: list[float] = []
        while not mib or any(client.is_alive() for client in clients):
            tick = start + interval * (len(mib) + 1)
            for client in clients:
                client.join(max(0.0, tick - time.monotonic()))
            mib.append(server.memory_mib())
            seconds = soak.take_seconds()
            timing.print_line(
                benchmark="soak",
                minute=round((time.monotonic() - start) / 60, 2),
                mib=mib[-1],
                requests=soak.num_requests,
                median_s=round(statistics.median(seconds), 4) if seconds else None,
                max_s=round(seconds[-1], 4) if seconds else None,
                wrong=len(soak.wrong),
            )
        growth = mib[-1] / mib[len(mib) // 10] - 1
    timing.print_line(
        benchmark="soak, result",
        minutes=args.minutes,
        requests=soak.num_requests,
        refused=soak.num_refused,
        wrong=soak.wrong[:20],
        mib=[mib[len(mib) // 10], mib[-1]],
        growth=round(growth, 4),
    )
    return int(bool(soak.wrong) or growth > MAX_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
