"""A Mask R-CNN small enough to compile in seconds, and batches for it."""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import build

NUM_CLASSES = 4  # with background
IMAGE_COUNTS = (7, 2, 1)  # of the others, for a federated loss
MAX_INSTANCES = 5  # ground-truth rows and detections


@dataclasses.dataclass
class Object:
    """A filled rectangle, or, with a notch, one without its lower right quarter."""

    box: tuple[int, int, int, int]  # (y1, x1, y2, x2), network-input pixels
    class_id: int
    is_crowd: bool = False
    has_mask: bool = True
    has_notch: bool = False

    def mask(self) -> np.ndarray:
        """Bool [height, width] of the box."""
        y1, x1, y2, x2 = self.box
        mask = np.ones([y2 - y1, x2 - x1], bool)
        if self.has_notch:
            mask[mask.shape[0] // 2 :, mask.shape[1] // 2 :] = False
        return mask


@dataclasses.dataclass
class Image:
    """What one row of a batch shows."""

    size_hw: tuple[int, int]
    objects: list[Object]
    key: int


EMPTY = Image((64, 60), [], key=7)
TWO_OBJECTS = Image(
    (60, 64),
    [Object((4, 6, 40, 30), 1, has_notch=True), Object((30, 24, 58, 62), 3)],
    key=1001,
)
WITH_CROWD = Image(
    (64, 64),
    [Object((8, 30, 30, 60), 2), Object((34, 2, 62, 60), 2, is_crowd=True)],
    key=-5,
)


def batch(
    images: list[Image],
    canvas_hw: tuple[int, int] = (64, 64),
    max_instances: int = MAX_INSTANCES,
    arena_bytes: int = 2048,
) -> dict[str, tf.Tensor]:
    """Draw images on a canvas: a batch as `data/schema.py` has it, one RGB colour per class."""
    rows = [_row(image, canvas_hw, max_instances, arena_bytes) for image in images]
    return {key: tf.constant(np.stack([row[key] for row in rows])) for key in rows[0]}


def _row(image, canvas_hw, max_instances, arena_bytes):
    rng = np.random.default_rng(abs(image.key))
    height, width = image.size_hw
    pixels = np.zeros([*canvas_hw, 3], np.float32)
    pixels[:height, :width] = rng.normal(0, 0.3, [height, width, 3])
    row = {
        schema.GT_BOXES: np.zeros([max_instances, 4], np.float32),
        schema.GT_CLASSES: np.zeros([max_instances], np.int32),
        schema.GT_IS_CROWD: np.zeros([max_instances], bool),
        schema.GT_VALID: np.zeros([max_instances], bool),
        schema.GT_MASK_FRAMES: np.zeros([max_instances, 4], np.float32),
        schema.GT_MASK_SIZES: np.zeros([max_instances, 2], np.int32),
        schema.GT_MASK_OFFSETS: np.zeros([max_instances], np.int32),
        schema.GT_MASKS_VALID: np.zeros([max_instances], bool),
    }
    bits = []
    for g, thing in enumerate(image.objects):
        mask = thing.mask()
        y1, x1, y2, x2 = thing.box
        pixels[y1:y2, x1:x2][mask] += 2.0 * np.eye(3)[thing.class_id % 3]
        row[schema.GT_BOXES][g] = row[schema.GT_MASK_FRAMES][g] = thing.box
        row[schema.GT_CLASSES][g] = thing.class_id
        row[schema.GT_IS_CROWD][g] = thing.is_crowd
        row[schema.GT_VALID][g] = True
        if thing.has_mask:
            row[schema.GT_MASK_OFFSETS][g] = sum(map(len, bits))
            row[schema.GT_MASK_SIZES][g] = mask.shape
            row[schema.GT_MASKS_VALID][g] = True
            bits.append(mask.ravel())
    source_id = np.frombuffer(str(image.key).encode(), np.uint8)
    packed = np.packbits(np.concatenate([*bits, np.zeros(0, bool)]))
    return row | {
        schema.IMAGE: pixels,
        schema.SOURCE_ID: np.pad(source_id, [0, schema.SOURCE_ID_BYTES - len(source_id)]),
        schema.GT_MASK_BITS: np.pad(packed, [0, arena_bytes - len(packed)]),
        schema.IMAGE_SIZE_HW: np.array(image.size_hw, np.float32),
        schema.ORIGINAL_SIZE_HW: np.array(image.size_hw, np.float32),
        schema.NUM_DROPPED_OBJECTS: np.int32(0),
        schema.NUM_DROPPED_MASKS: np.int32(0),
        schema.IMAGE_KEY: np.int32(image.key),
    }


def config(norm: str = "frozen_batch_norm") -> fields.Model:
    """Return the fields of a tiny network.

    Frozen norms, the default, are an identity here. They compile in two thirds of the time of
    group norms, which a network needs that is to learn something.
    """
    return fields.Model(
        num_classes=NUM_CLASSES,
        max_instances=MAX_INSTANCES,
        backbone=fields.Backbone(depth=18, base_width=8, norm=norm, freeze_at=0, weights=""),
        fpn=fields.FPN(channels=16),
        rpn=fields.RPN(
            # Of an image this small hardly an anchor lies inside.
            ignore_anchors_across_border=False,
            anchor_sizes=(8.0, 16.0, 32.0, 48.0, 64.0),
            anchors_per_image=32,
            pre_nms_top_k_train=50,
            pre_nms_top_k_test=50,
            post_nms_top_k_train=40,
            post_nms_top_k_test=30,
        ),
        box_head=fields.BoxHead(fc_channels=32, rois_per_image=16),
        mask_head=fields.MaskHead(mask_size=14, conv_layers=2, conv_channels=8),
    )


def proposals_near_objects(images: list[Image], count: int) -> dict[str, tf.Tensor]:
    """Proposals for a batch: each object's box, moved by a pixel, and a box of 60 x 60."""
    boxes = np.zeros([len(images), count, 4], np.float32)
    valid = np.zeros([len(images), count], bool)
    for row, image in enumerate(images):
        given = [np.array(thing.box) + 1 for thing in image.objects] + [[0, 0, 60, 60]]
        boxes[row, : len(given)] = given
        valid[row, : len(given)] = True
    return {schema.PROPOSAL_BOXES: tf.constant(boxes), schema.PROPOSALS_VALID: tf.constant(valid)}


def build_network(model: fields.Model | None = None) -> build.Model:
    """Build with seeded weights and predictors whose scores differ clearly between boxes.

    A fresh network's scores are equal up to rounding, so whatever ranks them by value would rank
    noise.
    """
    tf.random.set_seed(1)
    network = build.build_model(model or config(), NUM_CLASSES, IMAGE_COUNTS)
    randomize(network)
    return network


def randomize(network: build.Model) -> None:
    """Give every variable a value that depends only on its place in the network."""
    for i, variable in enumerate(network.trainable_variables):
        noise = tf.random.stateless_normal(variable.shape, [i, 17])
        if variable.shape.rank == 1:
            variable.assign(tf.cast(variable, tf.float32) + 0.05 * noise)
        else:
            fan_in = variable.shape.num_elements() // variable.shape[-1]
            variable.assign(noise * (1.5 / fan_in) ** 0.5)
