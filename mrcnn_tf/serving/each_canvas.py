"""A request of any images: the network sees one canvas after the other.

An image's answer does not depend on what is sent with it. Padding changes what a network computes,
by a little near an image's edge where its norms are fixed, everywhere where they are group norms,
which take their statistics over the padding as well, in training too. So nothing is padded to a
companion's canvas: images that share one share a call of the network, the others have their own.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

from mrcnn_tf.serving import detection_status, preprocessing

Answer = dict[str, tf.Tensor]
Network = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Answer]

_SIDE = 2**31  # more than any side of a canvas


def answer(
    network: Network,
    specs: Mapping[str, tf.TensorSpec],
    preprocess: preprocessing.Preprocessor,
    request: preprocessing.Request,
) -> dict[str, tf.Tensor]:
    """Call the network on all images of a request that can be used.

    Args:
      network: see `signatures.build_network`.
      specs: of what it answers; all dimensions but the first are known.
      preprocess: what looked at the request.
      request: see there.

    Returns:
      The network's outputs, [B, ...] each, in the request's order: zeros for an image that cannot
      be used, except for `image_size`, which is what its header claims. And
      detection_status: int32 [B], see `detection_status.py`.
    """
    with tf.device("CPU:0"):
        sides = tf.cast(request.canvas_hw, tf.int64)
        usable = request.status == detection_status.DONE
        canvas = tf.where(usable, sides[:, 0] * _SIDE + sides[:, 1], -1)  # [B]
        canvases = tf.unique(tf.boolean_mask(canvas, usable)).y
        # Until it is decoded, nothing is.
        status = tf.where(usable, detection_status.UNDECODABLE, request.status)
    count = tf.shape(status)[0]
    rows_of_zeros = {
        name: tf.zeros(tf.concat([[count], spec.shape[1:]], 0), spec.dtype)
        for name, spec in specs.items()
    }

    def add(k: tf.Tensor, status: tf.Tensor, found: Answer) -> tuple[tf.Tensor, tf.Tensor, Answer]:
        with tf.device("CPU:0"):
            rows = tf.where(canvas == canvases[k])[:, 0]
            rows, batch = preprocess.load(request, rows, tf.gather(request.canvas_hw, rows[0]))
            place = rows[:, tf.newaxis]
            done = tf.fill(tf.shape(rows), detection_status.DONE)
            status = tf.tensor_scatter_nd_update(status, place, done)

        def call() -> Answer:
            new = network(*batch)
            return {
                name: tf.tensor_scatter_nd_update(old, place, new[name])
                for name, old in found.items()
            }

        return k + 1, status, tf.cond(tf.size(rows) > 0, call, lambda: found)

    # One after the other: two canvases' activations are not in memory at once.
    _, status, found = tf.while_loop(
        lambda k, status, found: k < tf.size(canvases),
        add,
        (tf.constant(0), status, rows_of_zeros),
        parallel_iterations=1,
    )
    return found | {"image_size": request.original_size_hw, detection_status.OUTPUT: status}
