"""Says why nothing moves while TensorFlow prepares a network for its first images."""

import time
from collections.abc import Callable, Sequence

from mrcnn_tf.serving import answers, any_predictor, predictor, remote_predictor


def told(
    detect: any_predictor.AnyPredictor,
) -> Callable[[Sequence[predictor.Prepared]], answers.Answer]:
    """Return the predictor's `call`; unless it asks a server, it prints about the first one."""
    if isinstance(detect, remote_predictor.RemotePredictor):
        return detect.call
    is_first = True

    def call(batch: Sequence[predictor.Prepared]) -> answers.Answer:
        nonlocal is_first
        if not is_first:
            return detect.call(batch)
        start = time.monotonic()
        print("first call: TensorFlow prepares the graph, which takes a while", flush=True)
        answer = detect.call(batch)
        print(f"first call took {time.monotonic() - start:.1f} s", flush=True)
        is_first = False
        return answer

    return call
