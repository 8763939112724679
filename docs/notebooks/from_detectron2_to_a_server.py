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
# TensorFlow Serving is started with; then pictures are sent to it as clients send them.
#
# It takes a few minutes on two cores, downloads nothing, and writes into the folder
# `from_detectron2` of the current one.
#
# **Where to run it.** In a checkout with its requirements installed (`pip install -r
# requirements.txt jupyterlab`), or in a hosted notebook: upload or clone the project, and run in a
# cell before this one
#
# ```text
# %cd PROJECT
# %pip install -q '.[train,convert]'
# ```
#
# then restart the kernel. The file `from_detectron2_to_a_server.py` beside this notebook is the
# same as a script.

# %%
import base64
import http.server
import json
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import urllib.request

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from mrcnn_tf.client import Client
from mrcnn_tf.console import layout
from mrcnn_tf.detector import Detector
from mrcnn_tf.experiment import loading
from mrcnn_tf.images import drawing, reading
from mrcnn_tf.modeling import build

WORK = pathlib.Path("from_detectron2")
WORK.mkdir(exist_ok=True)


def command(*words: str) -> str:
    """Run a command as a user would type it, and stop if it fails; return what it printed."""
    print("$ python", *words)
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    done.check_returncode()
    return done.stdout


# %% [markdown]
# ## The file
#
# Detectron2's model zoo has the real ones: Mask R-CNN R50-FPN of the long schedule is
# `detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl`,
# whose `detectron2://` stands for `https://dl.fbaipublicfiles.com/detectron2/`. With that file
# beside this notebook, set `FILE` to its name, leave out the next cell, and all that follows is
# the same but for the time that a network of 44 million parameters takes.
#
# Nothing is to be downloaded here, so we make a file of the same layout: a network of
# ResNet-18, an eighth as wide, for COCO's 80 classes, with random weights, written the way back
# (`convert_weights --target`). It finds nothing that makes sense; what is checked is that every
# number arrives.

# %%
FILE = str(WORK / "model_final.pkl")

# %%
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

MADE = WORK / "made"
loading.save(experiment, str(WORK / "made.yaml"))
tf.train.Checkpoint(model=network).save(str(MADE / "ckpt"))
command(
    *("-m", "mrcnn_tf.convert_weights", "--target=detectron2"),
    *(f"--experiment={WORK}/made.yaml", f"--input={MADE}", f"--output={FILE}"),
)

# %% [markdown]
# What is in it: names as Detectron2 has them, arrays as PyTorch lays them out. (Unpickle only files
# that you have made. The converter does not: it reads pickles with a machine of its own that can
# call nothing.)

# %%
with open(FILE, "rb") as file:
    tensors = pickle.load(file)["model"]
for name in list(tensors)[:4]:
    print(f"{name:45}{list(tensors[name].shape)}")
print(f"... {len(tensors)} tensors, {sum(value.size for value in tensors.values()):,} numbers")
assert "backbone.bottom_up.stem.conv1.weight" in tensors
assert tensors["roi_heads.box_predictor.cls_score.weight"].shape[0] == 81

# %% [markdown]
# ## Convert
#
# What the file holds is worked out from names and shapes. Every tensor is accounted for, and one
# that cannot be explained ends the command. Beside the checkpoint lies an experiment with every
# convention that these weights want.

# %%
CONVERTED = WORK / "converted"
said = command(
    *("-m", "mrcnn_tf.convert_weights", "--source=detectron2"),
    *(f"--input={FILE}", f"--output={CONVERTED}"),
)
assert "0 tensors missing" in said
model_fields = loading.load(f"{CONVERTED}/params.yaml").task.model
print("pixels  ", model_fields.pixels)
print("RoIAlign", model_fields.roi_align)

# %% [markdown]
# ## The same network?
#
# Every weight, bit by bit, and what both find in a picture. Small pictures, to be quick: 160 pixels
# in the place of 800. Leave `SMALL` empty for the zoo's file.

# %%
SMALL = "task.validation_data.short_edges=[160],task.validation_data.long_edge=240"
command(
    *layout.data_prep_command("create_shapes_coco"),
    *(f"--output_dir={WORK}/pictures", "--image_size=160-240", "--num_train=1", "--num_val=3"),
)
pictures = sorted(str(path) for path in (WORK / "pictures/val").glob("*.jpg"))

converted = Detector.load(f"{CONVERTED}/params.yaml", str(CONVERTED), SMALL)
if MADE.exists():
    for ours, theirs in zip(converted.model.weights, network.weights, strict=True):
        assert np.array_equal(ours, theirs), ours.name
    print(f"{len(network.weights)} weights are the same, bit by bit")
found = converted(pictures)
print([len(objects) for objects in found], "objects in the pictures")
assert any(found)

# %%
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
plt.title("what random weights take things for")
plt.show()

# %% [markdown]
# ## Export
#
# `--serving_kit` writes what TensorFlow Serving is started with. The export runs once and is
# compared with the Python model before it gets its number.

# %%
command(
    *("-m", "mrcnn_tf.export", f"--experiment={CONVERTED}/params.yaml"),
    *(f"--checkpoint_path={CONVERTED}", f"--serving_kit={WORK}/kit", "--model_name=coco"),
    f"--params_override={SMALL}",
)
for path in sorted((WORK / "kit").rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size:10,}  {path}")
version = max((WORK / "kit/models/coco").iterdir(), key=lambda path: int(path.name))

# %% [markdown]
# ## The signature
#
# Here plain TensorFlow goes on: whoever serves this model needs nothing of this project. Input are
# files, of any sizes; a damaged one answers for itself.

# %%
served = tf.saved_model.load(str(version))
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
# ## A request
#
# With Docker, the server is one command:
#
# ```text
# cd from_detectron2/kit && docker compose up -d
# ```
#
# gRPC is at port 8500 then, REST at 8501. There is no Docker in most notebooks, so a few lines
# take its place here: they do to a request what TensorFlow Serving does, in its words, with the
# SavedModel from above. `{"b64": ...}` stands for bytes, a row for a picture.


# %%
class Door(http.server.BaseHTTPRequestHandler):
    """`POST /v1/models/coco:predict` in the row format."""

    def do_POST(self) -> None:  # noqa: N802, the library's name
        """Answer one request."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        signature = served.signatures[request.get("signature_name", "serving_default")]
        rows = request["instances"]
        rows = [row.get("input_tensor", row) for row in rows]
        content = tf.constant([base64.b64decode(row["b64"]) for row in rows])
        outputs = {name: value.numpy() for name, value in signature(input_tensor=content).items()}
        listed = {name: self.as_json(value) for name, value in outputs.items()}
        if len(listed) == 1:
            predictions = next(iter(listed.values()))
        else:
            columns = zip(*listed.values(), strict=True)
            predictions = [dict(zip(listed, row, strict=True)) for row in columns]
        body = json.dumps({"predictions": predictions}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def as_json(self, value: np.ndarray) -> list:
        """Make numbers lists, and bytes text."""
        return [text.decode() for text in value] if value.dtype == object else value.tolist()

    def log_message(self, *_) -> None:
        """Say nothing."""


server = http.server.ThreadingHTTPServer(("localhost", 0), Door)
threading.Thread(target=server.serve_forever, daemon=True).start()
ADDRESS = f"localhost:{server.server_address[1]}"  # of a TensorFlow Serving: "localhost:8501"

# %% [markdown]
# By hand, as any language can:

# %%
body = {"instances": [{"b64": base64.b64encode(content).decode()} for content in files]}
request = urllib.request.Request(
    f"http://{ADDRESS}/v1/models/coco:predict",
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
client = Client(ADDRESS, model_name="coco", protocol="rest")
over_the_wire = client(pictures)
for ours, theirs in zip(over_the_wire, found, strict=True):
    assert [one.category for one in ours] == [one.category for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=0.5)
        np.testing.assert_allclose(one.score, other.score, atol=1e-4)
print("found over the wire as in Python:", [len(objects) for objects in over_the_wire])
client.close()
server.shutdown()

# %% [markdown]
# `python -m mrcnn_tf.predict --server=localhost:8500 --model_name=coco --input=photos
# --output_dir=found` does it for a folder. [Serving](../serving.md) has the rest: batching,
# versions, Kubernetes, measurements; [weights](../weights.md) says which files can be converted.
