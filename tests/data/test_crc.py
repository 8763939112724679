"""Checksums against CRC-32C's check value, and against what TensorFlow writes."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import crc


def test_the_check_value():
    check = 0xE3069283  # CRC-32C of "123456789"
    assert crc.masked(b"123456789") == (((check >> 15) | (check << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("size", [0, 1, 3, 1023, 1024, 1025, 4096, 70_001, 200_000])
def test_what_tensorflow_writes(tmp_path, size):
    content = np.random.default_rng(size).bytes(size)
    with tf.io.TFRecordWriter(str(tmp_path / "x")) as writer:
        writer.write(content)
    written = (tmp_path / "x").read_bytes()
    assert crc.masked(content) == struct.unpack("<I", written[-4:])[0]
    assert crc.masked(written[:8]) == struct.unpack("<I", written[8:12])[0]


def test_rows():
    rows = np.random.default_rng(0).integers(0, 256, [50, 8], dtype=np.uint8)
    assert crc.masked_rows(rows).tolist() == [crc.masked(row.tobytes()) for row in rows]
