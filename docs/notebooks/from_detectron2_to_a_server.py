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
# # From a Detectron2 file to a server
#
# A file of weights in Detectron2's layout becomes a checkpoint, a SavedModel and the folder that
# TensorFlow Serving is started with; then pictures are sent to a server as clients send them.
#
# It takes a few minutes on two cores and downloads nothing. What it writes lies in
# `runs/notebooks/detectron2` of the project.
#
# **Where to run it.** In a checkout of the project: `pip install -r requirements-dev.txt
# jupyterlab` (`-dev`: TensorFlow Serving's messages are among what tests need),
# then `jupyter lab docs/notebooks`. Or in a hosted notebook: bring the checkout there (clone it, or
# upload and unpack it), and run in a new cell before this one, where PROJECT is its folder,
#
# ```text
# %cd PROJECT
# %pip install -q -r requirements-dev.txt
# ```
#
# then restart the kernel, and `%cd PROJECT` again.

# %%
import base64
import json
import os
import pathlib
import pickle
import shlex
import subprocess
import sys
import urllib.request

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

from mrcnn_tf.client import Client
from mrcnn_tf.detector import Detector
from mrcnn_tf.experiment import loading
from mrcnn_tf.images import drawing, reading
from mrcnn_tf.modeling import build

WORK = "runs/notebooks/detectron2"


def command(line: str) -> None:
    """Run a command as it is typed into a terminal, show what it prints, and stop if it fails."""
    words = shlex.split(line)
    words[0] = sys.executable  # the Python of this notebook, whatever a terminal calls python
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    print("$", " ".join(line.split()), "\n" + done.stdout)
    done.check_returncode()


# %% [markdown]
# ## The file
#
# Detectron2's model zoo has the real ones: Mask R-CNN R50-FPN of the long schedule is
# `detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl`,
# whose `detectron2://` stands for `https://dl.fbaipublicfiles.com/detectron2/`. **With that file**
# set `FILE` to where it lies and `SIZE = ""`, leave out the two cells that begin with "Of the file
# made here", and all else is the same, but for the time that a network of 44 million parameters
# takes.

# %%
FILE = f"{WORK}/model_final.pkl"
# Small pictures, to be quick: a short edge of 160 pixels in the place of 800.
SIZE = "task.validation_data.short_edges=[160],task.validation_data.long_edge=240"

# %% [markdown]
# Nothing is to be downloaded here, so we make a file of the same layout: a network of
# ResNet-18, an eighth as wide, for COCO's 80 classes, with random weights, written the way back
# (`convert_weights --target`). It finds nothing that makes sense; what is checked is that every
# number arrives.

# %%
# Of the file made here.
experiment = loading.load(
    "maskrcnn_r50_fpn",
    params_override=(
        "task.model.preset=detectron2,task.model.num_classes=81,task.model.fpn.channels=32,"
        "task.model.backbone.depth=18,task.model.backbone.base_width=8,"
        "task.model.backbone.weights=auto,"
        "task.model.box_head.fc_channels=64,task.model.mask_head.conv_channels=32"
    ),
)
tf.random.set_seed(0)
network = build.build_model(experiment.task.model, 81)

# Scores of random weights are all alike, or all 0 and 1. Scaled by their spread on noise, they have
# an order, and some are above the threshold from which on objects are answered.
noise = tf.random.normal([1, 160, 160, 3], stddev=50.0)
somewhere = tf.constant([[[0.0, 0, 80, 80], [40, 40, 160, 160]]])
logits, _ = network.roi_heads.boxes(network.features(noise, False), somewhere)
last = network.roi_heads.box_head.class_logits
last.kernel.assign(last.kernel * (3.0 / tf.math.reduce_std(logits)))

pathlib.Path(WORK).mkdir(parents=True, exist_ok=True)
loading.save(experiment, f"{WORK}/made.yaml")
tf.train.Checkpoint(model=network).save(f"{WORK}/made/ckpt")
command(f"""
    python -m mrcnn_tf.convert_weights --target=detectron2 --experiment={WORK}/made.yaml
      --input={WORK}/made --output={FILE}
""")

# %% [markdown]
# What is in it: names as Detectron2 has them, arrays as PyTorch lays them out. (Unpickle only files
# of people you trust: a pickle is a program. The converter never does: it reads pickles with a
# machine of its own that can call nothing.)

# %%
with open(FILE, "rb") as file:
    tensors = pickle.load(file)["model"]
for name in list(tensors)[:4]:
    print(f"{name:50}{list(tensors[name].shape)}")
print(f"... {len(tensors)} tensors, {sum(value.size for value in tensors.values()):,} numbers")
assert "backbone.bottom_up.stem.conv1.weight" in tensors
assert tensors["roi_heads.box_predictor.cls_score.weight"].shape[0] == 81

# %% [markdown]
# ## Convert
#
# What the file holds is worked out from names and shapes. Every tensor is accounted for, and one
# that cannot be explained ends the command. Beside the checkpoint lies an experiment,
# `params.yaml`, with every convention that these weights want.

# %%
command(f"""
    python -m mrcnn_tf.convert_weights --source=detectron2 --input={FILE} --output={WORK}/converted
""")
assert "\n0 tensors missing" in pathlib.Path(f"{WORK}/converted/report.txt").read_text()
fields = loading.load(f"{WORK}/converted/params.yaml").task.model
print("pixels  ", fields.pixels)
print("RoIAlign", fields.roi_align)

# %% [markdown]
# ## In Python

# %%
command(f"""
    python data_prep/create_shapes_coco.py --output_dir={WORK}/pictures
      --image_size=160-240 --num_train=1 --num_val=3
""")
pictures = sorted(str(path) for path in pathlib.Path(f"{WORK}/pictures/val").glob("*.jpg"))
converted = Detector.load(f"{WORK}/converted/params.yaml", f"{WORK}/converted", SIZE)
found = converted(pictures)
print([len(objects) for objects in found], "objects in the pictures")

best = found[0][:3]
plt.figure(figsize=(6, 6))
plt.imshow(
    drawing.draw_detections(
        reading.read(pictures[0]).pixels,
        np.array([detection.box for detection in best]).reshape(-1, 4),
        [detection.mask for detection in best],
        [detection.category for detection in best],
        [detection.score for detection in best],
    )
)
plt.axis("off")
plt.title("the three best of the first picture")
plt.show()

# %% [markdown]
# With random weights that means nothing. But it is what the network means that was written into the
# file: every weight arrived, bit by bit.

# %%
# Of the file made here.
assert len(converted.model.weights) == len(network.weights)
for ours, theirs in zip(converted.model.weights, network.weights, strict=True):
    assert np.array_equal(ours, theirs), ours.name
assert any(found)
print(f"{len(network.weights)} weights are the same")

# %% [markdown]
# ## Export
#
# `--serving_kit` writes what TensorFlow Serving is started with. The export runs once and is
# compared with the Python model before it gets its number.

# %%
command(f"""
    python -m mrcnn_tf.export --experiment={WORK}/converted/params.yaml
      --checkpoint_path={WORK}/converted --serving_kit={WORK}/kit --model_name=coco
      --params_override='{SIZE}'
""")
for path in sorted(pathlib.Path(f"{WORK}/kit").rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size:10,}  {path}")

# %% [markdown]
# ## The signature
#
# Whoever serves this model needs nothing of this project: here plain TensorFlow goes on. Input are
# files, of any sizes; a damaged one answers for itself.

# %%
versions = pathlib.Path(f"{WORK}/kit/models/coco").iterdir()
newest = max(versions, key=lambda path: int(path.name))
served = tf.saved_model.load(str(newest))
serve = served.signatures["serving_default"]
print("takes  ", serve.structured_input_signature[1])
for name, spec in sorted(serve.structured_outputs.items()):
    print(f"answers {name:24}{spec.dtype.name:8}{spec.shape}")

files = [pathlib.Path(name).read_bytes() for name in pictures[:2]]
answer = serve(input_tensor=tf.constant([*files, b"no picture"]))
assert answer["detection_status"].numpy().tolist() == [0, 0, 1]
assert answer["num_detections"].numpy()[2] == 0
for row, objects in enumerate(found[:2]):
    count = int(answer["num_detections"][row])
    assert count == len(objects)
    expected = [detection.score for detection in objects]
    np.testing.assert_allclose(answer["detection_scores"][row, :count], expected, atol=1e-4)

# %% [markdown]
# Boxes are fractions of the picture, `(y1, x1, y2, x2)`; with `image_size` they become pixels.

# %%
size = answer["image_size"][0].numpy()
box = answer["detection_boxes"][0, 0].numpy() * np.tile(size, 2)
print("the best object of the first picture:", box.round(1), "in", size)
np.testing.assert_allclose(box, found[0][0].box, atol=0.5)

# %% [markdown]
# ## A server
#
# With Docker it is one command in the kit's folder, `docker compose up -d`; gRPC is at port 8500
# then, REST at 8501. Few notebooks have Docker, so a small server of the project takes its place
# here: TensorFlow's C++ loader and session, behind doors that speak TensorFlow Serving's protocols.
# It says which ports it took.

# %%
server = subprocess.Popen(
    [
        *(sys.executable, "benchmarks/model_server.py"),
        *(f"--model_base_path={WORK}/kit/models/coco", "--model_name=coco"),
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
)
line = json.loads(server.stdout.readline())
print(line)
GRPC, REST = line["grpc"], line["rest"]  # of TensorFlow Serving: localhost:8500, localhost:8501

# %% [markdown]
# A request by hand, as any language can make it: `{"b64": ...}` stands for bytes, a row for a
# picture.

# %%
body = {"instances": [{"b64": base64.b64encode(content).decode()} for content in files]}
request = urllib.request.Request(
    f"http://{REST}/v1/models/coco:predict",
    json.dumps(body).encode(),
    {"Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as response:
    predictions = json.load(response)["predictions"]
print({name: np.shape(value) for name, value in predictions[0].items()})
assert [row["num_detections"] for row in predictions] == [len(objects) for objects in found[:2]]

# %% [markdown]
# With the client that comes along, which turns answers into objects with names and masks, and
# imports no TensorFlow:

# %%
client = Client(GRPC, model_name="coco")
over_the_wire = client(pictures)
client.close()
for ours, theirs in zip(over_the_wire, found, strict=True):
    assert [one.category for one in ours] == [one.category for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=0.5)
        np.testing.assert_allclose(one.score, other.score, atol=1e-4)
print("found over the wire as in Python:", [len(objects) for objects in over_the_wire])

# %% [markdown]
# And a whole folder, drawn and as numbers:

# %%
command(f"""
    python -m mrcnn_tf.predict --server={GRPC} --model_name=coco --input={WORK}/pictures/val
      --output_dir={WORK}/found
""")
server.stdin.close()  # the small server ends with its input
assert server.wait() == 0

# %% [markdown]
# [Serving](../serving.md) has the rest: batching, versions, Kubernetes, measurements;
# [weights](../weights.md) says which files can be converted.
