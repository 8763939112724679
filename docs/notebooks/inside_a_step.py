# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Inside a step
#
# One training step of Mask R-CNN, taken apart: two images go through a small network, and what each
# part makes of them is drawn and checked. Every `assert` is a statement about it; change what
# stands before it, and see what breaks.
#
# It takes a minute or two on two cores and downloads nothing. What it writes lies in
# `runs/notebooks/step` of the project.
#
# **Where to run it.** In a checkout of the project: `pip install -r requirements.txt jupyterlab`,
# then `jupyter lab docs/notebooks`. Or in a hosted notebook: bring the checkout there (clone it, or
# upload and unpack it), and run in a new cell before this one, where PROJECT is its folder,
#
# ```text
# %cd PROJECT
# %pip install -q -r requirements.txt
# ```
#
# then restart the kernel, and `%cd PROJECT` again.

# %%
import os
import pathlib
import shlex
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Commands are typed in the project's folder. Jupyter starts in the notebook's, which lies in it.
folders = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
project = next((folder for folder in folders if (folder / "mrcnn_tf/train.py").is_file()), None)
if project is None:
    raise FileNotFoundError("run %cd into the project's folder first")
os.chdir(project)
sys.path.insert(0, str(project))

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from matplotlib.patches import Rectangle

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import inputs, label_maps, loading
from mrcnn_tf.images import drawing
from mrcnn_tf.modeling import build
from mrcnn_tf.modeling import targets as targets_lib
from mrcnn_tf.ops import boxes, masks, matching, nms, roi_align, sampling

WORK = "runs/notebooks/step"


def command(line: str) -> None:
    """Run a command as it is typed into a terminal, show what it prints, and stop if it fails."""
    words = shlex.split(line)
    words[0] = sys.executable  # the Python of this notebook, whatever a terminal calls python
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    print("$", " ".join(line.split()), "\n" + done.stdout)
    done.check_returncode()


# %% [markdown]
# ## The batch
#
# Twelve images of the demo's synthetic data set, as records. With your own folder and COCO file in
# the second command, everything below is about your photos.

# %%
command(f"""
    python data_prep/create_shapes_coco.py --output_dir={WORK}/images --num_train=12 --num_val=1
""")
command(f"""
    python data_prep/create_coco_tfrecord.py --image_dir={WORK}/images/train
      --object_annotations_file={WORK}/images/annotations/instances_train.json
      --output_file_prefix={WORK}/records/train --num_shards=1
""")

# %% [markdown]
# An experiment is a file of numbers, here the demo's with two images a step and, as in the paper, 2
# x 2 samples in a bin of RoIAlign. `experiment.task.model` is what the network is built from,
# `experiment.task.train_data` what the input is.

# %%
experiment = loading.load(
    "maskrcnn_shapes",
    params_override=(
        f"task.train_data.input_path='{WORK}/records/train-*.tfrecord',"
        "task.train_data.global_batch_size=2,task.model.roi_align.sampling_ratio=2"
    ),
)
fields = experiment.task.model
label_map = label_maps.of_experiment(experiment.task)
batch = next(iter(inputs.build(experiment.task, experiment.task.train_data, label_map)))
batch = targets_lib.without_padding(batch)  # as `train_forward` does
for key, value in batch.items():
    print(f"{key:22}{value.dtype.name:10}{list(value.shape)}")

# %% [markdown]
# `mrcnn_tf/data/schema.py` says what each of them is. Objects are padded to one number `G` (rows
# that are padding in both images are cut off above), with a `gt_valid` that says which are objects;
# boxes are `(y1, x1, y2, x2)` in pixels of the network's input; masks are bits in one string per
# image, which are looked up and never resized.

# %%
image_size_hw = batch[schema.IMAGE_SIZE_HW]
canvas_hw = batch[schema.IMAGE].shape[1:3]
gt_boxes, gt_valid = batch[schema.GT_BOXES], batch[schema.GT_VALID]
is_object = (gt_valid & ~batch[schema.GT_IS_CROWD]).numpy()  # a crowd region is nothing to be found
full_masks = masks.full_masks(
    batch[schema.GT_MASK_BITS],
    batch[schema.GT_MASK_OFFSETS],
    batch[schema.GT_MASK_SIZES],
    batch[schema.GT_MASK_FRAMES],
    *canvas_hw,
)

pictures = batch[schema.IMAGE].numpy() * fields.pixels.std + fields.pixels.mean
if fields.pixels.order == "bgr":
    pictures = pictures[..., ::-1]
pictures = np.clip(np.round(pictures), 0, 255).astype(np.uint8)


def names_of(classes: np.ndarray) -> list[str]:
    """Class 0 is background; class k is the label map's entry k - 1."""
    return [label_map.names[k - 1] for k in classes]


drawn = []
for b in range(2):
    rows = np.flatnonzero(gt_valid[b])
    drawn.append(
        drawing.draw_detections(
            pictures[b],
            gt_boxes[b].numpy()[rows],
            list(full_masks[b].numpy()[rows]),
            names_of(batch[schema.GT_CLASSES][b].numpy()[rows]),
            is_crowd=batch[schema.GT_IS_CROWD][b].numpy()[rows],
        )
    )
plt.figure(figsize=(10, 5))
plt.imshow(drawing.contact_sheet(drawn, columns=2))
plt.axis("off")
plt.title("the batch as augmented, and what there is to find; crowds grey")
plt.show()

# %% [markdown]
# ## Features
#
# Backbone and pyramid turn an image into five maps. Level `l` has stride `2**l`: one of its cells
# stands for `2**l` pixels of the input in each direction.

# %%
tf.random.set_seed(0)
model = build.build_model(fields, label_map.num_classes)
features = model.features(batch[schema.IMAGE], training=True)
for level, feature in features.items():
    print(f"P{level}: {list(feature.shape)}, stride {2**level}")
    assert feature.shape[1:3] == [-(-side // 2**level) for side in canvas_hw]  # rounded up

figure, axes = plt.subplots(1, len(features), figsize=(12, 3))
for axis, (level, feature) in zip(axes, features.items(), strict=True):
    axis.imshow(tf.norm(feature[0], axis=-1), cmap="viridis")
    axis.set_title(f"P{level}")
    axis.axis("off")
figure.suptitle("length of the feature vector at each cell of the first image, random weights")
plt.show()

# %% [markdown]
# ## Anchors
#
# The RPN asks at every cell of every level whether there is an object of one of a few shapes. An
# anchor of size `s` and ratio `r` has the area `s * s` and is `r` times as high as wide.

# %%
anchors = model.rpn.anchors(features)  # {level: [A of the level, (y1, x1, y2, x2)]}
per_cell = len(fields.rpn.anchor_ratios)
for level, size in zip(anchors, fields.rpn.anchor_sizes, strict=True):
    here = anchors[level]
    assert here.shape[0] == features[level].shape[1] * features[level].shape[2] * per_cell
    np.testing.assert_allclose(boxes.area(here), size**2, rtol=1e-4)
    height, width = (here[:, 2] - here[:, 0]).numpy(), (here[:, 3] - here[:, 1]).numpy()
    ratios = (height / width)[:per_cell]
    np.testing.assert_allclose(ratios, fields.rpn.anchor_ratios, rtol=1e-4)
    print(f"P{level}: {len(here):5} anchors of the area {size:g} x {size:g}")
all_anchors = tf.concat([anchors[level] for level in sorted(anchors)], axis=0)  # [A, 4]


def outline(axis, some_boxes, color, width=1.0) -> None:
    """Draw boxes (y1, x1, y2, x2); matplotlib takes x, y, and has pixel 0 from -0.5 to 0.5."""
    for y1, x1, y2, x2 in np.reshape(some_boxes, [-1, 4]):
        axis.add_patch(
            Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=color, lw=width)
        )


def picture(axis, b: int, title: str) -> None:
    """Show image `b` of the batch, pale enough for what is drawn over it."""
    axis.imshow(pictures[b] // 2 + 127)
    axis.set_title(title, fontsize=10)
    axis.axis("off")


figure, axes = plt.subplots(1, len(anchors), figsize=(12, 3))
for axis, (level, here) in zip(axes, anchors.items(), strict=True):
    rows, columns = features[level].shape[1:3]
    middle = (rows // 2 * columns + columns // 2) * per_cell
    picture(axis, 0, f"P{level}, one cell of {rows * columns}")
    outline(axis, here[middle : middle + per_cell], "crimson", 1.5)
plt.show()

# %% [markdown]
# ## Overlap
#
# Everything that follows is decided by intersection over union. By hand: two squares of 10 x 10,
# the second moved by half its width. They share 10 x 5 = 50 of 100 + 100 - 50 = 150 pixels: a
# third.
#
# Coordinates are continuous, a box from 0 to 10 is 10 wide. With the "+ 1" of older code it would
# be 11, and the answer 11 * 6 / (121 + 121 - 66) = 0.375.

# %%
iou = boxes.iou(tf.constant([[0.0, 0, 10, 10]]), tf.constant([[0.0, 5, 10, 15]]))
print(iou.numpy())
np.testing.assert_allclose(iou, [[1 / 3]], rtol=1e-6)

# %% [markdown]
# ## Matching
#
# Which anchor has to find which object (section 3.1.2 of Faster R-CNN)? From IoU 0.7 on it is
# positive, below 0.3 negative, between the two neither. And so that no object is left out, the best
# anchor of each object is positive, however little it overlaps. Four anchors, two objects:

# %%
objects = tf.constant([[[0.0, 0, 10, 10], [0, 20, 10, 30]]])
four = tf.constant(
    [
        [
            [0.0, 0, 10, 9],  # 90 of 100 pixels of the first object: 0.9
            [0, 0, 10, 5],  # 50 of 100: 0.5, neither
            [0, 15, 10, 25],  # a third of the second object, and none has more: positive
            [14, 20, 24, 30],  # nothing: negative
        ]
    ]
)
matches = matching.match(
    boxes.iou(four, objects), tf.constant([[True, True]]), 0.7, 0.3, allow_low_quality=True
)
assert matches.is_positive.numpy().tolist() == [[True, False, True, False]]
assert matches.is_negative.numpy().tolist() == [[False, False, False, True]]
assert matches.gt_index.numpy()[0, [0, 2]].tolist() == [0, 1]

figure, axes = plt.subplots(1, 4, figsize=(12, 3))
for k, axis in enumerate(axes):
    kind = "positive" if matches.is_positive[0, k] else "neither"
    kind = "negative" if matches.is_negative[0, k] else kind
    axis.set_title(f"IoU {matches.max_iou[0, k]:.2f}: {kind}")
    outline(axis, objects[0], "green", 3)
    outline(axis, four[0, k], "crimson", 1.5)
    axis.set(xlim=(-2, 32), ylim=(26, -2), aspect="equal")
figure.suptitle("objects green, anchor red")
plt.show()

# %% [markdown]
# Now the batch: all anchors against all objects. Those that reach beyond the image are left out, as
# in Faster R-CNN: without area they overlap nothing, and `ignored` ones are no negatives either.

# %%
across = boxes.is_across_border(all_anchors, image_size_hw)  # [B, A]
inside = tf.where(across[..., tf.newaxis], 0.0, all_anchors)  # [B, A, 4]
matches = matching.match(
    boxes.iou(inside, gt_boxes),
    is_object,
    fields.rpn.positive_iou,
    fields.rpn.negative_iou,
    allow_low_quality=True,
    ignored=across,
)
left_over = ~(matches.is_positive | matches.is_negative | across)
groups = {
    "positive": (matches.is_positive, "crimson"),
    "neither: between 0.3 and 0.7": (left_over, "darkorange"),
    "negative": (matches.is_negative, "royalblue"),
}
figure, axes = plt.subplots(1, 3, figsize=(12, 4.4))
for axis, (kind, (belongs, color)) in zip(axes, groups.items(), strict=True):
    some = all_anchors.numpy()[belongs[0].numpy()]
    picture(axis, 0, f"{len(some)} {kind}")
    outline(axis, some[:: max(1, len(some) // 60)], color, 0.8)  # at most 120 of them
    outline(axis, gt_boxes[0].numpy()[is_object[0]], "green", 2.5)
figure.suptitle(f"of {len(all_anchors)} anchors, {np.sum(across[0])} of which leave the image")
plt.show()

# However small an object, its best anchor is positive.
iou = boxes.iou(inside, gt_boxes).numpy()  # [B, A, G]
for b, g in np.argwhere(is_object):
    if iou[b, :, g].max() > 0:
        assert matches.is_positive[b].numpy()[iou[b, :, g] == iou[b, :, g].max()].all()

# %% [markdown]
# ## Sampling
#
# Most anchors are background. Learnt from all of them, the RPN would say "no" everywhere and be
# right. So of each image a fixed number is drawn, at most a given part of it positive; where there
# are fewer positives, negatives fill up. Two images of 100 candidates, 30 of which are positive in
# the one, and 2 in the other; 16 are drawn, at most a quarter positive:

# %%
is_positive = tf.constant(np.stack([np.arange(100) < 30, np.arange(100) < 2]))
seeds = sampling.image_seeds(0, 0, tf.constant([11, 12]), stream=0)
sample = sampling.sample(is_positive, ~is_positive, 16, 0.25, seeds)
positives = tf.reduce_sum(tf.cast(sample.is_positive, tf.int32), axis=1).numpy()
print("positives of 16:", positives)
assert positives.tolist() == [4, 2]  # 4 : 12 is 1 : 3; of two there are no more than two
assert sample.valid.numpy().all()

# %% [markdown]
# What is drawn follows from the run's seed, the step and the image alone, so a run that was stopped
# draws what it would have drawn.

# %%
again = sampling.sample(is_positive, ~is_positive, 16, 0.25, seeds)
assert np.array_equal(sample.index, again.index)
next_step = sampling.image_seeds(0, 1, tf.constant([11, 12]), stream=0)
other = sampling.sample(is_positive, ~is_positive, 16, 0.25, next_step)
assert not np.array_equal(sample.index, other.index)

# %% [markdown]
# Now the batch. `train_forward` of the RPN matches, samples and predicts; its `targets` say what
# was sampled, as positions among the anchors.

# %%
step = tf.constant(0)
rpn_outputs, proposals = model.rpn.train_forward(features, batch, 0, step)
targets = rpn_outputs.targets
figure, axes = plt.subplots(1, 2, figsize=(10, 5.4))
for b, axis in enumerate(axes):
    index = targets.index[b].numpy()
    positive, valid = targets.is_positive[b].numpy(), targets.valid[b].numpy()
    negative = valid & ~positive
    chosen = all_anchors.numpy()[index]
    picture(axis, b, f"drawn: {positive.sum()} positive, {negative.sum()} negative")
    outline(axis, chosen[negative], "royalblue", 0.4)
    outline(axis, gt_boxes[b].numpy()[is_object[b]], "green", 2.5)
    outline(axis, chosen[positive], "crimson", 1.2)
    assert positive.sum() <= valid.sum() // 2
    # Drawn from those of above.
    assert matches.is_positive[b].numpy()[index[positive]].all()
    assert matches.is_negative[b].numpy()[index[negative]].all()
plt.show()

# %% [markdown]
# ## Deltas
#
# A positive anchor also learns how to move: its centre by parts of its own size, its size by a
# logarithm. From a square of 10 at the origin to a box from (2, 0) to (12, 20): the centre moves
# by (2, 5), which is (0.2, 0.5) of the size; the height stays (log 1 = 0), the width doubles (log
# 2).

# %%
anchor, box = tf.constant([[0.0, 0, 10, 10]]), tf.constant([[2.0, 0, 12, 20]])
deltas = boxes.encode(box, anchor)
print(deltas.numpy())
np.testing.assert_allclose(deltas, [[0.2, 0.5, 0.0, np.log(2)]], atol=1e-6)
np.testing.assert_allclose(boxes.decode(deltas, anchor), box, atol=1e-5)

# %% [markdown]
# So an anchor that did all that it is asked to would lie on its object:

# %%
for b in range(2):
    positive = targets.is_positive[b].numpy()
    index = targets.index[b].numpy()[positive]
    moved = boxes.decode(targets.deltas[b].numpy()[positive], all_anchors.numpy()[index])
    objects = gt_boxes[b].numpy()[matches.gt_index[b].numpy()[index]]
    np.testing.assert_allclose(moved, objects, atol=1e-2)

# %% [markdown]
# ## Proposals
#
# The best anchors of each level, moved, clipped to the image, and without those that overlap a
# better one by more than 0.7. That last rule is non-maximum suppression; by hand, three boxes:

# %%
three = tf.constant([[[0.0, 0, 10, 10], [0, 1, 10, 11], [0, 20, 10, 30]]])
scores = tf.constant([[0.9, 0.8, 0.3]])
# The second shares 90 of 110 pixels with the better first one: 0.82, so it goes.
kept, kept_valid = nms.nms(
    three, scores, tf.ones([1, 3], tf.bool), iou_threshold=0.7, max_outputs=3
)
assert kept[0].numpy()[kept_valid[0].numpy()].tolist() == [0, 2]

figure, axes = plt.subplots(1, 2, figsize=(10, 5.4))
for b, axis in enumerate(axes):
    valid = proposals.valid[b].numpy()
    found = proposals.boxes[b].numpy()[valid]
    picture(axis, b, f"the 20 best of {valid.sum()} proposals")
    outline(axis, found[:20], "darkorange")
    best_first = proposals.scores[b].numpy()[valid]
    assert (np.diff(best_first) <= 0).all()
    height, width = image_size_hw[b].numpy()
    assert found.min() >= 0
    assert (found[:, 2] <= height).all()
    assert (found[:, 3] <= width).all()
plt.show()

# %% [markdown]
# The weights are random, so these are anchors in the order of noise. Nothing is lost: the
# objects' own boxes join the proposals from which RoIs are sampled, so the heads have something
# to learn from in the first step. A RoI is positive if it overlaps an object by half, and at most a
# quarter of those drawn is positive.

# %%
rois = model.sample_rois(proposals, batch, 0, step)
head = fields.box_head
figure, axes = plt.subplots(1, 2, figsize=(10, 5.4))
for b, axis in enumerate(axes):
    positive, valid = rois.is_positive[b].numpy(), rois.valid[b].numpy()
    negative = valid & ~positive
    some = rois.rois[b].numpy()
    picture(axis, b, f"RoIs: {positive.sum()} positive, {negative.sum()} negative")
    outline(axis, some[negative], "royalblue", 0.6)
    outline(axis, some[positive], "crimson", 1.5)
    assert positive.sum() <= int(head.rois_per_image * head.positive_fraction)
    overlap = boxes.iou(rois.rois[b], gt_boxes[b]).numpy()[:, is_object[b]].max(axis=1, initial=0)
    assert (overlap[positive] >= 0.5).all()
    assert (overlap[negative] < 0.5).all()
    # The class is that of the object, 0 for background.
    assert ((rois.classes[b].numpy() > 0) == positive).all()
plt.show()

# %% [markdown]
# ## Levels
#
# Large RoIs are pooled from coarse levels (equation 1 of Feature Pyramid Networks): a box of 224 x
# 224 pixels from P4, half of that from P3, twice of it from P5.

# %%
sides = [56.0, 111.9, 112.0, 223.9, 224.0, 448.0, 900.0]
squares = tf.constant([[[0.0, 0, side, side] for side in sides]])
levels = roi_align.assign_levels(squares, 2, 5).numpy()[0].tolist()
print(dict(zip(sides, levels, strict=True)))
assert levels == [2, 2, 3, 3, 4, 5, 5]

# %% [markdown]
# Images of 128 pixels hold no box of 224: here all RoIs but the largest come from P2.

# %%
of_rois = roi_align.assign_levels(rois.rois, 2, 5).numpy()[rois.valid.numpy()]
print({f"P{level}": int((of_rois == level).sum()) for level in range(2, 6)})
assert of_rois.max() <= 3

# %% [markdown]
# ## RoIAlign
#
# A RoI of any size becomes 7 x 7 bins, without rounding a coordinate: each bin is the mean of
# samples, each sample lies between four cells of the map and is interpolated. The paper's figure 3.
#
# By hand, on a map whose value is its row: row `i` covers `[i, i + 1)` and has its centre at `i +
# 0.5`, so at the place `y` there is `y - 0.5`. A box from 4 to 12 in four bins has its bins'
# centres at 5, 7, 9, 11.

# %%
ramp = tf.broadcast_to(tf.range(16.0)[:, tf.newaxis], [16, 16])[tf.newaxis, :, :, tf.newaxis]
pooled = roi_align.roi_align({0: ramp}, tf.constant([[[4.0, 3, 12, 9]]]), None, 4, 2, True)
print(pooled[0, 0, :, :, 0].numpy())
np.testing.assert_allclose(pooled[0, 0, :, 0, 0], [4.5, 6.5, 8.5, 10.5], atol=1e-5)

# %% [markdown]
# And a twin in NumPy, one sample after the other, to compare the network's with:


# %%
def sample_at(feature: np.ndarray, y: float, x: float) -> np.ndarray:
    """Interpolate feature [H, W, C] at a place; beyond the outermost centres it repeats them."""
    height, width, _ = feature.shape
    y, x = np.clip(y - 0.5, 0, height - 1), np.clip(x - 0.5, 0, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    above = (1 - dx) * feature[top, left] + dx * feature[top, right]
    below = (1 - dx) * feature[bottom, left] + dx * feature[bottom, right]
    return (1 - dy) * above + dy * below


def slow_roi_align(feature, box, stride: int, size: int, per_bin: int) -> np.ndarray:
    """RoIAlign of one box (y1, x1, y2, x2): [size, size, C]."""
    y1, x1, y2, x2 = np.asarray(box, np.float64) / stride
    bin_h, bin_w = (y2 - y1) / size, (x2 - x1) / size
    result = np.zeros([size, size, feature.shape[-1]])
    inside = (np.arange(per_bin) + 0.5) / per_bin
    for i, j in np.ndindex(size, size):
        samples = [
            sample_at(feature, y1 + (i + dy) * bin_h, x1 + (j + dx) * bin_w)
            for dy in inside
            for dx in inside
        ]
        result[i, j] = np.mean(samples, axis=0)
    return result


bins, per_bin = head.pool_size, fields.roi_align.sampling_ratio
ours = model.roi_heads.pool(features, rois.rois, bins).numpy()  # [B, R, 7, 7, C]
row = int(tf.argmax(tf.where(rois.is_positive[0], boxes.area(rois.rois[0]), 0.0)))
box, level = rois.rois[0, row].numpy(), int(roi_align.assign_levels(rois.rois, 2, 5)[0, row])
feature = features[level][0].numpy()
twin = slow_roi_align(feature, box, 2**level, bins, per_bin)
np.testing.assert_allclose(ours[0, row], twin, rtol=1e-3, atol=1e-4)
print(f"the same to {np.abs(ours[0, row] - twin).max():.1e}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 4.4))
picture(axes[0], 0, "the largest positive RoI")
outline(axes[0], box, "crimson", 2)

# The map in pixels of the input: a cell is as large as its stride.
height, width = (side - 0.5 for side in canvas_hw)
axes[1].imshow(np.linalg.norm(feature, axis=-1), extent=(-0.5, width, height, -0.5))
y1, x1, y2, x2 = box - 0.5
edges = np.linspace(0, 1, bins + 1)
axes[1].hlines(y1 + (y2 - y1) * edges, x1, x2, "white", lw=0.8)
axes[1].vlines(x1 + (x2 - x1) * edges, y1, y2, "white", lw=0.8)
places = (np.arange(bins * per_bin) + 0.5) / (bins * per_bin)
xs, ys = np.meshgrid(x1 + (x2 - x1) * places, y1 + (y2 - y1) * places)
axes[1].plot(xs.ravel(), ys.ravel(), ".", color="crimson", ms=3)
axes[1].set(xlim=(x1 - 6, x2 + 6), ylim=(y2 + 6, y1 - 6))
axes[1].set_title(f"its bins on P{level}, {per_bin} x {per_bin} samples each", fontsize=10)
axes[1].axis("off")

axes[2].imshow(np.linalg.norm(ours[0, row], axis=-1))
axes[2].set_title(f"what the box head gets: {bins} x {bins} x {ours.shape[-1]}", fontsize=10)
axes[2].axis("off")
plt.show()

# %% [markdown]
# ## Mask targets
#
# Each positive RoI asks for the part of its object's mask that lies inside it, on a grid of 28 x
# 28: the RoI's, not the object's, so a RoI that is off sees the mask off. A cell is 1 if the mask,
# sampled there as RoIAlign samples features, is a half or more.

# %%
outputs = model.train_forward(batch, 0, step)
assert np.array_equal(outputs.roi_targets.rois, rois.rois)  # seed, step, image: the same sample

b = int(np.argmax(np.sum(outputs.masks.valid, axis=1)))  # the image with more of them
shown = np.flatnonzero(outputs.masks.valid[b])[:8]
figure, axes = plt.subplots(3, len(shown), figsize=(1.5 * len(shown), 4.5), squeeze=False)
for column, f in enumerate(shown):
    y1, x1, y2, x2 = rois.rois[b, f].numpy()
    target = outputs.masks.targets[b, f].numpy()
    mask = full_masks[b, int(rois.gt_index[b, f])].numpy()
    for axis, pixels in zip(axes[:2, column], (pictures[b], mask), strict=True):
        axis.imshow(pixels, cmap="gray")
        axis.set(xlim=(x1 - 0.5, x2 - 0.5), ylim=(y2 - 0.5, y1 - 0.5))
    axes[0, column].set_title(names_of([int(rois.classes[b, f])])[0], fontsize=10)
    axes[2, column].imshow(target, cmap="gray", vmin=0, vmax=1)
    assert set(np.unique(target)) <= {0.0, 1.0}
    # As much of the grid is 1 as of the RoI is the object's.
    part = mask[round(float(y1)) : round(float(y2)), round(float(x1)) : round(float(x2))]
    assert abs(target.mean() - part.mean()) < 0.15
for axis in axes.ravel():
    axis.set(xticks=[], yticks=[])
for axis, label in zip(axes[:, 0], ("RoI", "object's mask", "target, 28 x 28"), strict=True):
    axis.set_ylabel(label)
plt.show()

# %% [markdown]
# ## Losses
#
# Five terms, added up. What three of them are with random weights can be told beforehand: a network
# that knows nothing gives every yes-or-no question the probability 1/2 and pays log 2, and every
# choice among N classes about log N.

# %%
sums = model.losses_of(outputs)
losses = {name: float(term.mean()) for name, term in sums.items()}
for name, value in losses.items():
    print(f"{name:16}{value:8.4f}   over {int(sums[name].count)}")
print(f"log 2 = {np.log(2):.4f}, log {label_map.num_classes} = {np.log(label_map.num_classes):.4f}")
assert abs(losses["rpn_class_loss"] - np.log(2)) < 0.1
assert abs(losses["mask_loss"] - np.log(2)) < 0.1
assert abs(losses["class_loss"] - np.log(label_map.num_classes)) < 0.5
# Masks are learnt on positives only, classes on all that was sampled.
assert int(sums["mask_loss"].count) == np.sum(outputs.masks.valid.numpy())
assert int(sums["class_loss"].count) == np.sum(rois.valid.numpy())

# %% [markdown]
# The class loss by hand: the logarithm of the probability of the true class, averaged.

# %%
logits = outputs.class_logits.numpy().astype(np.float64)
log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
true = np.take_along_axis(log_probabilities, rois.classes.numpy()[..., np.newaxis], axis=-1)
by_hand = -true[rois.valid.numpy()].mean()
np.testing.assert_allclose(losses["class_loss"], by_hand, rtol=1e-4)

# %% [markdown]
# ## The step
#
# The gradient of the sum, and every weight a little against it. Four times on the same sample: that
# something is learnt shows at once.

# %%
totals = []
for _ in range(4):
    with tf.GradientTape() as tape:
        sums = model.losses_of(model.train_forward(batch, 0, step))
        total = tf.add_n([term.mean() for term in sums.values()])
    gradients = tape.gradient(total, model.trainable_variables)
    gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.05 * tf.convert_to_tensor(gradient))  # some come as slices
    totals.append(float(total))
print("the loss of four steps on the same batch:", np.round(totals, 3))
assert totals[-1] < totals[0]

# %% [markdown]
# What `python -m mrcnn_tf.train` adds to this is in `mrcnn_tf/training/task.py` and `loop.py`:
# the optimizer and its schedule, weight decay, several GPUs, evaluation, checkpoints. The notebook
# [train on your photos](train_on_your_photos.ipynb) uses it.
