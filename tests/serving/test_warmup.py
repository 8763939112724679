"""The file that TensorFlow Serving replays before a version is available."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from mrcnn_tf.serving import signatures, warmup


@pytest.mark.parametrize("input_type", sorted(signatures.INPUT_SPECS))
def test_its_records_are_requests_that_the_model_answers(export, input_type):
    path = export(input_type)
    model = tf.saved_model.load(str(path))
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    seen = []
    for record in tf.data.TFRecordDataset(str(file)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        signature = model.signatures[request.model_spec.signature_name]
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        specs = signature.structured_input_signature[1]
        assert inputs.keys() == specs.keys()
        answer = signature(**{k: tf.constant(v, specs[k].dtype) for k, v in inputs.items()})
        seen += [tuple(size) for size in answer["image_size"].numpy().tolist()]
    assert tuple(seen) == warmup.SIZES_HW
    assert len({height < width for height, width in seen}) == 2  # lying and standing


def test_pictures_are_jpegs_of_real_sizes():
    for (height, width), record in zip(
        warmup.SIZES_HW, warmup.requests("s", "x", "image_bytes"), strict=True
    ):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        (file,) = log.predict_log.request.inputs["x"].string_val
        opened = Image.open(io.BytesIO(file))
        assert (opened.format, opened.size) == ("JPEG", (width, height))
        assert np.asarray(opened).std() > 10  # not a blank page
