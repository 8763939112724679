"""Decodes image files with TensorFlow: in exported graphs, and wherever Python reads JPEG or PNG.

So a file that these ops refuse is refused at every door, and the pixels are the same behind each.
"""

import tensorflow as tf

from mrcnn_tf.images import depth, gif


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
            (gif.is_gif(encoded), lambda: _decode_gif(encoded)),
        ],
        default=lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def claimed_size_hw(encoded: tf.Tensor) -> tf.Tensor:
    """Return the size that a file claims in its header; nothing is decoded.

    Decoding gives this size or refuses the file. Of a GIF whose first frame does not fill it, that
    frame is decoded, which is no larger.

    Args:
      encoded: string [], a JPEG, PNG, GIF, BMP or WebP file.

    Returns:
      int32 [(height, width)]; zeros if it is none of these. Of a GIF, the larger sides of the whole
      and of its first frame.

    Raises:
      InvalidArgumentError: (when it runs) a JPEG whose header is broken.

    Source: PNG, third edition, section 11.2.1; GIF89a, sections 18 and 20; BITMAPINFOHEADER; WebP,
      RFC 9649 sections 2.5 to 2.7, RFC 6386 section 9.1.
    """
    # What is behind a short file reads as zeros.
    start = tf.strings.join([tf.strings.substr(encoded, 0, 32), b"\0" * 32])

    def number(position: int, size: int) -> tf.Tensor:
        """Read an unsigned integer of so many bytes, the least significant one first."""
        digits = tf.io.decode_raw(tf.strings.substr(start, position, size), tf.uint8)
        weights = tf.constant([256**k for k in range(size)], tf.int64)
        return tf.reduce_sum(tf.cast(tf.ensure_shape(digits, [size]), tf.int64) * weights)

    def pair(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.minimum(tf.stack([height, width]), tf.int32.max), tf.int32)

    def bmp() -> tf.Tensor:
        height = number(22, 4)  # negative where the rows go down
        return pair(tf.minimum(height, 2**32 - height), number(18, 4))

    def lossless() -> tf.Tensor:  # 14 bits each, less one
        bits = number(21, 4)
        return pair(bits // 2**14 % 2**14 + 1, bits % 2**14 + 1)

    def begins(pattern: str) -> tf.Tensor:
        return tf.strings.regex_full_match(start, pattern + r"\C*")

    return tf.case(
        [
            (tf.io.is_jpeg(encoded), lambda: tf.image.extract_jpeg_shape(encoded)[:2]),
            (_is_png(encoded), lambda: _png_size_hw(encoded)),
            (
                gif.is_gif(encoded),
                lambda: tf.maximum(pair(number(8, 2), number(6, 2)), gif.frame_size_hw(encoded)),
            ),
            (begins("BM"), bmp),
            (
                begins(r"RIFF\C{4}WEBPVP8 "),
                lambda: pair(number(28, 2) % 2**14, number(26, 2) % 2**14),
            ),
            (begins(r"RIFF\C{4}WEBPVP8L"), lossless),
            (begins(r"RIFF\C{4}WEBPVP8X"), lambda: pair(number(27, 3) + 1, number(24, 3) + 1)),
        ],
        default=lambda: tf.zeros([2], tf.int32),
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


def _decode_gif(encoded: tf.Tensor) -> tf.Tensor:
    alone = gif.first_frame_alone(encoded)
    return tf.io.decode_image(alone, channels=3, expand_animations=False)


def _is_png(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a file has PNG's signature and a whole header chunk behind it."""
    signed = tf.strings.substr(encoded, 0, 8) == b"\x89PNG\r\n\x1a\n"
    return signed & (tf.strings.length(encoded) >= 33)


def _png_size_hw(encoded: tf.Tensor) -> tf.Tensor:
    """Read width and height, the first fields of the header chunk, most significant byte first."""
    width_height = tf.io.decode_raw(
        tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False
    )
    return tf.ensure_shape(tf.maximum(width_height[::-1], 0), [2])


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
