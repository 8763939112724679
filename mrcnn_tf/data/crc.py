"""The checksums of TFRecord files: CRC-32C, rotated and shifted by a constant.

A CRC is linear: that of a long text is made of those of its parts, each moved by as many zero bytes
as follow. So parts are gone through side by side, in NumPy, and joined.

Source: RFC 3720, appendix B.4, for the polynomial; TensorFlow's `lib/hash/crc32c.h` for the mask.
"""

import functools

import numpy as np

_LANES = 256  # parts of a long text
_SHORT = 4 * _LANES  # bytes; shorter ones go byte by byte


def masked(content: bytes) -> int:
    """Return the checksum of some bytes, as it is stored."""
    if len(content) < _SHORT:
        crc = 0xFFFFFFFF
        for byte in content:
            crc = _OF_BYTE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    else:
        crc = _of_lanes(content)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def masked_rows(rows: np.ndarray) -> np.ndarray:
    """The same of uint8 [n, bytes]: uint32 [n]."""
    crc = ~_over_rows(rows, np.full(len(rows), 0xFFFFFFFF, np.uint32))
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


def _over_rows(rows: np.ndarray, crc: np.ndarray) -> np.ndarray:
    """Go on with uint32 [n] over uint8 [n, bytes]."""
    for column in np.ascontiguousarray(rows.T):
        crc = _OF_BYTES[(crc ^ column) & 0xFF] ^ (crc >> 8)
    return crc


def _of_lanes(content: bytes) -> int:
    """The state behind a long text: begun with ones, which is to change its first four bytes."""
    length = -(-len(content) // _LANES)
    lanes = np.zeros(_LANES * length, np.uint8)
    text = lanes[len(lanes) - len(content) :]  # zeros before the first byte change nothing
    text[:] = np.frombuffer(content, np.uint8)
    text[:4] ^= 0xFF
    states = _over_rows(lanes.reshape(_LANES, length), np.zeros(_LANES, np.uint32))
    moved = _moved_by(length)
    crc = 0
    for state in states.tolist():
        bytes_of = crc & 0xFF, (crc >> 8) & 0xFF, (crc >> 16) & 0xFF, crc >> 24
        crc = state
        for table, byte in zip(moved, bytes_of, strict=True):
            crc ^= table[byte]
    return crc


@functools.lru_cache(64)
def _moved_by(num_zeros: int) -> tuple[list[int], ...]:
    """For each byte of a state, what becomes of its 256 values when zero bytes follow."""
    states = (
        np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    ).ravel()
    for _ in range(num_zeros):
        states = _OF_BYTES[states & 0xFF] ^ (states >> 8)
    return tuple(states.reshape(4, 256).tolist())


def _table() -> list[int]:
    """What each byte does to a state; 0x82f63b78 is the polynomial, reversed."""
    table = list(range(256))
    for _ in range(8):
        table = [(crc >> 1) ^ (0x82F63B78 if crc & 1 else 0) for crc in table]
    return table


_OF_BYTE = _table()
_OF_BYTES = np.array(_OF_BYTE, np.uint32)
