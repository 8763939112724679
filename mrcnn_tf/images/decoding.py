"""Decodes image files with TensorFlow: in exported graphs, and wherever Python reads JPEG or PNG.

So a file that these ops refuse is refused at every door, and the pixels are the same behind each.
"""

import tensorflow as tf

from mrcnn_tf.images import depth


def decode_as_stored(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG, PNG, BMP, GIF or WebP file; `orientation.turn` turns it upright.

    Gray becomes three equal channels, CMYK becomes RGB, alpha is dropped, and of an animation the
    first frame counts. Of 16 bits the upper eight are kept, where they hold an image, see
    `depth.py`.

    Args:
      encoded: string [].

    Returns:
      uint8 [h, w, 3], RGB.

    Raises:
      InvalidArgumentError: (when it runs) not such a file, a broken one, or 16 bits of which the
        upper ones are all but empty.

    Source: JPEGs as `data/decoder.py` decodes them, with the accurate integer transform, which
      `decode_image` does not offer.
    """
    image = tf.case(
        [
            (tf.io.is_jpeg(encoded), lambda: _decode_jpeg(encoded)),
            (_is_16_bit_png(encoded), lambda: _decode_16_bit_png(encoded)),
        ],
        default=lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def stored_size_hw(encoded: tf.Tensor) -> tf.Tensor:
    """Return the size of what `decode_as_stored` returns, of JPEG and PNG from the header alone.

    Args:
      encoded: string [].

    Returns:
      int32 [(height, width)]. A header may lie; the decoder then refuses the file.
    """
    return tf.case(
        [
            (tf.io.is_jpeg(encoded), lambda: tf.image.extract_jpeg_shape(encoded)[:2]),
            (_is_png(encoded), lambda: _png_size_hw(encoded)),
        ],
        default=lambda: tf.shape(decode_as_stored(encoded))[:2],
    )


def check(encoded: tf.Tensor) -> None:
    """Read a JPEG or PNG file to its end with the decoder of training, and drop the pixels.

    Of a JPEG, all coefficients are read but only an eighth of the pixels made, which costs half.

    Args:
      encoded: string [].

    Raises:
      InvalidArgumentError: (when it runs) training could not decode it.
    """
    tf.io.decode_jpeg(encoded, channels=3, ratio=8)  # reads PNG as well, with any ratio in full


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _is_png(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a file has PNG's signature and a whole header chunk behind it."""
    signed = tf.strings.substr(encoded, 0, 8) == b"\x89PNG\r\n\x1a\n"
    return signed & (tf.strings.length(encoded) >= 33)


def _png_size_hw(encoded: tf.Tensor) -> tf.Tensor:
    """Read width and height, the first fields of the header chunk, most significant byte first."""
    width_height = tf.io.decode_raw(
        tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False
    )
    return tf.ensure_shape(tf.maximum(width_height[::-1], 1), [2])


def _is_16_bit_png(encoded: tf.Tensor) -> tf.Tensor:
    """Look at the ninth byte of the header chunk, which comes first."""
    return tf.cond(
        _is_png(encoded),
        lambda: tf.strings.substr(encoded, 24, 1) == b"\x10",
        lambda: tf.constant(False),
    )


def _decode_16_bit_png(encoded: tf.Tensor) -> tf.Tensor:
    deep = tf.io.decode_png(encoded, channels=3, dtype=tf.uint16)
    image = tf.cast(tf.bitwise.right_shift(deep, tf.constant(8, tf.uint16)), tf.uint8)
    brightest = tf.reduce_max(tf.cast(image, tf.int32))
    message = f"a PNG of 16 bits {depth.TOO_DARK}; its brightest value is at most"
    check = tf.debugging.Assert(brightest >= depth.MIN_BRIGHTEST, [message, 256 * brightest + 255])
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(image)
