"""Our R50-FPN on the scene, as other benchmarks measure it: built, fed, its proposals replaced.

The network has 91 classes and random weights, whose own proposals would be garbage; so its RPN
does all of its work and then hands on the scene's boxes. Norms at the end of residual branches are
damped: identity norms over random weights would overflow. Class logits are spread, so that
inference finds 100 boxes.
"""

import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import scene  # noqa: E402
import tensorflow as tf  # noqa: E402
import tf_keras  # noqa: E402

from mrcnn_tf.data import schema  # noqa: E402
from mrcnn_tf.data.label_map import LabelMap  # noqa: E402
from mrcnn_tf.experiment import loading, presets  # noqa: E402
from mrcnn_tf.experiment.experiment import Experiment  # noqa: E402
from mrcnn_tf.modeling import build  # noqa: E402
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN  # noqa: E402
from mrcnn_tf.modeling.proposals import Proposals  # noqa: E402
from mrcnn_tf.training import optimizers  # noqa: E402
from mrcnn_tf.training.task import MaskRCNNTask  # noqa: E402


def set_dtype(dtype: str) -> None:
    """Compute in "float32", or in "bfloat16" with float32 variables; before building."""
    tf_keras.mixed_precision.set_global_policy(
        "float32" if dtype == "float32" else f"mixed_{dtype}"
    )


def experiment(
    *,
    name: str = "maskrcnn_r50_fpn",
    preset: str | None = "torchvision",
    classes: int = scene.CLASSES,
    proposals: int = scene.PROPOSALS,
    norm: str = "frozen_batch_norm",
    freeze_at: int = 0,
    overrides: dict | None = None,
) -> Experiment:
    """Return an experiment with what the scene fixes.

    Args:
      name: of the experiment.
      preset: whose conventions; torchvision's network does the peer's arithmetic exactly. None
        leaves the experiment its own.
      classes: with background.
      proposals: per image that both branches look at.
      norm: of the backbone.
      freeze_at: how much of it does not train.
      overrides: further fields of `task.model`.
    """
    found = loading.load(name)
    # After it was checked: an experiment would have to say where its weights come from.
    if preset is not None:
        found.task.model.override(presets.PRESETS[preset])
    found.task.model.override(
        {
            "num_classes": classes,
            "backbone": {"norm": norm, "norm_epsilon": 1e-5, "freeze_at": freeze_at},
            "rpn": {"post_nms_top_k_train": proposals, "post_nms_top_k_test": proposals},
            "detection": {"score_threshold": 0.0},
        }
    )
    found.task.model.override(overrides or {})
    return found


def build_model(config: Experiment) -> MaskRCNN:
    """Build it with seeded weights."""
    tf_keras.utils.set_random_seed(0)
    counts = image_counts(config.task.model.num_classes)
    model = build.build_model(config.task.model, config.task.model.num_classes, counts)
    for stage in ("stage2", "stage3", "stage4", "stage5"):
        for block in getattr(model.backbone, stage).blocks:
            last = getattr(block, "norm3", None) or block.norm2
            last.gamma.assign(tf.fill(last.gamma.shape, 0.2))
    logits = model.roi_heads.box_head.class_logits
    logits.kernel.assign(tf.random.stateless_normal(logits.kernel.shape, [1, 2], stddev=0.05))
    return model


def image_counts(classes: int) -> tuple[int, ...]:
    """In how many images each class would be, if they were as uneven as LVIS's: 1 to 2,000."""
    return tuple(int(count) for count in np.geomspace(2000, 1, classes - 1))


def give_proposals(model: MaskRCNN, boxes: np.ndarray) -> None:
    """Let the RPN do all of its work, then hand on `boxes` [P, 4] for every image."""
    infer, train = model.rpn.call, model.rpn.train_forward

    def given(own: Proposals) -> Proposals:
        # Depends on what the RPN found, whatever a compiler knows of arithmetic.
        never = tf.cast(tf.reduce_max(own.boxes) > 1e9, tf.float32)
        fixed = tf.tile(tf.constant(boxes)[tf.newaxis], [tf.shape(own.boxes)[0], 1, 1])
        return Proposals(fixed + never, tf.zeros_like(own.scores), tf.ones_like(own.valid))

    def call(features, image_size_hw):
        return given(infer(features, image_size_hw))

    def train_forward(features, batch, seed, step):
        outputs, own = train(features, batch, seed, step)
        return outputs, given(own)

    model.rpn.call, model.rpn.train_forward = call, train_forward


def images(height: int, width: int, batch: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Network input [B, H, W, 3] and its image_size_hw [B, 2]."""
    stack = np.stack([scene.image(height, width)] * batch)
    return tf.constant(stack), tf.constant([[float(height), float(width)]] * batch)


def training_batch(
    height: int,
    width: int,
    batch: int,
    objects: int,
    classes: int,
    max_instances: int,
    arena_bytes: int,
) -> dict[str, tf.Tensor]:
    """Make a batch as `data/schema.py` has it, every image the scene's."""
    boxes, labels = scene.objects(height, width, objects, classes)
    crops, frames = [], []
    for box, mask in zip(boxes, scene.masks(boxes, height, width), strict=True):
        y1, x1 = np.floor(box[:2]).astype(int)
        y2, x2 = np.ceil(box[2:]).astype(int)
        crops.append(mask[y1:y2, x1:x2].astype(bool))
        frames.append([y1, x1, y2, x2])
    packed = np.packbits(np.concatenate([crop.ravel() for crop in crops]))
    offsets = np.cumsum([0] + [crop.size for crop in crops])[:-1]

    def padded(rows, dtype) -> np.ndarray:
        rows = np.asarray(rows, dtype)
        return np.pad(rows, [[0, max_instances - len(rows)], *[[0, 0]] * (rows.ndim - 1)])

    present = np.ones(objects, bool)
    row = {
        schema.IMAGE: scene.image(height, width),
        schema.GT_BOXES: padded(boxes, np.float32),
        schema.GT_CLASSES: padded(labels, np.int32),
        schema.GT_IS_CROWD: padded(~present, bool),
        schema.GT_VALID: padded(present, bool),
        schema.GT_MASK_FRAMES: padded(frames, np.float32),
        schema.GT_MASK_SIZES: padded([crop.shape for crop in crops], np.int32),
        schema.GT_MASK_OFFSETS: padded(offsets, np.int32),
        schema.GT_MASKS_VALID: padded(present, bool),
        schema.GT_MASK_BITS: np.pad(packed, [0, arena_bytes - len(packed)]),
        schema.IMAGE_SIZE_HW: np.array([height, width], np.float32),
        schema.ORIGINAL_SIZE_HW: np.array([height, width], np.float32),
        schema.NUM_DROPPED_OBJECTS: np.int32(0),
        schema.NUM_DROPPED_MASKS: np.int32(0),
        schema.IMAGE_KEY: np.int32(1),
        schema.SOURCE_ID: np.pad(np.array([49], np.uint8), [0, schema.SOURCE_ID_BYTES - 1]),
    }
    return {key: tf.constant(np.stack([value] * batch)) for key, value in row.items()}


@dataclasses.dataclass
class TrainingStep:
    """One step of the project's own task with momentum SGD, on the same batch every time.

    Attributes:
      step: what is traced: a batch -> {"loss": float32 []}.
      inputs: the batch.
      run: takes a step; returns the loss.
      graph: what it runs.
      positives: RoIs of the first image that are.
      build_seconds: until the network's variables existed.
    """

    step: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]
    inputs: dict[str, tf.Tensor]
    run: Callable[[], float]
    graph: tf.Graph
    positives: int
    build_seconds: float


def training_step(
    config: Experiment,
    height: int,
    width: int,
    batch: int,
    objects: int = scene.OBJECTS,
    xla: bool = False,
) -> TrainingStep:
    """Build the network and trace a step of it."""
    fields, classes = config.task.model, config.task.model.num_classes
    start = time.perf_counter()
    model = build_model(config)
    build_seconds = time.perf_counter() - start
    near, _ = scene.objects(height, width, objects, classes)
    boxes = scene.training_proposals(height, width, fields.rpn.post_nms_top_k_train, near)
    give_proposals(model, boxes)
    names = tuple(f"c{i}" for i in range(1, classes))
    task = MaskRCNNTask(
        config.task,
        weight_decay=optimizers.decay_in_gradient(config.trainer),
        enable_xla=xla,
        label_map=LabelMap(tuple(range(1, classes)), names),
    )
    # Small enough that random weights do not run away.
    schedule = config.trainer.optimizer_config
    rates = schedule.learning_rate.stepwise
    rates.values = [1e-6] * (len(rates.boundaries) + 1)
    schedule.warmup.linear.warmup_learning_rate = 1e-6
    optimizer = optimizers.create(config.trainer, config.runtime)
    metrics = task.build_metrics(True)
    arena = config.task.train_data.mask_arena_pixels // 8
    data = training_batch(height, width, batch, objects, classes, fields.max_instances, arena)

    def step(inputs):
        return task.train_step(inputs, model, optimizer, metrics)

    traced = tf.function(step, autograph=False)

    first = {key: value[:1] for key, value in data.items()}
    proposals = Proposals(boxes[None], np.zeros([1, len(boxes)]), np.ones([1, len(boxes)], bool))
    rois = model.sample_rois(proposals, first, 0, tf.constant(0, tf.int64))
    return TrainingStep(
        step=step,
        inputs=data,
        run=lambda: float(traced(data)[task.loss].numpy()),
        graph=traced.get_concrete_function(data).graph,
        positives=int(np.count_nonzero(rois.is_positive)),
        build_seconds=build_seconds,
    )
