"""Mixed requests to real networks, tiny ones."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.data import canvases
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.ops import paste
from mrcnn_tf.serving import signatures, verification
from mrcnn_tf.staged.two_networks import ProposalsAsDetections
from tests import tiny_network
from tests.marks import one_quick


def network_of(system, features):
    model = tiny_network.config()
    model.override({"system": system, "features": features})
    if features == "c4":
        model.override({"box_head": {"pool_size": 6}, "mask_head": {"mask_size": 6}})
    network = tiny_network.build_network(model)
    return ProposalsAsDetections(network) if system == "rpn" else network


@pytest.mark.parametrize(
    ("system", "features"),
    one_quick([("rpn", "fpn"), ("mask_rcnn", "fpn"), ("mask_rcnn", "c4"), ("faster_rcnn", "fpn")]),
)
def test_rows_are_of_fixed_length(system, features):
    """So that those of several canvases fit together."""
    detect = network_of(system, features)
    network = signatures.trace(
        signatures.build_network(detect, (1, 2, 3)), *signatures.NETWORK_SPECS
    ).get_concrete_function()
    for name, spec in signatures.answers_of(network).items():
        assert spec.shape[1:].is_fully_defined(), name


@pytest.mark.slow
def test_group_norms_and_run_lengths(tmp_path, preprocess):
    """A request of many canvases is answered as its pictures are one by one."""
    network = tiny_network.build_network(tiny_network.config("group_norm"))
    preprocess = dataclasses.replace(
        preprocess, short_edge=64, long_edge=100, canvas_sizes=canvases.make((64,), 100)
    )
    signatures.export_saved_model(
        lambda images, image_size_hw: network(images, image_size_hw, training=False),
        str(tmp_path / "m"),
        input_type="image_bytes",
        label_map=LabelMap((1, 2, 3), ("a", "b", "c")),
        preprocess=preprocess,
        mask_convention="pixel_centres",
        added_masks="run_lengths",
    )
    model = tf.saved_model.load(str(tmp_path / "m"))
    files = []
    for pixels in verification.sample_images(
        [(90, 120), (60, 110), (150, 100), (64, 64), (80, 110)]
    ):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files.append(buffer.getvalue())
    files.insert(2, files[1][:-20])
    together = {name: value.numpy() for name, value in model(tf.constant(files)).items()}
    assert together["detection_status"].tolist() == [0, 0, 1, 0, 0, 0]
    assert together["num_detections"].sum() > 0
    for row, file in enumerate(files):
        for name, alone in model(tf.constant([file])).items():
            if name == "detection_mask_counts":
                assert alone[0].numpy().tolist() == together[name][row].tolist()
            else:
                np.testing.assert_allclose(together[name][row], alone[0], atol=1e-4, err_msg=name)
        count = int(together["num_detections"][row])
        height, width = together["image_size"][row].tolist()
        boxes = together["detection_boxes"][row, :count] * np.float64([height, width] * 2)
        masks = together["detection_masks"][row, :count]
        expected = paste.paste_to_rles(masks, boxes, height, width)
        assert together["detection_mask_counts"][row, :count].tolist() == [
            rle["counts"] for rle in expected
        ]
