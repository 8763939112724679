"""The first frame of a GIF, in a graph: how large it is, and the file without all that follow.

TensorFlow's decoder goes through all frames, whatever their number and size, before it takes one.
"""

import tensorflow as tf

# Blocks of at most 255 bytes before the first frame's end: 16 MB of them.
_MOST_BLOCKS = 65536
_TRAILER, _EXTENSION, _FRAME = b"\x3b", 0x21, 0x2C  # what a block begins with
# Where a file is looked at: between blocks, in what is passed over, in the frame's data, behind it.
_BETWEEN, _PASSING, _IN_FRAME, _BEHIND = range(4)


def is_gif(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a file begins as GIFs do: string [] -> bool []."""
    return tf.strings.substr(encoded, 0, 4) == b"GIF8"


def frame_size_hw(encoded: tf.Tensor) -> tf.Tensor:
    """Return the size of the first frame.

    Args:
      encoded: string [], a GIF, perhaps a broken one.

    Returns:
      int32 [(height, width)]; zeros if no frame is found.
    """
    size_hw, _, _ = _first_frame(encoded, _BEHIND)
    return size_hw


def first_frame_alone(encoded: tf.Tensor) -> tf.Tensor:
    """Return a GIF without what stands behind its first frame: string [] -> string [].

    Raises:
      InvalidArgumentError: (when it runs) its frame ends behind more blocks than are gone through.
    """
    _, state, end = _first_frame(encoded, _IN_FRAME)
    is_cut_off = end >= _length(encoded)
    found = tf.debugging.Assert(
        is_cut_off | (state == _BEHIND), [f"a GIF of more than {_MOST_BLOCKS:,} blocks"]
    )
    with tf.control_dependencies([] if found is None else [found]):
        alone = tf.strings.join([tf.strings.substr(encoded, tf.zeros_like(end), end), _TRAILER])
    return tf.cond(is_cut_off, lambda: encoded, lambda: alone)


def _first_frame(encoded: tf.Tensor, then: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Go from block to block up to the first frame, and through it.

    Args:
      encoded: string [].
      then: `_IN_FRAME` to go on behind the frame's header, `_BEHIND` to stop there.

    Returns:
      int32 [(height, width)] of the frame; the last state, and the last position, int64 [].

    Source: GIF89a, sections 15 and 18 to 26.
    """
    length = _length(encoded)
    padded = tf.strings.join([encoded, b"\0" * 13])

    def at(position: tf.Tensor | int, size: int) -> tf.Tensor:
        """Bytes, int64 [size]; zeros behind the end."""
        start = tf.minimum(tf.cast(position, tf.int64), length)
        head = tf.strings.substr(padded, start, tf.constant(size, tf.int64))
        return tf.cast(tf.ensure_shape(tf.io.decode_raw(head, tf.uint8), [size]), tf.int64)

    def colors(flags: tf.Tensor) -> tf.Tensor:
        """Bytes of the table of colours that flags announce."""
        size = 6 * tf.bitwise.left_shift(tf.constant(1, tf.int64), flags % 8)
        return tf.where(flags >= 128, size, 0)

    def block(position: tf.Tensor, size_hw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        head = at(position, 10)
        is_frame = head[0] == _FRAME
        found_hw = tf.cast(tf.stack([head[7] + 256 * head[8], head[5] + 256 * head[6]]), tf.int32)
        # Behind a frame's header stand colours and a byte; of an extension, only its kind.
        size = tf.where(is_frame, 10 + colors(head[9]) + 1, 2)
        state = tf.where(is_frame, then, tf.where(head[0] == _EXTENSION, _PASSING, _BEHIND))
        return position + size, state, tf.where(is_frame, found_hw, size_hw)

    def piece(
        position: tf.Tensor, state: tf.Tensor, size_hw: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        count = at(position, 1)[0]
        over = tf.where(state == _PASSING, _BETWEEN, _BEHIND)
        return position + 1 + count, tf.where(count == 0, over, state), size_hw

    position, state, size_hw = tf.while_loop(
        lambda position, state, _: (state != _BEHIND) & (position < length),
        lambda position, state, size_hw: tf.cond(
            state == _BETWEEN,
            lambda: block(position, size_hw),
            lambda: piece(position, state, size_hw),
        ),
        (13 + colors(at(10, 1)[0]), tf.constant(_BETWEEN), tf.zeros([2], tf.int32)),
        maximum_iterations=_MOST_BLOCKS,
    )
    return size_hw, state, tf.minimum(position, length)


def _length(encoded: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(encoded), tf.int64)
