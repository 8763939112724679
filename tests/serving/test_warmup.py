"""The file that TensorFlow Serving replays before a version is available."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from mrcnn_tf.serving import detection_status, signatures, warmup


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
        assert answer["detection_status"].numpy().tolist() == [detection_status.DONE]
        seen += [tuple(size) for size in answer["image_size"].numpy().tolist()]
    assert tuple(seen) == warmup.SIZES_HW
    assert len({height < width for height, width in seen}) == 2  # lying and standing


def test_pictures_are_jpegs_of_real_sizes():
    for (height, width), record in zip(
        warmup.SIZES_HW, warmup.requests("s", "x", "image_bytes", 10**6), strict=True
    ):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        (file,) = log.predict_log.request.inputs["x"].string_val
        opened = Image.open(io.BytesIO(file))
        assert (opened.format, opened.size) == ("JPEG", (width, height))
        assert np.asarray(opened).std() > 10  # not a blank page


@pytest.mark.parametrize("bound", [16_384, 800_000])
def test_no_picture_is_larger_than_the_model_takes(bound):
    sizes = []
    for record in warmup.requests("s", "x", "image_bytes", bound):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        (file,) = log.predict_log.request.inputs["x"].string_val
        sizes.append(Image.open(io.BytesIO(file)).size[::-1])
    for (height, width), (full_height, full_width) in zip(sizes, warmup.SIZES_HW, strict=True):
        assert 0.97 * bound < height * width <= bound or height == full_height
        assert height / width == pytest.approx(full_height / full_width, rel=0.01)
    assert all(h * w <= bound for h, w in sizes)


@pytest.mark.slow
def test_the_warm_up_of_a_model_that_takes_small_pictures(tmp_path, detect, labels, preprocess):
    signatures.export_saved_model(
        detect,
        str(tmp_path / "m"),
        input_type="image_bytes",
        label_map=labels,
        preprocess=dataclasses.replace(preprocess, max_image_pixels=128 * 128),
        mask_convention="pixel_centres",
    )
    serve = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
    file = tmp_path / "m/assets.extra/tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(file)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        (value,) = log.predict_log.request.inputs.values()
        answer = serve(input_tensor=tf.constant(tf.make_ndarray(value), tf.string))
        assert answer["detection_status"].numpy().tolist() == [detection_status.DONE]
