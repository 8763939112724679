"""Which pixels the Python client sends; its server only takes note."""

import io

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf import client
from mrcnn_tf.remote.failures import ServerError

GRAY = np.arange(0, 256, 16, dtype=np.uint8).reshape(2, 8)


class Served:
    """In the place of a `ServedModel`: finds nothing, keeps what it was sent."""

    category_names = {}
    description = {}
    mask_convention = "pixel_centres"
    suggested_score_threshold = None

    def __init__(self, input_type):
        self.input_type = input_type

    def call(self, pictures):
        (picture,) = pictures
        is_file = isinstance(picture, bytes)
        self.sent = np.asarray(Image.open(io.BytesIO(picture))) if is_file else picture
        return {
            "image_size": np.array([self.sent.shape[:2]], np.int32),
            "num_detections": np.zeros(1, np.float32),
            "detection_boxes": np.zeros([1, 0, 4], np.float32),
            "detection_class_ids": np.zeros([1, 0], np.int64),
            "detection_scores": np.zeros([1, 0], np.float32),
        }


@pytest.fixture(params=["image_bytes", "image_tensor"])
def served(request, monkeypatch):
    served = Served(request.param)
    monkeypatch.setattr(client, "ServedModel", lambda server: served)
    return served


def tiff(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", **options)
    return buffer.getvalue()


def test_of_16_bits_the_upper_eight_are_sent(served):
    """Not those above 255 as white."""
    assert client.Client("a:1")([tiff(GRAY.astype(np.uint16) * 256 + 77)]) == [[]]
    np.testing.assert_array_equal(served.sent, np.repeat(GRAY[..., np.newaxis], 3, axis=2))


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_what_cannot_become_8_bits_is_named(served, tmp_path, form):
    path = tmp_path / "floats.tif"
    path.write_bytes(tiff(GRAY.astype(np.float32) * 1000))
    image, name = (path, str(path)) if form == "path" else (path.read_bytes(), "image 0")
    with pytest.raises(ValueError, match=f"^{name}: "):
        client.Client("a:1")([image])
    assert not hasattr(served, "sent")


def test_a_picture_that_pillow_takes_for_a_bomb_is_named(served, tmp_path, monkeypatch):
    path = tmp_path / "large.tif"
    path.write_bytes(tiff(np.zeros([30, 40], np.uint8)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # half of what it refuses
    with pytest.raises(ValueError, match=f"^{path}: .*1200 pixels"):
        client.Client("a:1")([path])


def test_a_file_is_turned_upright(served):
    exif = Image.Exif()
    exif[0x0112] = 6  # by 90 degrees clockwise
    buffer = io.BytesIO()
    Image.fromarray(GRAY).save(buffer, "WEBP", lossless=True, exif=exif)
    client.Client("a:1")([buffer.getvalue()])
    np.testing.assert_array_equal(served.sent[..., 0], np.rot90(GRAY, -1))


def test_a_failure_keeps_its_kind(served, monkeypatch):
    late = ServerError("no answer", is_timeout=True)

    def call(pictures):
        raise late

    monkeypatch.setattr(served, "call", call)
    with pytest.raises(ServerError, match="^image 0: no answer$") as error:
        client.Client("a:1")([tiff(GRAY)])
    assert error.value.is_timeout
