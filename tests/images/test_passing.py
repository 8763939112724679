"""Which errors a second try may mend."""

import errno
import io

import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.images import passing, reading, storage


def _of_pillow():
    """What Pillow raises of a file that ends too early."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (1, 2, 3)).save(file, "TIFF")
    try:
        Image.open(io.BytesIO(file.getvalue()[:900])).load()
    except OSError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), True),
        (MemoryError(), True),
        (tf.errors.UnavailableError(None, None, "503"), True),
        (tf.errors.DeadlineExceededError(None, None, ""), True),
        (tf.errors.AbortedError(None, None, ""), True),
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), True),
        (tf.errors.UnknownError(None, None, "a.jpg; Input/output error"), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (tf.errors.NotFoundError(None, None, ""), False),
        (tf.errors.DataLossError(None, None, "corrupted record at 5"), False),
        (tf.errors.InvalidArgumentError(None, None, "no JPEG"), False),
        (ValueError("two"), False),
        (_of_pillow(), False),
    ],
    ids=str,
)
def test_by_error_and_by_cause(error, expected):
    assert passing.may_pass(error) is expected
    with pytest.raises(ValueError, match="of a file") as outer:
        raise ValueError("of a file") from error
    assert passing.may_pass(outer.value) is expected


def test_by_what_the_reader_of_images_says(tmp_path, monkeypatch):
    with pytest.raises(reading.UnusableImageError) as absent:
        reading.read(tmp_path / "absent.png")
    assert not passing.may_pass(absent.value)

    def fail(path):
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(storage, "read", fail)
    with pytest.raises(reading.UnusableImageError, match="Input/output error") as damaged:
        reading.read(tmp_path / "absent.png")
    assert passing.may_pass(damaged.value)
