"""The requests with which TensorFlow Serving warms a model up before it takes any other.

A first request is slow: TensorFlow plans the graph, and libraries make kernels for sizes that they
see for the first time. TensorFlow Serving replays the records of one file in the SavedModel before
a version is available; `tensorflow_model_server --enable_model_warmup=false` leaves them out.

Source: tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc: the file's place, and
  that it holds serialized `PredictionLog`s as TFRecords, at most 1000.
"""

import io
import math
import os

import tensorflow as tf
from PIL import Image

from mrcnn_tf.data import schema
from mrcnn_tf.remote import messages
from mrcnn_tf.serving import verification

FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
# 4:3 and 16:9, which share no canvas, lying and standing. (height, width), pixels; smaller ones of
# the same forms where an export takes no more pixels.
SIZES_HW = ((768, 1024), (1024, 768), (720, 1280), (1280, 720))


def requests(
    signature: str, input_name: str, input_type: str, max_image_pixels: int
) -> list[bytes]:
    """Return a serialized PredictionLog per size: a request of one picture.

    Args:
      signature: the signature's name.
      input_name: of its one input.
      input_type: "image_bytes" (JPEG files), "image_tensor" or "tf_example".
      max_image_pixels: no picture is larger: a larger one would be refused, and warm nothing up.
    """
    logs = []
    sizes_hw = [_within(size_hw, max_image_pixels) for size_hw in SIZES_HW]
    for pixels in verification.sample_images(sizes_hw):
        pictures: messages.Pictures = pixels[None]
        if input_type != "image_tensor":
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
            pictures = [buffer.getvalue()]
        if input_type == "tf_example":
            pictures = [messages.encode_example(schema.IMAGE_ENCODED, one) for one in pictures]
        log = messages.PredictionLog()
        log.predict_log.request.CopyFrom(messages.predict_request(signature, input_name, pictures))
        logs.append(log.SerializeToString())
    return logs


def _within(size_hw: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return a size of the same form that has no more pixels."""
    height, width = size_hw
    scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    return int(height * scale), int(width * scale)


def write(saved_model: str, records: list[bytes]) -> None:
    """Write the file into a SavedModel."""
    path = os.path.join(saved_model, FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
