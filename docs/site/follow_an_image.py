"""Follow one image of the shapes set through the house, and draw what is there at each stop.

    python docs/site/follow_an_image.py --output_dir=runs/figures

The image is drawn, annotated, converted to a record and read as any other; the network is that of
`experiments/maskrcnn_shapes.yaml`, which learns this one image for `--train_steps` steps, so that
its proposals, masks and detections mean something. Every number and every picture in the files is a
tensor on its way. Each stop gives files STOP-1.svg, STOP-2.svg, ... for `docs/how-it-works.md`,
whose site puts them where the page has `<!-- figure: STOP -->`.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np
import svg
import tensorflow as tf
import tf_keras

from data_prep import conversion, create_shapes_coco
from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import inputs, loading
from mrcnn_tf.experiment.experiment import Task
from mrcnn_tf.modeling import build
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.outputs import DetectorOutputs
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.ops import roi_align
from mrcnn_tf.training import network_input

EXPERIMENT = "maskrcnn_shapes"
IMAGE_SEED = 16  # a star, a ring and two ellipses, which hide each other a little
IMAGE_SIDE = 128  # pixels
LEARNING_RATE = 0.001
SHOWN_PROPOSALS = 12
SHOWN_OBJECTS = 3
SHOWN_CHANNELS = 16  # of RoI features, as a square of 4 x 4
SHOWN_SCORE = 0.5


@dataclasses.dataclass(frozen=True)
class Stops:
    """What there is of the image behind each part of the network; one image, no batch dimension.

    Attributes:
      task: of the experiment.
      names: of the classes, background first.
      pixels: uint8 [h, w, 3] RGB, the network's input turned back.
      row: the batch's row, see `data/schema.py`.
      truth: bool [h, w] of each object that has a mask, {its number: mask}.
      features: of the pyramid, {level: float32 [Hl, Wl, C]}.
      anchors: {level: float32 [Hl*Wl*K, (y1, x1, y2, x2)]}.
      proposals: of inference, with the batch dimension.
      outputs: of training, with the batch dimension.
      num_candidates: from how many proposals and objects RoIs were sampled.
      pooled: float32 [R, M/2, M/2, C], what the mask branch sees of each sampled RoI.
      roi_levels: int [R], the level that each sampled RoI is pooled from.
      detections: with the batch dimension.
    """

    task: Task
    names: tuple[str, ...]
    pixels: np.ndarray
    row: dict[str, np.ndarray]
    truth: dict[int, np.ndarray]
    features: dict[int, np.ndarray]
    anchors: dict[int, np.ndarray]
    proposals: Proposals
    outputs: DetectorOutputs
    num_candidates: int
    pooled: np.ndarray
    roi_levels: np.ndarray
    detections: Detections

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of the picture."""
        height, width = self.pixels.shape[:2]
        return height, width

    @property
    def photo(self) -> str:
        """The picture as an element, pale enough for what is drawn over it."""
        pale = 255 - 0.6 * (255.0 - self.pixels)
        return svg.picture(np.rint(pale).astype(np.uint8), (0, 0, *self.size_hw))

    @property
    def objects(self) -> list[str]:
        """Outlines of the annotated boxes."""
        valid = self.row[schema.GT_VALID]
        return [svg.box(box, "object") for box in self.row[schema.GT_BOXES][valid]]

    def panel(self, title: str, marks: list[str], details: str) -> str:
        """Return the picture with something over it."""
        return svg.panel(self.size_hw, title, [self.photo, *marks], details)

    def places(self, names: Sequence[str], boxes: np.ndarray) -> str:
        """Say what is where, as somebody would who tells another: of boxes [., 4]."""
        told = []
        for name, box in zip(names, boxes, strict=True):
            thirds = (box[:2] + box[2:]) * 1.5 / np.array(self.size_hw)
            y, x = np.clip(thirds, 0, 2).astype(int)
            place = " ".join(filter(None, [("top", "", "bottom")[y], ("left", "", "right")[x]]))
            told.append(f"{name}: {place or 'middle'}, {_size(box)} pixels")
        return "; ".join(told) or "none"

    def positive_rois(self) -> list[int]:
        """The largest positive RoI of each object that has one, the largest object first."""
        targets, masks = self.outputs.roi_targets, self.outputs.masks
        assert masks is not None
        boxes, of_object = targets.rois[0].numpy(), targets.gt_index[0].numpy()
        best: dict[int, int] = {}
        for k in np.flatnonzero(masks.valid[0].numpy()).tolist():
            other = best.setdefault(int(of_object[k]), k)
            if _area(boxes[k]) > _area(boxes[other]):
                best[int(of_object[k])] = k
        return sorted(best.values(), key=lambda k: -_area(boxes[k]))


def follow(train_steps: int) -> Stops:
    """Send the image through the data path and the network."""
    tf_keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        task, label_map, batch = read(pathlib.Path(folder))
    model = build.build_model(task.model, label_map.num_classes)
    train(model, batch, train_steps)
    size_hw = batch[schema.IMAGE_SIZE_HW]
    features = model.features(batch[schema.IMAGE], training=False)
    step = tf.constant(train_steps, tf.int64)
    outputs = model.train_forward(batch, 0, step, training=False, features=features)
    rois = outputs.roi_targets.rois
    _, candidates = model.rpn.train_forward(features, batch, 0, step)
    num_objects = int(tf.reduce_sum(tf.cast(batch[schema.GT_VALID], tf.int32)))
    pooling = task.model.roi_align
    levels = roi_align.assign_levels(
        rois,
        min(features),
        5,  # as `FPNRoIHeads.pool`
        epsilon=pooling.log_epsilon,
        level_epsilon=pooling.level_epsilon,
    )
    pooled = model.roi_heads.pool(features, rois, task.model.mask_head.mask_size // 2)
    row = {key: values[0].numpy() for key, values in batch.items()}
    pixels = network_input.to_rgb(
        row[schema.IMAGE],
        row[schema.IMAGE_SIZE_HW],
        task.model.pixels.order,
        np.array(task.model.pixels.mean, np.float32),
        np.array(task.model.pixels.std, np.float32),
    )
    numbers = np.flatnonzero(row[schema.GT_MASKS_VALID]).tolist()
    return Stops(
        task=task,
        names=("background", *label_map.names),
        pixels=pixels,
        row=row,
        truth={k: network_input.truth_mask(row, k, pixels.shape[:2]) for k in numbers},
        features={level: values[0].numpy() for level, values in sorted(features.items())},
        anchors={k: values.numpy() for k, values in sorted(model.rpn.anchors(features).items())},
        proposals=model.rpn(features, size_hw),
        outputs=outputs,
        num_candidates=int(tf.reduce_sum(tf.cast(candidates.valid, tf.int32))) + num_objects,
        pooled=pooled[0].numpy(),
        roi_levels=levels[0].numpy(),
        detections=model.detect(features, size_hw),
    )


def read(folder: pathlib.Path) -> tuple[Task, LabelMap, dict[str, tf.Tensor]]:
    """Draw the image, write its record, and read a batch of it as training does."""
    side = (IMAGE_SIDE, IMAGE_SIDE)
    create_shapes_coco.create_split(folder, "train", 1, side, IMAGE_SEED)
    conversion.convert(
        conversion.Job(
            image_dir=str(folder / "train"),
            annotations_file=str(folder / "annotations/instances_train.json"),
            prefix=str(folder / "records"),
            num_shards=1,
            mask_format="rle",
            num_processes=1,
            skip_problems=False,
        )
    )
    override = {
        "task.train_data.input_path": str(folder / "records-*.tfrecord"),
        "task.train_data.global_batch_size": 1,
        "task.train_data.flip_probability": 0.0,
    }
    task = loading.load(EXPERIMENT, params_override=json.dumps(override)).task
    label_map = LabelMap.from_json((folder / schema.LABEL_MAP_FILE).read_text("utf-8"))
    batch = next(iter(inputs.build(task, task.train_data, label_map)))
    return task, label_map, batch


def train(model: build.Model, batch: dict[str, tf.Tensor], steps: int) -> None:
    """Learn the one image."""
    optimizer = tf_keras.optimizers.Adam(LEARNING_RATE, global_clipnorm=10.0)

    @tf.function
    def one(step: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            sums = model.losses_of(model.train_forward(batch, 0, step))
            loss = tf.add_n([term.mean() for term in sums.values()])
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    for step in range(steps):
        loss = one(tf.constant(step, tf.int64))
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step + 1} of {steps}: loss {float(loss):.3f}", flush=True)


def draw_image(stops: Stops) -> list[str]:
    """The network's input, and what it is to find there."""
    valid = stops.row[schema.GT_VALID]
    names = [stops.names[k] for k in stops.row[schema.GT_CLASSES][valid]]
    height, width = stops.size_hw
    bare = svg.picture(stops.pixels, (0, 0, height, width))
    masks = [
        svg.picture(svg.tinted(0.5 * mask), (0, 0, height, width), smooth=False)
        for mask in stops.truth.values()
    ]
    size = f"{height} × {width} pixels"
    places = stops.places(names, stops.row[schema.GT_BOXES][valid])
    return [
        svg.panel(stops.size_hw, f"the network's input: {size}", [bare], places),
        stops.panel(
            f"its objects: {', '.join(names)}",
            [*masks, *stops.objects],
            f"A green outline and a tinted mask for each object. {places}",
        ),
    ]


def draw_levels(stops: Stops) -> list[str]:
    """How strong the pyramid's features are."""
    panels = []
    for level, values in stops.features.items():
        height, width, channels = values.shape
        strength = np.abs(values).mean(axis=-1)
        canvas = (height * 2**level, width * 2**level)
        title = f"P{level}: {height} × {width} cells, {2**level} pixels apart, {channels} channels"
        shown = svg.picture(svg.heat(strength), (0, 0, *canvas), smooth=False)
        row, column = np.unravel_index(strength.argmax(), strength.shape)
        strongest = f"The strongest cell is in row {row + 1}, column {column + 1}."
        panels.append(svg.panel(stops.size_hw, title, [shown], strongest))
    return panels


def draw_anchors(stops: Stops) -> list[str]:
    """The anchors of the cell in the middle of each level."""
    panels = []
    for level, boxes in stops.anchors.items():
        height, width = stops.features[level].shape[:2]
        of_cell = boxes.reshape(height, width, -1, 4)[height // 2, width // 2]
        title = f"P{level}: {len(boxes):,} anchors, {len(of_cell)} in each cell; drawn: of one cell"
        marks = [svg.box(box, "positive") for box in of_cell]
        centre = (of_cell[0, :2] + of_cell[0, 2:]) / 2
        sizes = ", ".join(_size(box) for box in of_cell)
        details = f"Boxes of {sizes} pixels, height by width, around one point."
        panels.append(stops.panel(title, [*marks, svg.dot(centre, 2)], details))
    return panels


def draw_anchor_targets(stops: Stops) -> list[str]:
    """The anchors that this step learns from."""
    assert stops.outputs.rpn is not None
    targets = stops.outputs.rpn.targets
    anchors = np.concatenate(list(stops.anchors.values()))
    boxes = anchors[targets.index[0].numpy()]
    valid, positive = targets.valid[0].numpy(), targets.is_positive[0].numpy()
    positives, negatives = boxes[valid & positive], boxes[valid & ~positive]
    return _both(stops, positives, negatives, "anchors", len(anchors))


def draw_proposals(stops: Stops) -> list[str]:
    """What the RPN proposes."""
    boxes = stops.proposals.boxes[0].numpy()[stops.proposals.valid[0].numpy()]
    best = boxes[:SHOWN_PROPOSALS]
    return [
        stops.panel(
            f"all {len(boxes)} proposals",
            [svg.box(box, "negative") for box in boxes],
            _extent(boxes),
        ),
        stops.panel(
            f"the best {len(best)} of them, and the objects",
            [*stops.objects, *(svg.box(box, "positive") for box in best)],
            f"Orange: proposals, green: objects. {_extent(best)}",
        ),
    ]


def draw_rois(stops: Stops) -> list[str]:
    """The RoIs that this step learns from."""
    targets = stops.outputs.roi_targets
    boxes, valid = targets.rois[0].numpy(), targets.valid[0].numpy()
    positive = targets.is_positive[0].numpy()
    return _both(
        stops, boxes[valid & positive], boxes[valid & ~positive], "RoIs", stops.num_candidates
    )


def draw_roi_align(stops: Stops) -> list[str]:
    """Where the largest RoI is sampled, and what comes out."""
    k = stops.positive_rois()[0]
    targets = stops.outputs.roi_targets
    box, level = targets.rois[0, k].numpy(), int(stops.roi_levels[k])
    name = stops.names[int(targets.classes[0, k])]
    features, pooled = stops.features[level], stops.pooled[k]
    bins, stride = pooled.shape[0], 2**level
    ratio = stops.task.model.roi_align.sampling_ratio
    assert ratio, "samples are drawn where their number is fixed"
    along = (np.arange(bins * ratio) + 0.5) / (bins * ratio)
    ys, xs = (box[axis] + along * (box[axis + 2] - box[axis]) for axis in (0, 1))
    # A window of whole cells around the RoI, in cells, and its corner in pixels.
    top, left = np.maximum(np.floor(box[:2] / stride).astype(int) - 1, 0)
    bottom, right = np.ceil(box[2:] / stride).astype(int) + 1
    window = features[top:bottom, left:right]
    height, width = window.shape[:2]
    corner = np.array([top, left]) * stride
    strength = svg.heat(np.abs(window).mean(axis=-1))
    cells = [
        svg.box((y * stride, x * stride, (y + 1) * stride, (x + 1) * stride), "grid")
        for y in range(height)
        for x in range(width)
    ]
    dots = [svg.dot((y - corner[0], x - corner[1]), stride / 7) for y in ys for x in xs]
    outline = svg.box(box - np.tile(corner, 2), "positive")
    size_hw = (height * stride, width * stride)
    shown = svg.picture(strength, (0, 0, *size_hw), smooth=False)
    channels = np.argsort(-np.abs(pooled).mean(axis=(0, 1)))[:SHOWN_CHANNELS]
    across = int(len(channels) ** 0.5)
    tiles = svg.heat(np.concatenate(list(pooled[..., channels].transpose(2, 0, 1)), axis=1))
    rows = np.split(tiles[:, : across**2 * bins], across, axis=1)
    side = (float(bins * across), float(bins * across))
    edges = [
        svg.box((y * bins, x * bins, (y + 1) * bins, (x + 1) * bins), "grid")
        for y in range(across)
        for x in range(across)
    ]
    bin_cells = " × ".join(f"{(box[axis + 2] - box[axis]) / bins / stride:.1f}" for axis in (0, 1))
    per_bin = "one per bin" if ratio == 1 else f"{ratio} × {ratio} per bin"
    return [
        svg.panel(
            size_hw,
            f"the largest RoI ({name}) on P{level}: {len(ys)} × {len(xs)} samples, {per_bin}",
            [shown, *cells, outline, *dots],
            f"The RoI is {_size(box)} pixels, height by width, and begins and ends between the "
            f"cells' borders; a bin is {bin_cells} cells.",
        ),
        svg.panel(
            side,
            f"what the mask branch gets of it: {bins} × {bins} bins, the {across**2} channels of "
            f"{pooled.shape[-1]} with the largest values",
            [svg.picture(np.concatenate(rows), (0, 0, *side), smooth=False), *edges],
            f"{across} × {across} tiles, one for each channel.",
        ),
    ]


def draw_masks(stops: Stops) -> list[str]:
    """RoIs, the targets of their masks, and what the network says."""
    masks = stops.outputs.masks
    assert masks is not None
    targets, said = masks.targets[0].numpy(), tf.sigmoid(masks.logits[0]).numpy()
    rois = stops.outputs.roi_targets
    panels = []
    for k in stops.positive_rois()[:SHOWN_OBJECTS]:
        box, number = rois.rois[0, k].numpy(), int(rois.gt_index[0, k])
        name = stops.names[int(rois.classes[0, k])]
        size_hw = (float(box[2] - box[0]), float(box[3] - box[1]))
        canvas = np.array([0, 0, *stops.size_hw]) - np.tile(box[:2], 2)
        seen = svg.picture(stops.pixels, canvas)
        truth = svg.picture(svg.tinted(0.5 * stops.truth[number]), canvas, smooth=False)
        inside = (0, 0, *size_hw)
        target = svg.picture(_grey(targets[k]), inside, smooth=False)
        answer = svg.picture(_grey(said[k]), inside, smooth=False)
        side = targets.shape[-1]
        is_object, is_said = targets[k] >= 0.5, said[k] >= 0.5
        iou = (is_object & is_said).sum() / max((is_object | is_said).sum(), 1)
        panels += [
            svg.panel(
                size_hw,
                f"a RoI, and the mask of its {name}",
                [seen, truth],
                f"{_size(box)} pixels, height by width.",
            ),
            svg.panel(
                size_hw,
                f"its target: {side} × {side}, 0 or 1",
                [target],
                f"{is_object.sum()} of {side**2} cells are the object's.",
            ),
            svg.panel(
                size_hw,
                f"the network's map for “{name}”, 0 to 1; IoU with the target {iou:.2f}",
                [answer],
                f"{is_said.sum()} of {side**2} cells are 0.5 or more.",
            ),
        ]
    return panels


def draw_detections(stops: Stops) -> list[str]:
    """What inference returns."""
    found = stops.detections
    assert found.masks is not None
    scores = np.where(found.valid[0].numpy(), found.scores[0].numpy(), 0.0)
    shown = np.flatnonzero(scores >= SHOWN_SCORE).tolist()
    found_boxes = found.boxes[0].numpy()[shown]
    names = [f"{stops.names[int(found.classes[0, k])]} {scores[k]:.2f}" for k in shown]
    masks, boxes, words = [], [], []
    for k, box, name in zip(shown, found_boxes, names, strict=True):
        mask = 0.6 * (found.masks[0, k].numpy() >= 0.5)
        masks.append(svg.picture(svg.tinted(mask), box))
        boxes.append(svg.box(box, "found"))
        words.append(svg.text((max(box[0] - 2, 7), box[1]), name, 7))
    title = f"{len(shown)} detections with a score of {SHOWN_SCORE} and more"
    return [stops.panel(title, [*masks, *boxes, *words], stops.places(names, found_boxes))]


# {stop: what draws it}, in the order of the page.
FIGURES: dict[str, Callable[[Stops], list[str]]] = {
    "image": draw_image,
    "levels": draw_levels,
    "anchors": draw_anchors,
    "anchor-targets": draw_anchor_targets,
    "proposals": draw_proposals,
    "rois": draw_rois,
    "roi-align": draw_roi_align,
    "masks": draw_masks,
    "detections": draw_detections,
}


def _both(
    stops: Stops, positives: np.ndarray, negatives: np.ndarray, what: str, of: int
) -> list[str]:
    """Sampled boxes [., 4]: the positives beside the negatives."""
    count = len(positives) + len(negatives)
    sampled = f"{what} that were sampled, of {of:,}"
    return [
        stops.panel(
            f"{len(positives)} positive of the {count} {sampled}; thick: the objects",
            [*(svg.box(box, "positive") for box in positives), *stops.objects],
            f"Orange: positive, green: objects. {_extent(positives)}",
        ),
        stops.panel(
            f"{len(negatives)} negative of the {count} {sampled}",
            [*(svg.box(box, "negative") for box in negatives), *stops.objects],
            f"Blue and dashed: negative, green: objects. {_extent(negatives)}",
        ),
    ]


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _size(box: np.ndarray) -> str:
    """Height and width, in whole pixels."""
    return f"{box[2] - box[0]:.0f} × {box[3] - box[1]:.0f}"


def _extent(boxes: np.ndarray) -> str:
    """How large boxes [., 4] are."""
    if not len(boxes):
        return "There is none."
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    ranges = [f"{sides.min():.0f} to {sides.max():.0f}" for sides in (heights, widths)]
    return f"The boxes are {ranges[0]} pixels high and {ranges[1]} wide."


def _grey(values: np.ndarray) -> np.ndarray:
    """Float [h, w] in 0..1 as uint8."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def main() -> None:
    """Follow the image and write the files, in the place of those of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output_dir", type=pathlib.Path, default=pathlib.Path("runs/figures"))
    parser.add_argument("--train_steps", type=int, default=200, help="on the one image")
    arguments = parser.parse_args()
    stops = follow(arguments.train_steps)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for old in arguments.output_dir.glob("*.svg"):
        old.unlink()
    count = 0
    for name, draw in FIGURES.items():
        for number, content in enumerate(draw(stops), start=1):
            path = arguments.output_dir / f"{name}-{number}.svg"
            path.write_text(content + "\n", "utf-8")
            count += 1
    print(f"{count} pictures in {arguments.output_dir}")


if __name__ == "__main__":
    main()
