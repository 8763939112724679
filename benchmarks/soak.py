"""A served export under load for an hour: does it stay right, quick and small?

Four clients, two per protocol, send photos of four sizes, one or two a request, and now and then a
damaged one and a good one: the first is to be refused, the other answered as if it were alone. Each
answer is compared with the first one to the same photos: as many detections, and every score within
`SCORE_TOLERANCE`. Every minute the server's memory and the seconds per request are noted. The
server is `model_server.py` over TensorFlow's C++ loader, in a process of its own.

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

from mrcnn_tf.remote.served_model import ServedModel  # noqa: E402
from mrcnn_tf.remote.server import Server  # noqa: E402
from mrcnn_tf.serving.detection_status import DONE, UNDECODABLE  # noqa: E402

PROTOCOLS = ("grpc", "grpc", "rest", "rest")
SCORE_TOLERANCE = 1e-3  # threads add up in another order
MAX_GROWTH = 0.02
_DEADLINE_S = 120.0


class Soak:
    """What the clients share.

    Attributes:
      seconds: of each request since they were last taken.
      num_requests: answered so far.
      num_refused: damaged photos that were refused.
      wrong: what was wrong, in words.
    """

    def __init__(self, photos: list[bytes], end: float, damaged: float):
        """Remember the photos, the clock's time to end at, and which fraction is damaged."""
        self._photos = photos
        self._end = end
        self._damaged = damaged
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
                if draw.random() < self._damaged:
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
        with self._lock:
            self.seconds.append(taken)
            self.num_requests += 1
        self._compare(chosen, answer["detection_scores"])

    def _send_damaged(self, model: ServedModel, draw: random.Random) -> None:
        good = draw.randrange(len(self._photos))
        photo = self._photos[good]
        answer = model.call([photo[: len(photo) // 2], photo])
        status = answer["detection_status"].tolist()
        if status == [UNDECODABLE, DONE]:
            self._compare((good,), answer["detection_scores"][1:])
        else:
            self._note_wrong(f"photo {good} behind one that is cut: statuses {status}")
        with self._lock:
            self.num_requests += 1
            self.num_refused += status[0] == UNDECODABLE

    def _compare(self, chosen: tuple[int, ...], scores: np.ndarray) -> None:
        """Compare with the first answer to these photos: scores float32 [len(chosen), D]."""
        with self._lock:
            expected = self._expected.setdefault(chosen, scores)
        if scores.shape != expected.shape or np.abs(scores - expected).max() > SCORE_TOLERANCE:
            self._note_wrong(f"photos {chosen}: other scores than at first")

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
    parser.add_argument(
        "--damaged", type=float, default=0.02, help="fraction of requests with a damaged photo"
    )
    args = parser.parse_args()
    photos = served.photos(8)
    with served.process(args.model_base_path) as server:
        start = time.monotonic()
        soak = Soak(photos, start + 60 * args.minutes, args.damaged)
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
        settled = mib[max(len(mib) // 10 - 1, 0)]  # at the end of the first tenth
        growth = mib[-1] / settled - 1
    timing.print_line(
        benchmark="soak, result",
        minutes=args.minutes,
        requests=soak.num_requests,
        refused=soak.num_refused,
        wrong=soak.wrong[:20],
        mib=[settled, mib[-1]],
        growth=round(growth, 4),
    )
    return int(bool(soak.wrong) or growth > MAX_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
