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
# # Train on your photos
#
# From a folder of photos with outlines to a network that finds such things in others: check,
# convert, train, score, draw, export. Each step is a command that you could type into a terminal.
#
# As it stands it draws its own photos, trains for three minutes, takes about ten in all on two
# cores and downloads nothing: the weights it starts from come with pip. It writes into the folder
# `train_on_photos` of the current one.
#
# **Where to run it.** In a checkout with its requirements installed (`pip install -r
# requirements.txt jupyterlab`), or in a hosted notebook: upload or clone the project, and run in a
# cell before this one
#
# ```text
# %cd PROJECT
# %pip install -q '.[train]'
# ```
#
# then restart the kernel. The file `train_on_your_photos.py` beside this notebook is the same as a
# script.

# %%
import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import matplotlib.pyplot as plt
import numpy as np
from pycocotools.coco import COCO

from mrcnn_tf.console import layout
from mrcnn_tf.detector import Detector
from mrcnn_tf.images import drawing, reading

WORK = pathlib.Path("train_on_photos")


def command(*words: str, may_exit: tuple[int, ...] = (0,)) -> None:
    """Run a command as a user would type it, show what it prints, and stop if it fails."""
    print("$ python", *words)
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="")
    if process.returncode not in may_exit:
        raise RuntimeError(f"exit code {process.returncode}")


# %% [markdown]
# ## Photos and outlines
#
# To take your own, name the folder of the photos and what your annotation tool exported: COCO (from
# Roboflow, CVAT, Label Studio, ...), YOLO, labelme or Pascal VOC, a file or an unpacked folder; the
# kind is recognised. The things must be *outlined*, not only boxed. Twenty photos are a beginning.
# With some hundred photos take `MINUTES = 30`; leave out the next but one cell.

# %%
PHOTOS = WORK / "photos/train"
ANNOTATIONS = WORK / "photos/annotations/instances_train.json"
MINUTES = 3

# %%
command(
    *layout.data_prep_command("create_shapes_coco"),
    *(f"--output_dir={WORK}/photos", "--image_size=160-240", "--num_train=80", "--num_val=1"),
)

# %% [markdown]
# One form for all: COCO's.

# %%
command(
    *layout.data_prep_command("to_coco"),
    *(f"--images={PHOTOS}", f"--annotations={ANNOTATIONS}"),
    f"--output_file={WORK}/annotations.json",
)


def truth_of(coco: COCO, image_id: int) -> np.ndarray:
    """Draw what is annotated in a photo."""
    rows = coco.loadAnns(coco.getAnnIds(image_id))
    x, y, w, h = np.array([row["bbox"] for row in rows], float).reshape(-1, 4).T
    return drawing.draw_detections(
        reading.read(PHOTOS / coco.imgs[image_id]["file_name"]).pixels,
        np.stack([y, x, y + h, x + w], axis=-1),
        [coco.annToMask(row).astype(bool) for row in rows],
        [coco.cats[row["category_id"]]["name"] for row in rows],
        color_ids=[row["category_id"] for row in rows],
        is_crowd=[bool(row.get("iscrowd")) for row in rows],
    )


def show(images: list[np.ndarray], columns: int, title: str) -> None:
    """Show drawings beside each other."""
    plt.figure(figsize=(12, 8))
    plt.imshow(drawing.contact_sheet(images, columns))
    plt.axis("off")
    plt.title(title)
    plt.show()


annotated = COCO(WORK / "annotations.json")
show([truth_of(annotated, i) for i in sorted(annotated.imgs)[:6]], 3, "as annotated")

# %% [markdown]
# ## Check
#
# Most poor results come from the data. The doctor looks for broken photos, boxes that do not fit,
# near-copies, classes that hardly occur; `inspection.html` shows each. It exits with 2 if it
# warns of something, with 3 if nothing can be learnt.

# %%
command(
    *("-m", "mrcnn_tf.inspect_data", f"--images={PHOTOS}"),
    *(f"--annotations={WORK}/annotations.json", f"--output_dir={WORK}/data"),
    may_exit=(0, 2),
)

# %% [markdown]
# ## Split and convert
#
# A fifth of the photos is kept apart, to see how well the network does on what it has not learnt;
# copies of a photo stay on one side. Then photos and outlines are packed into records.

# %%
command(
    *layout.data_prep_command("split_coco"),
    *(f"--images={PHOTOS}", f"--annotations={WORK}/annotations.json"),
    f"--output_dir={WORK}/split",
)
for part in ("train", "val"):
    command(
        *layout.data_prep_command("create_coco_tfrecord"),
        f"--image_dir={PHOTOS}",
        f"--object_annotations_file={WORK}/split/{part}.json",
        f"--output_file_prefix={WORK}/records/{part}",
        "--num_shards=2",
    )

# %% [markdown]
# ## Choose
#
# The size of the network's input, its anchors and the number of steps for these photos, this
# machine and `MINUTES`; a few steps are taken to measure. Every choice stands in the file with
# its reason, and is yours to change.

# %%
EXPERIMENT = WORK / "photos.yaml"
command(
    *("-m", "mrcnn_tf.choose_experiment", f"--images={PHOTOS}"),
    f"--annotations={WORK}/split/train.json",
    f"--train_records={WORK}/records/train-*.tfrecord",
    f"--val_records={WORK}/records/val-*.tfrecord",
    f"--output_file={EXPERIMENT}",
    f"--minutes={MINUTES}",
)
print(EXPERIMENT.read_text())

# %% [markdown]
# ## Train
#
# Stopped, the same command goes on where it was. The best state is kept in `training/best`.

# %%
RUN = WORK / "training"
command("-m", "mrcnn_tf.train", f"--experiment={EXPERIMENT}", f"--model_dir={RUN}")

# %%
rows = [json.loads(line) for line in (RUN / "train.jsonl").read_text().splitlines()]
terms = [name for name in rows[-1] if name.endswith("_loss")]
plt.figure(figsize=(8, 4))
for term in terms:
    plt.plot([row["step"] for row in rows], [row[term] for row in rows], label=term)
plt.xlabel("step")
plt.legend()
plt.show()
assert rows[-1]["mask_loss"] < rows[0]["mask_loss"]

# %% [markdown]
# ## Score
#
# COCO's numbers on the photos that were kept apart, and a report: how often it is right, what goes
# wrong most, what would help. It is one page, `training/report/report.html`.

# %%
command(
    *("-m", "mrcnn_tf.train", "--mode=eval", f"--experiment={EXPERIMENT}"),
    *(f"--model_dir={RUN}", f"--checkpoint_path={RUN}/best"),
)
command(
    *("-m", "mrcnn_tf.report", f"--experiment={EXPERIMENT}"),
    *(f"--model_dir={RUN}", f"--checkpoint_path={RUN}/best"),
)
scores = json.loads((RUN / "metrics.jsonl").read_text().splitlines()[-1])
print({name: round(scores[name], 3) for name in ("box_ap", "mask_ap", "mask_ap50")})

# %% [markdown]
# ## Look
#
# The network in Python: a list of photos in, objects out.

# %%
detector = Detector.load(str(EXPERIMENT), str(RUN / "best"))
kept_apart = COCO(WORK / "split/val.json")
pairs = []
for image_id in sorted(kept_apart.imgs)[:6]:
    path = PHOTOS / kept_apart.imgs[image_id]["file_name"]
    found = [detection for detection in detector([path])[0] if detection.score >= 0.5]
    prediction = drawing.draw_detections(
        reading.read(path).pixels,
        np.array([detection.box for detection in found]).reshape(-1, 4),
        [detection.mask for detection in found],
        [detection.category for detection in found],
        [detection.score for detection in found],
        color_ids=[detection.category_id for detection in found],
    )
    pairs.append(drawing.draw_side_by_side(truth_of(kept_apart, image_id), prediction))
show(pairs, 2, "photos that it has not learnt from")

# %% [markdown]
# ## Export and use
#
# A SavedModel for TensorFlow Serving, and for `predict`, which needs neither Model Garden nor
# Keras.

# %%
command(
    *("-m", "mrcnn_tf.export", f"--experiment={EXPERIMENT}"),
    *(f"--checkpoint_path={RUN}/best", f"--export_dir={WORK}/saved_model"),
)
command(
    *("-m", "mrcnn_tf.predict", f"--saved_model={WORK}/saved_model"),
    *(f"--input={WORK}/split/val.txt", f"--output_dir={WORK}/predictions"),
)
rows = json.loads((WORK / "predictions/detections.json").read_text())
print(len(rows), "detections; the first:", {**rows[0], "segmentation": "..."} if rows else "")

# %% [markdown]
# ## All of it in one command
#
# ```sh
# python -m mrcnn_tf.finetune --images=photos --annotations=export.json --output_dir=runs/photos
# ```
#
# does what this notebook did, and goes on where it was stopped. [Your own
# photos](../your-own-photos.md) says what to do when the result is not good enough; [inside a
# step](inside_a_step.ipynb) what happens in training.
