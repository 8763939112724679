"""Which way up an image is meant: the EXIF orientation, read and applied with TensorFlow ops.

There is one rule, and it is this file: the converter, `predict`, the Python API and every exported
graph call it. The tag is looked for in the bytes of JPEG, PNG and WebP files. Whatever is odd
about it (no tag, a value outside 1..8, another type, offsets that lead nowhere) means 1: the
pixels are shown as they are stored. Nothing in here raises an error on any bytes.

    1  as stored                        5  transposed
    2  mirrored left to right           6  turned by 90 degrees, clockwise
    3  turned by 180 degrees            7  transposed along the other diagonal
    4  mirrored top to bottom           8  turned by 90 degrees, anti-clockwise
"""

from collections.abc import Callable

import tensorflow as tf

# Of a file: more segments or chunks than any camera or editor writes, few enough for hostile files.
_MAX_BLOCKS = 65536
_MAX_EXIF_BYTES = 65536  # what a JPEG's segment can hold; the first directory comes first
_TAG, _SHORT, _LONG = 0x0112, 3, 4  # the orientation's number, and TIFF's unsigned integers
_EXIF = [ord(letter) for letter in "Exif"] + [0, 0]  # what a JPEG's segment begins with
# One of these stands in every file that has an orientation; looking for them is fast.
MARKS = (b"Exif\0\0", b"eXIf", b"EXIF")
# What undoes each orientation: itself, but for the two quarter turns, which undo each other.
INVERSE = (0, 1, 2, 3, 4, 5, 8, 7, 6)

Step = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
Place = tuple[tf.Tensor, tf.Tensor]


def read(encoded: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientation of an image file: string [] -> int32 [], 1..8."""
    begin, length = find_exif(encoded)
    return of_exif(tf.strings.substr(encoded, begin, length))


def find_exif(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Find the EXIF data of an image file.

    Args:
      encoded: string [], the file.

    Returns:
      Where the data begin and how long they are, without the head of their segment or chunk: int64
      [] each, 0 if there are none. A broken file may say that they go on behind its end.

    Source: JPEG, CIPA DC-008 section 4.7.2 (Exif in APP1); PNG, third edition, section 11.3.4.5
      (eXIf); WebP, RFC 9649 section 2.7.1.5 (EXIF). The tag itself: CIPA DC-008, table 4.
    """
    start = tf.strings.substr(encoded, 0, 12)
    return tf.case(
        [
            (tf.strings.substr(start, 0, 2) == b"\xff\xd8", lambda: _in_jpeg(encoded)),
            (tf.strings.substr(start, 0, 8) == b"\x89PNG\r\n\x1a\n", lambda: _in_png(encoded)),
            (_is_webp(start), lambda: _in_webp(encoded)),
        ],
        default=lambda: (tf.constant(0, tf.int64), tf.constant(0, tf.int64)),
    )


def of_exif(block: tf.Tensor) -> tf.Tensor:
    """Return the orientation that a block of EXIF data holds.

    Args:
      block: string [], a TIFF header with its first directory, little- or big-endian; "Exif" and
        two zeros may stand before it.

    Returns:
      int32 [], 1..8.
    """
    has_prefix = tf.strings.substr(block, 0, 6) == b"Exif\0\0"
    block = tf.strings.substr(block, tf.where(has_prefix, 6, 0), _MAX_EXIF_BYTES)
    length = tf.cast(tf.strings.length(block), tf.int64)
    data = _bytes(tf.strings.join([block, b"\0" * 16]))
    is_little = (data[0] == ord("I")) & (data[1] == ord("I"))
    is_big = (data[0] == ord("M")) & (data[1] == ord("M"))

    def number(position: tf.Tensor, size: int) -> tf.Tensor:
        """Return the unsigned integers of `size` bytes at positions [...]."""
        index = tf.cast(position, tf.int64)[..., tf.newaxis] + tf.range(size, dtype=tf.int64)
        digits = tf.gather(data, tf.clip_by_value(index, 0, length + 15))
        return _integer(tf.where(is_little, digits[..., ::-1], digits))

    directory = number(4, 4)
    fits = (is_little | is_big) & (number(2, 2) == 42) & (directory + 2 <= length)
    num_entries = tf.minimum(number(directory, 2), (length - directory - 2) // 12)
    entry = directory + 2 + 12 * tf.range(tf.where(fits, num_entries, 0))  # [n]
    kind = number(entry + 2, 2)
    value = tf.where(kind == _SHORT, number(entry + 8, 2), number(entry + 8, 4))
    is_meant = (number(entry, 2) == _TAG) & (number(entry + 4, 4) == 1)
    is_meant &= ((kind == _SHORT) | (kind == _LONG)) & (value >= 1) & (value <= 8)
    found = tf.boolean_mask(value, is_meant)
    return tf.cast(tf.concat([found, [1]], axis=0)[0], tf.int32)


def turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn stored pixels upright.

    Args:
      pixels: [h, w, c], as stored.
      orientation: int32 [], 1..8.

    Returns:
      [h', w', c], as the image is meant; h' = w and w' = h for 5..8.
    """
    step = (orientation - 1) % 4  # mirror nothing, x, both, y
    pixels = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    pixels = tf.cond((step == 1) | (step == 2), lambda: pixels[:, ::-1], lambda: pixels)
    return tf.cond(step >= 2, lambda: pixels[::-1], lambda: pixels)


def turn_size_hw(size_hw: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return the size of the upright image: [2] of the stored one -> [(height, width)]."""
    return tf.where(orientation >= 5, size_hw[::-1], size_hw)


def _in_jpeg(encoded: tf.Tensor) -> Place:
    """Look through the segments before the pixels for Exif data."""

    def step(position: tf.Tensor) -> Step:
        head = _bytes(tf.strings.substr(encoded, position, 10))
        marker, length = head[1], _integer(head[2:4])
        has_length = (marker != 0x01) & ((marker < 0xD0) | (marker > 0xD7))
        is_filler = marker == 0xFF  # any number of these may stand before a marker
        is_last = (head[0] != 0xFF) | (marker == 0xDA) | (marker == 0xD9)
        is_exif = (marker == 0xE1) & tf.reduce_all(head[4:] == _EXIF)
        size = tf.where(~is_filler, tf.where(has_length, length + 2, 2), 1)
        return (
            tf.where(is_last | (size < 1), _END, position + size),
            position + 10,
            tf.where(is_exif & ~is_last, length - 8, 0),
        )

    return _walk(encoded, 2, 10, step)


def _in_png(encoded: tf.Tensor) -> Place:
    """Look through the chunks for eXIf, which may stand before or behind the pixels."""

    def step(position: tf.Tensor) -> Step:
        length = _integer(_bytes(tf.strings.substr(encoded, position, 4)))
        is_exif = tf.strings.substr(encoded, position + 4, 4) == b"eXIf"
        return position + 12 + length, position + 8, tf.where(is_exif, length, 0)

    return _walk(encoded, 8, 8, step)


def _is_webp(start: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_full_match(start, r"RIFF\C{4}WEBP")


def _in_webp(encoded: tf.Tensor) -> Place:
    """Look through the chunks for EXIF; each begins at an even place."""

    def step(position: tf.Tensor) -> Step:
        length = _integer(_bytes(tf.strings.substr(encoded, position + 4, 4))[::-1])
        is_exif = tf.strings.substr(encoded, position, 4) == b"EXIF"
        next_position = position + 8 + length + length % 2
        return next_position, position + 8, tf.where(is_exif, length, 0)

    return _walk(encoded, 12, 8, step)


_END = tf.int64.max


def _walk(
    encoded: tf.Tensor, start: int, head_size: int, step: Callable[[tf.Tensor], Step]
) -> Place:
    """Walk from block to block until one holds EXIF data.

    Args:
      encoded: string [], the file.
      start: where the first block begins.
      head_size: bytes that `step` reads.
      step: from a block's position to (the next one's; where this one's EXIF data begins; their
        length, 0 if it holds none), all int64 [].

    Returns:
      As `find_exif`.
    """
    file_size = tf.cast(tf.strings.length(encoded), tf.int64)

    def goes_on(position: tf.Tensor, begin: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        del begin
        return (length <= 0) & (position <= file_size - head_size)

    _, begin, length = tf.while_loop(
        goes_on,
        lambda position, begin, length: step(position),
        (tf.constant(start, tf.int64), tf.constant(0, tf.int64), tf.constant(0, tf.int64)),
        maximum_iterations=_MAX_BLOCKS,
    )
    return tf.where(length > 0, tf.minimum(begin, file_size), 0), tf.maximum(length, 0)


def _bytes(text: tf.Tensor) -> tf.Tensor:
    """Return the bytes of a string [] as int64 [n]."""
    return tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int64)


def _integer(digits: tf.Tensor) -> tf.Tensor:
    """Return the integer of bytes int64 [..., n], the most significant one first: int64 [...]."""
    powers = 256 ** tf.range(digits.shape[-1] or tf.size(digits), dtype=tf.int64)[::-1]
    return tf.reduce_sum(digits * powers, axis=-1)
