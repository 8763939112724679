"""Files of this machine; those of others are tested where they are used."""

import errno
import os

import pytest

from mrcnn_tf.images import storage


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no file that takes nothing")
def test_a_full_disk_is_named():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'") as error:
        storage.write("/dev/full", b"content")
    assert error.value.errno == errno.ENOSPC


def test_a_folder_that_may_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file/below"):
        storage.write(str(tmp_path / "file/below/a"), b"content")
