"""What an experiment for a person's own photos should say, and why: from the objects alone.

Nothing here looks at pixels or at the machine; `mrcnn_tf.choose_experiment` measures the machine
and writes the result. Each rule is a function that returns a `Choice`, so that its reason stands
beside its value.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mrcnn_tf.data import anchor_recall
from mrcnn_tf.data.coco_data import CocoData
from mrcnn_tf.experiment.fields import RPN

# Short edges that are tried, in pixels. The largest is the paper's.
SHORT_EDGES = (320, 416, 512, 640, 800)
# What COCO calls small ends at this side, in pixels: smaller objects are found far less often. Of
# the finest feature map, whose stride is 4, such an object has 8 x 8 places.
CLEAR_SIDE = 32.0
CLEAR_FRACTION = 0.95
# A photo should be seen this often. Fewer steps than the smallest number teach too little, whatever
# the size of the images; more than the largest teach less than larger images do.
_TIMES_SEEN = 10
_FEWEST_STEPS, ENOUGH_STEPS = 300, 800
_SURELY = 1.5  # how far steps may be beyond what another size lets expect
# Candidates for the smallest anchor and for the ratio of neighbouring levels' anchors.
_SMALLEST_ANCHORS = (8.0, 12.0, 16.0, 24.0, 32.0, 48.0)
_STEPS_BETWEEN_LEVELS = (1.6, 1.8, 2.0)
_STRIDES = (4, 8, 16, 32, 64)  # of P2..P6
_GAIN_OF_OTHER_ANCHORS = 0.01  # in recall, below which the experiment's own stay


@dataclasses.dataclass(frozen=True)
class Choice:
    """A field, its value, and one sentence that says why."""

    field: str
    value: Any
    reason: str


@dataclasses.dataclass(frozen=True)
class Objects:
    """What the rules look at.

    Attributes:
      image_sizes_hw: [I, 2] pixels of the stored images.
      image_of_object: [N] row of `image_sizes_hw`.
      boxes: [N, (y1, x1, y2, x2)], pixels of the stored images, within them, without crowds.
      masks_pixels: [I] pixels of all rectangles around objects with a mask, of an image together.
      num_classes: without background.
    """

    image_sizes_hw: np.ndarray
    image_of_object: np.ndarray
    boxes: np.ndarray
    masks_pixels: np.ndarray
    num_classes: int

    def counts(self) -> np.ndarray:
        """Objects per image, [I]."""
        return np.bincount(self.image_of_object, minlength=len(self.image_sizes_hw))

    def at(self, short_edge: int, long_edge: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [N, 4], and sizes [N, 2] of the images they are in, as the network gets them."""
        short = self.image_sizes_hw.min(axis=1)
        long = self.image_sizes_hw.max(axis=1)
        scale = np.minimum(short_edge / short, long_edge / long)[self.image_of_object, None]
        return self.boxes * scale, np.round(self.image_sizes_hw[self.image_of_object] * scale)


def objects_of(data: CocoData) -> Objects:
    """Gather what the rules look at.

    Raises:
      ValueError: there is no object to learn from.
    """
    sizes, image_of_object, boxes, masks_pixels = [], [], [], []
    for row, image in enumerate(data.images):
        sizes.append((image.height, image.width))
        pixels = 0.0
        for entry in data.objects.get(image.source_id, []):
            x, y, width, height = entry.bbox
            pixels += math.ceil(height + 1) * math.ceil(width + 1) if entry.mask else 0
            if not entry.is_crowd:
                image_of_object.append(row)
                y2, x2 = min(y + height, image.height), min(x + width, image.width)
                boxes.append((max(y, 0), max(x, 0), y2, x2))
        masks_pixels.append(pixels)
    if not boxes:
        raise ValueError(f"{data.name}: there is no object to learn from")
    return Objects(
        np.array(sizes, np.float64),
        np.array(image_of_object),
        np.array(boxes, np.float64),
        np.array(masks_pixels),
        data.label_map.num_classes - 1,
    )


def long_edge_of(short_edge: int) -> int:
    """The longest side that goes with a short edge: 1333 for 800, as the paper's code has it."""
    return round(short_edge * 1333 / 800)


def possible_edges(objects: Objects) -> list[int]:
    """The short edges that photos of this size can have, from the smallest on.

    Enlarging photos shows nothing new, and a little enlarging still helps small objects.
    """
    stored = float(np.median(objects.image_sizes_hw.min(axis=1)))
    return [edge for edge in SHORT_EDGES if edge <= 1.5 * stored] or [SHORT_EDGES[0]]


def short_edge(objects: Objects) -> Choice:
    """The smallest short edge at which nearly all objects are large enough to be found."""

    def clear(edge: int) -> float:
        boxes, _ = objects.at(edge, long_edge_of(edge))
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        return float(np.mean(np.sqrt(areas) >= CLEAR_SIDE - 1e-6))

    possible = possible_edges(objects)
    chosen = next((edge for edge in possible if clear(edge) >= CLEAR_FRACTION), possible[-1])
    reason = (
        f"at a short edge of {chosen} pixels {clear(chosen):.0%} of the objects are at least "
        f"{CLEAR_SIDE:.0f} pixels large; smaller ones are found far less often"
    )
    if chosen != possible[0]:
        reason += f"; at {possible[0]} it would be {clear(possible[0]):.0%}"
    return Choice("short_edge", chosen, reason)


def anchor_sizes(objects: Objects, edge: int, rpn: RPN) -> Choice:
    """The anchors, one size per level of the pyramid, that the objects overlap best.

    Args:
      objects: of the training photos.
      edge: the short edge.
      rpn: what the experiment has; its sizes stay unless others are clearly better.
    """
    boxes, sizes_hw = objects.at(edge, long_edge_of(edge))
    ours = tuple(rpn.anchor_sizes)

    def score(sizes: Sequence[float]) -> tuple[float, float]:
        levels = anchor_recall.levels(
            sizes, rpn.anchor_ratios, _STRIDES, rounded=rpn.anchors_rounded
        )
        best = anchor_recall.best_ious(
            boxes,
            sizes_hw,
            levels,
            offset=rpn.anchor_offset,
            within_image=rpn.ignore_anchors_across_border,
        )
        return float(np.mean(best >= 0.5)), float(np.mean(best))

    candidates = [
        tuple(round(smallest * step**level, 1) for level in range(len(ours)))
        for smallest in _SMALLEST_ANCHORS
        for step in _STEPS_BETWEEN_LEVELS
    ]
    best = max(candidates, key=score)
    before, after = score(ours), score(best)
    if after[0] - before[0] < _GAIN_OF_OTHER_ANCHORS and after[1] - before[1] < 0.02:
        best, text = ours, "other sizes would do no better"
    else:
        text = f"with {list(ours)} it was {before[0]:.1%}, mean {before[1]:.2f}"
    recall, mean = score(best)
    return Choice(
        "task.model.rpn.anchor_sizes",
        list(best),
        f"{recall:.1%} of the objects overlap an anchor of their place by half or more "
        f"(mean best IoU {mean:.2f}); {text}",
    )


def max_instances(objects: Objects) -> Choice:
    """Room for the fullest image and a half more, which is also what one image can answer."""
    most = int(objects.counts().max())
    chosen = min(max(10 * math.ceil(1.5 * most / 10), 20), 300)
    return Choice(
        "task.model.max_instances", chosen, f"the fullest training photo has {most} objects"
    )


def mask_arena_pixels(objects: Objects) -> list[Choice]:
    """Memory for the masks of the fullest image."""
    most = int(objects.masks_pixels.max())
    chosen = 2 ** max(16, math.ceil(math.log2(max(most, 1) * 1.25)))
    reason = f"the objects of one photo cover up to {most:,} pixels of masks"
    return [
        Choice("task.train_data.mask_arena_pixels", chosen, reason),
        Choice("task.validation_data.mask_arena_pixels", 2 * chosen, "twice that, to be sure"),
    ]


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast this machine trains at a short edge.

    Attributes:
      short_edge: pixels.
      seconds: of a step.
    """

    short_edge: int
    seconds: float


def least_steps(num_images: int, batch: int) -> int:
    """Steps that should be had before images are made larger.

    Args:
      num_images: of the training set.
      batch: images in a step.
    """
    return min(max(_TIMES_SEEN * num_images // batch, _FEWEST_STEPS), ENOUGH_STEPS)


def pace(
    wanted_edge: int,
    possible: Sequence[int],
    minutes: float,
    least_steps: int,
    seconds_of: Callable[[int], float],
) -> tuple[Pace, list[Pace]]:
    """Find the short edge that makes the best use of the time.

    From what the objects ask for, images shrink until there are the least steps. If there are more
    than enough, they grow instead: outlines become sharper.

    Args:
      wanted_edge: what the objects ask for.
      possible: short edges, from the smallest on.
      minutes: of training.
      least_steps: what `least_steps` says.
      seconds_of: measures a step at a short edge.

    Returns:
      What is taken, and all that was measured.
    """

    def measure(edge: int) -> Pace:
        measured.append(Pace(edge, seconds_of(edge)))
        return measured[-1]

    def steps(one: Pace) -> float:
        return 60 * minutes / one.seconds

    def steps_at(edge: int, from_one: Pace) -> float:
        """About, as time grows with the pixels: what cannot suffice need not be tried."""
        return steps(from_one) * (from_one.short_edge / edge) ** 2

    def is_hopeless(edge: int) -> bool:
        last = measured[-1] if measured else None
        if last is None or edge == possible[0] or math.isinf(last.seconds):
            return False  # a size that did not fit into memory tells no time
        return _SURELY * steps_at(edge, last) < least_steps

    measured: list[Pace] = []
    for edge in sorted((e for e in possible if e <= wanted_edge), reverse=True):
        if not is_hopeless(edge) and steps(measure(edge)) >= least_steps:
            break
    taken = measured[-1]
    for edge in (e for e in possible if e > wanted_edge):
        if steps_at(edge, taken) < ENOUGH_STEPS:
            break
        larger = measure(edge)
        if steps(larger) < ENOUGH_STEPS:
            break
        taken = larger
    return taken, measured
