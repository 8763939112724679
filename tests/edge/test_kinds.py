"""Every kind of network as a file, compared with itself in Python: the table of docs/edge.md."""

import functools
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.edge import device, exporting, graph, image_run
from mrcnn_tf.modeling import build
from mrcnn_tf.serving.preprocessing import Preprocessor
from mrcnn_tf.staged.two_networks import ProposalsAsDetections, TwoNetworks
from tests import tiny_network

SIZE = (64, 96)
MANY = 1203
PREPROCESS = Preprocessor(
    *SIZE, "detectron2", "bgr", pixel_mean=(103.5, 116.3, 123.7), pixel_std=(57.0, 58.0, 59.0)
)
KEYPOINTS = {"num_keypoints": 3, "pool_size": 4, "conv_layers": 2, "conv_channels": 8}
# By what the table calls them: how they differ from `tiny_network.config`.
KINDS = {
    "Mask R-CNN, FPN": {},
    "Mask Scoring": {
        "mask_head": {"mask_size": 12},
        "mask_scoring": {"conv_layers": 2, "conv_channels": 6, "fc_layers": 1, "fc_channels": 9},
    },
    "Faster R-CNN": {"system": "faster_rcnn"},
    "C4": {"features": "c4", "box_head": {"pool_size": 6}, "mask_head": {"mask_size": 6}},
    "C5": {"features": "c5"},
    "DC5": {"features": "dc5"},
    "Cascade": {
        "box_head": {"class_agnostic": True},
        "cascade": {"positive_ious": (0.6, 0.7), "regression_factors": (2.0, 3.0)},
    },
    "PointRend": {
        "point_rend": {
            "num_points": 20,
            "coarse_channels": 8,
            "coarse_fc_layers": 1,
            "coarse_fc_channels": 16,
            "fc_channels": 12,
            "first_size": 7,
            "subdivisions": 2,
            "points_per_subdivision": 49,
        }
    },
    "class-agnostic masks": {"mask_head": {"classes": "agnostic"}},
    "softmax masks": {"mask_head": {"classes": "softmax"}},
    "MLP mask head": {"mask_head": {"type": "mlp", "fc_channels": 16}},
    "ResNeXt": {"backbone": {"depth": 50, "groups": 4, "width_per_group": 16}},
    "EfficientNet-Lite0": {"backbone": {"type": "efficientnet_lite0"}},
    "RPN alone": {"system": "rpn"},
    "1,203 classes, federated loss": {
        "federated": {"classes_per_image": 50},
        "detection": {"score_threshold": 0.0001},
        "max_instances": 300,
    },
    "group norm": {"backbone": {"norm": "group_norm"}, "fpn": {"norm": "group_norm"}},
    "RoIPool": {"roi_align": {"type": "roi_pool"}},
    "RoIWarp": {"roi_align": {"type": "roi_warp"}},
    "RoIAlign, adaptive": {"roi_align": {"sampling_ratio": 0}},
    "RoIAlign, maximum": {"roi_align": {"aggregate": "max"}},
    "Soft-NMS": {"detection": {"soft_nms_sigma": 0.5}},
    "RPN and detector of two runs": {"proposals": "file"},
    "keypoints, with masks": {"keypoint_head": KEYPOINTS},
    "keypoints, without masks": {"keypoint_head": KEYPOINTS, "system": "faster_rcnn"},
}
REFUSED = {
    "keypoints, with masks": "has no keypoints yet: export a SavedModel",
    "keypoints, without masks": "has no keypoints yet: export a SavedModel",
}
# What they answer in the place of masks in their boxes.
MORE = {
    "Mask Scoring": {"masks", "mask_scores"},
    "Faster R-CNN": set(),
    "RPN alone": set(),
}
EACH_FORMAT = pytest.mark.parametrize("file_format", ["litert", "onnx"])


def photo():
    """Coloured rectangles on noise, of the input's size."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 90, [*SIZE, 3], np.uint8)
    for color in ((250, 30, 20), (20, 240, 60), (90, 90, 255)):
        y, x = rng.integers(0, 40), rng.integers(0, 60)
        pixels[y : y + 22, x : x + 30] = color
    return pixels


PHOTO = photo()
FITTED = device.fit(PHOTO, SIZE, "detectron2")


@functools.lru_cache(maxsize=1)
def network_of(kind):
    """A tiny network with weights at random, as `export` gets it, and its label map."""
    config = tiny_network.config()
    config.override(KINDS[kind])
    num_classes = 1 + (MANY if "federated" in KINDS[kind] else 1 if config.system == "rpn" else 3)
    tf.random.set_seed(1)
    network = build.build_model(config, num_classes)
    tiny_network.randomize(network)
    if kind == "Mask Scoring":
        last = network.roi_heads.mask_iou_head.mask_ious
        last.bias.assign(tf.fill(last.bias.shape, 0.5))  # so that few are cut off at 0 or 1
        last.kernel.assign(0.02 * last.kernel)
    for variable in network.variables:  # so that boxes stay apart, and no score is 1
        if variable.name.endswith(("box_deltas/kernel:0", "class_logits/kernel:0")):
            variable.assign(0.1 * variable)
    if config.system == "rpn":
        network = ProposalsAsDetections(network)
    if config.proposals == "file":
        of_rpn = tiny_network.config()
        of_rpn.override({"system": "rpn"})
        network = TwoNetworks(tiny_network.build_network(of_rpn), network)
    ids = tuple(range(1, num_classes))
    return network, LabelMap(ids, tuple(f"name {i}" for i in ids))


def export(network, labels, folder, file_format):
    if file_format == "onnx":
        pytest.importorskip("tf2onnx", reason="an extra: requirements-onnx.txt")
    return exporting.export(
        network,
        str(folder),
        file_format=file_format,
        input_hw=SIZE,
        quantize="none",
        label_map=labels,
        preprocess=PREPROCESS,
        mask_convention="pixel_centres",
    )


@pytest.mark.slow
@EACH_FORMAT
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REFUSED])
def test_answers_as_the_network(tmp_path, file_format, kind):
    network, labels = network_of(kind)
    path, compared = export(network, labels, tmp_path, file_format)
    assert compared.num_detections > 5
    assert compared.agreement >= 0.95
    answer = device.load(path).run(*FITTED)
    assert {"boxes", "classes", "scores", "count"} | MORE.get(kind, {"masks"}) == answer.keys()
    found = slice(0, int(answer["count"]))
    # Numbers that hardly differ from each other would agree with anything.
    spread = {
        n: np.std(answer[n][found]) for n in answer.keys() & {"scores", "masks", "mask_scores"}
    }
    assert min(spread.values()) > 1e-4
    assert compared.max_score_difference < 0.2 * spread["scores"]


@EACH_FORMAT
@pytest.mark.parametrize("kind", REFUSED)
def test_what_there_is_no_file_of_is_refused(tmp_path, file_format, kind):
    network, labels = network_of(kind)
    with pytest.raises(ValueError, match=REFUSED[kind]):
        export(network, labels, tmp_path, file_format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_predict_writes_how_good_masks_are(tmp_path):
    network, labels = network_of("Mask Scoring")
    path, _ = export(network, labels, tmp_path / "file", "litert")
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    assert image_run.run(path, [str(tmp_path / "a.png")], str(tmp_path / "out"), 0.0) == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    want = graph.reference(network, PREPROCESS)(*FITTED)
    assert len(rows) == want["count"] > 2
    assert all(0 < row["mask_score"] < row["score"] for row in rows)
    for of_row, name in (("score", "scores"), ("mask_score", "mask_scores")):
        got = sorted(row[of_row] for row in rows)
        np.testing.assert_allclose(got, np.sort(want[name][: len(rows)]), atol=0.002)


def test_the_table_names_each_kind():
    page = pathlib.Path(__file__).resolve().parents[2] / "docs" / "edge.md"
    table = page.read_text(encoding="utf-8").split("## Which networks")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if "|" in line
    ]
    answers = {kind: (litert, onnx) for kind, litert, onnx, _ in rows[2:]}
    assert answers == {
        kind: ("refused",) * 2 if kind in REFUSED else ("yes",) * 2 for kind in KINDS
    }
