"""Recordings of what other projects compute, and our model replaying them.

A recording is a pair `NAME.npz` + `NAME_shapes.json`: the outputs of torchvision's or Detectron2's
Mask R-CNN, and names and shapes of the weights it had. The weights' values follow from these by a
recipe: `recipe.py` beside the recordings or, if there is none, the one here.

A recording of a backbone alone, by timm, is one file `NAME.npz`, in the same folder or in its
`backbones`; its weights are those of a package (`test_backbones.py`). A file without `meta` is the
recording of one operation or head, which has a test of its own.

`--golden_dir` names the folder. The default is the `golden` folder of the shared data; where that
is absent, a thinned-out recording that is kept here (`data/`, made by `make_small.py`).
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import fields, presets
from mrcnn_tf.modeling import build
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.weights import conventions, detectron2, recognize, torchvision

_HERE = pathlib.Path(__file__).parent
_SHARED = pathlib.Path(os.environ.get("MRCNN_SHARED", _HERE.resolve().parents[2] / "shared"))
_FORMATS = {"torchvision": torchvision, "detectron2": detectron2}


def pytest_addoption(parser):
    parser.addoption("--golden_dir", help="folder of NAME.npz + NAME_shapes.json recordings")


def pytest_configure(config):
    """Whoever names a folder wants it replayed, though that takes a minute per recording."""
    if config.getoption("--golden_dir", default=None) and "not slow" in config.option.markexpr:
        config.option.markexpr = "not gpu"


def _folder(config) -> pathlib.Path:
    # The option is unknown to runs that were started elsewhere than here.
    given = config.getoption("--golden_dir", default=None)
    if given:
        return pathlib.Path(given)
    shared = _SHARED / "golden"
    return shared if shared.is_dir() else _HERE / "data"


def pytest_generate_tests(metafunc):
    """Run every test here once per recording."""
    fixture = next((n for n in metafunc.fixturenames if n in ("recording", "backbone")), None)
    if fixture is None:
        return
    folder = _folder(metafunc.config)
    files = sorted([*folder.glob("*.npz"), *folder.glob("backbones/*.npz")])
    files = [file for file in files if _kind(file) == fixture]
    cases = [pytest.param(file, id=file.stem) for file in files]
    if not cases:
        reason = f"no recordings in {folder}"
        cases = [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")]
    metafunc.parametrize(fixture, cases, indirect=True, scope="session")


def _kind(file: pathlib.Path) -> str | None:
    """Return the fixture that is made of a file; None for one that is not replayed as a whole."""
    with np.load(file) as arrays:
        if "meta" not in arrays:
            return None
        source = json.loads(str(arrays["meta"]))["source"]
    return "backbone" if source == "timm" else "recording"


def _load_recipe(file: pathlib.Path):
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location("golden_recipe", file)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


class Recording:
    """One recording, its boxes and classes turned into our orders.

    Attributes:
      meta: source, architecture, depth, classes, height, width, seed, objects.
      arrays: everything else, as recorded.
    """

    def __init__(self, file: pathlib.Path):
        self.arrays = dict(np.load(file))
        self.meta = json.loads(str(self.arrays.pop("meta")))
        self.shapes = json.loads(file.with_name(f"{file.stem}_shapes.json").read_text())
        recipe = file.with_name("recipe.py")
        self.recipe = _load_recipe(recipe if recipe.exists() else _HERE / "recipe.py")
        if "image_png" in self.arrays:
            self.arrays["image"] = tf.io.decode_png(self.arrays["image_png"].tobytes()).numpy()
        self.source = self.meta["source"]
        # Detectron2 does not count background; its class 0 is an object's.
        self.num_classes = self.meta["classes"] + (self.source == "detectron2")
        self.class_offset = int(self.source == "detectron2")

    def state_dict(self) -> dict[str, np.ndarray]:
        """Make the weights again."""
        return self.recipe.state_dict(self.shapes, self.meta["seed"])

    def boxes(self, key: str) -> np.ndarray:
        """Boxes [n, (y1, x1, y2, x2)]."""
        return self.arrays[key][:, [1, 0, 3, 2]]

    def masks(self, key: str) -> np.ndarray:
        """Masks bool [n, H, W]."""
        return np.unpackbits(self.arrays[key], axis=-1, count=self.meta["width"]).astype(bool)

    @property
    def mask_probs(self) -> np.ndarray:
        """Mask probabilities of the first detections: [n, M, M]."""
        if "mask_probs_of_class" in self.arrays:
            return self.arrays["mask_probs_of_class"]
        return 1 / (1 + np.exp(-self.arrays["mask_logits_of_class"]))

    def picked(self, key: str) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        """Indices into the flattened NCHW tensor, its values there, its shape."""
        index, value, shape = (self.arrays[f"{key}/{part}"] for part in ("index", "value", "shape"))
        return index, value, tuple(shape)


@dataclasses.dataclass
class Training:
    """One training step's numbers, nothing sampled away."""

    losses: dict[str, float]
    gradient_norms: dict[str, float]  # by the recording's names
    rois: np.ndarray  # [R, 4]
    roi_classes: np.ndarray  # [R]


class Replay:
    """Our model with a recording's weights; each group of numbers is computed once, when needed."""

    def __init__(self, recording: Recording):
        self.recording = recording
        state_dict = recording.state_dict()
        # What `convert_weights` concludes from names and shapes.
        needed, _ = conventions.model_fields(recognize.recognize(state_dict))
        self.config = fields.Model()
        self.config.override(presets.PRESETS[needed["preset"]])
        self.config.override(needed)
        self.model = build.build_model(self.config, recording.num_classes)
        weights = _FORMATS[recording.source]
        self.report = weights.load(self.model, state_dict)
        self.variables = {n: e.variable for e in weights.entries(self.model) for n in e.names}

    @functools.cached_property
    def images(self) -> tf.Tensor:
        """float32 [1, H, W, 3], normalised and padded to multiples of 32."""
        pixels, image = self.config.pixels, self.recording.arrays["image"].astype(np.float32)
        image = image[..., ::-1] if pixels.order == "bgr" else image
        image = (image - np.float32(pixels.mean)) / np.float32(pixels.std)
        return tf.pad(image, [[0, -image.shape[0] % 32], [0, -image.shape[1] % 32], [0, 0]])[None]

    @functools.cached_property
    def image_size_hw(self) -> tf.Tensor:
        return tf.constant([self.recording.arrays["image"].shape[:2]], tf.float32)

    @functools.cached_property
    def backbone_features(self) -> dict[int, tf.Tensor]:
        return tf.function(self.model.backbone)(self.images)

    @functools.cached_property
    def features(self) -> dict[int, tf.Tensor]:
        if self.model.pyramid is None:  # C4
            return {4: self.backbone_features[4]}
        return tf.function(self.model.pyramid)(self.backbone_features)

    @functools.cached_property
    def rpn(self) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Logits and deltas as NCHW, deltas in the order (dx, dy, dw, dh)."""
        logits, deltas = tf.function(self.model.rpn.head)(self.features)
        for level, feature in self.features.items():
            _, height, width, _ = feature.shape
            rows = np.asarray(logits[level]).reshape(1, height, width, -1)
            logits[level] = rows.transpose(0, 3, 1, 2)
            rows = np.asarray(deltas[level])[..., [1, 0, 3, 2]].reshape(1, height, width, -1)
            deltas[level] = rows.transpose(0, 3, 1, 2)
        return logits, deltas

    @functools.cached_property
    def anchors(self) -> np.ndarray:
        """[A, (x1, y1, x2, y2)], the finest level first."""
        anchors = self.model.rpn.anchors(self.features)
        return np.concatenate([anchors[level] for level in sorted(anchors)])[:, [1, 0, 3, 2]]

    @functools.cached_property
    def proposals(self) -> Proposals:
        return tf.function(self.model.rpn)(self.features, self.image_size_hw)

    @functools.cached_property
    def box_roi_features(self) -> np.ndarray:
        """What the box branch looks at, of the recorded proposals, NCHW; of C4 behind stage 5."""
        heads = self.model.roi_heads
        if self.config.features == "c4":
            pool = functools.partial(heads.roi_features, training=False)
        else:
            pool = functools.partial(heads.pool, size=self.config.box_head.pool_size)
        pooled = tf.function(pool)(self.features, self.recording.boxes("proposals")[None])
        return pooled[0].numpy().transpose(0, 3, 1, 2)

    @functools.cached_property
    def box_outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Class logits and deltas of the first recorded proposals, in the recording's orders.

        Without background's deltas.
        """
        count = len(self.recording.arrays["class_logits_first"])
        rois = self.recording.boxes("proposals")[None, :count]
        logits, deltas = tf.function(self.model.roi_heads.boxes)(self.features, rois)
        logits = np.roll(logits[0], -self.recording.class_offset, axis=-1)
        return logits, deltas[0].numpy()[..., [1, 0, 3, 2]]

    @functools.cached_property
    def detections(self):
        detections = tf.function(self.model.call)(self.images, self.image_size_hw)
        valid = detections.valid[0]
        return detections._replace(
            **{k: v[0][valid].numpy() for k, v in detections._asdict().items() if v is not None}
        )

    @functools.cached_property
    def mask_logits(self) -> np.ndarray:
        """Of the first recorded detections' classes, on their boxes: [n, M, M]."""
        count = len(self.recording.mask_probs)
        boxes = self.recording.boxes("detection_boxes")[None, :count]
        classes = self.recording.arrays["detection_labels"][:count] + self.recording.class_offset
        classes = tf.constant(classes[None], tf.int32)
        return tf.function(self.model.roi_heads.masks)(self.features, boxes, classes)[0].numpy()

    @functools.cached_property
    def batch(self) -> dict[str, tf.Tensor]:
        """The recorded objects as `data/schema.py` wants them; every mask is its own full crop."""
        arrays = self.recording.arrays
        masks = self.recording.masks("gt_masks_packed")  # [G, H, W]
        count, height, width = masks.shape
        batch = {
            schema.GT_BOXES: self.recording.boxes("gt_boxes"),
            schema.GT_CLASSES: arrays["gt_labels"].astype(np.int32),
            schema.GT_VALID: np.ones(count, bool),
            schema.GT_IS_CROWD: np.zeros(count, bool),
            schema.GT_MASK_BITS: np.packbits(masks),
            schema.GT_MASK_FRAMES: np.tile(np.float32([0, 0, height, width]), [count, 1]),
            schema.GT_MASK_SIZES: np.tile(np.int32([height, width]), [count, 1]),
            schema.GT_MASK_OFFSETS: np.arange(count, dtype=np.int32) * height * width,
            schema.GT_MASKS_VALID: np.ones(count, bool),
        }
        batch = {key: tf.constant(value[None]) for key, value in batch.items()}
        batch[schema.IMAGE] = self.images
        batch[schema.IMAGE_SIZE_HW] = self.image_size_hw
        batch[schema.IMAGE_KEY] = tf.zeros([1], tf.int32)
        return batch

    @functools.cached_property
    def training(self) -> Training:
        """Losses and gradients with every anchor and every proposal sampled."""
        model = self.model
        variables = model.trainable_variables

        @tf.function
        def step(batch):
            with tf.GradientTape() as tape:
                outputs = model.train_forward(batch, seed=0, step=tf.constant(0, tf.int64))
                losses = {name: term.mean() for name, term in model.losses_of(outputs).items()}
                total = tf.add_n(list(losses.values()))
            norms = [tf.norm(g) for g in tape.gradient(total, variables)]
            return losses, norms, outputs.roi_targets

        with self._nothing_sampled_away():
            losses, norms, targets = step(self.batch)
        norm_of = {id(v): float(norm) for v, norm in zip(variables, norms, strict=True)}
        valid = targets.valid[0]
        return Training(
            {name: float(value) for name, value in losses.items()},
            {n: norm_of[id(v)] for n, v in self.variables.items() if id(v) in norm_of},
            targets.rois[0][valid].numpy(),
            targets.classes[0][valid].numpy(),
        )

    @contextlib.contextmanager
    def _nothing_sampled_away(self) -> Iterator[None]:
        """Let the network take every anchor and every proposal."""
        recording, rpn, box_head = self.recording, self.model.rpn, self.model.roi_heads.box_head
        labels = recording.arrays["train_roi_labels"] + recording.class_offset
        num_positives = np.count_nonzero(labels % recording.num_classes)
        num_rois = rpn.post_nms_top_k_train + recording.meta["objects"]
        with pytest.MonkeyPatch.context() as patch:
            # Detectron2 was recorded with 131072, and divides by this number.
            anchors = max(131072, int(recording.arrays["anchors_count"]))
            patch.setattr(rpn, "anchors_per_image", anchors)
            patch.setattr(rpn, "positive_fraction", 1.0)
            patch.setattr(box_head, "rois_per_image", num_rois)
            # Room for all positives and some more. The mask branch runs on so many: 1.0 would
            # make it 100 times as large as it need be.
            part = min(1.0, (2 * num_positives + 16) / num_rois)
            patch.setattr(box_head, "positive_fraction", part)
            yield


class BackboneRecording:
    """What timm computes for one image.

    Attributes:
      meta: source, model, height, width, mean, std.
      arrays: `C1` .. `C5` as `Recording.picked` has them, and `probabilities` [1000].
      image: uint8 [H, W, 3] RGB.
    """

    def __init__(self, file: pathlib.Path):
        self.arrays = dict(np.load(file))
        self.meta = json.loads(str(self.arrays.pop("meta")))
        if "image" in self.arrays:
            self.image = self.arrays.pop("image")
        else:  # a small one has it from a recording beside it
            other = np.load(file.with_name(str(self.arrays.pop("image_of"))))
            self.image = tf.io.decode_png(other["image_png"].tobytes()).numpy()

    picked = Recording.picked


@pytest.fixture(scope="session")
def backbone(request) -> BackboneRecording:
    """The recording of a backbone."""
    return BackboneRecording(request.param)


@pytest.fixture(scope="session")
def recording(request) -> Recording:
    """The recording."""
    return Recording(request.param)


@pytest.fixture(scope="session")
def replay(recording) -> Replay:
    """Our model with the recording's weights."""
    return Replay(recording)


def _box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes a [n, 4] and b [m, 4]: [n, m]."""
    a, b = a[:, None].astype(np.float64), b[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.clip(sides, 0, None).prod(-1)
    area_a, area_b = ((x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b))
    return intersection / np.maximum(area_a + area_b - intersection, 1e-9)


@pytest.fixture(scope="session")
def own_recipe():
    """The module `recipe.py` of this folder."""
    return _load_recipe(_HERE / "recipe.py")


@pytest.fixture(scope="session")
def box_iou():
    """`box_iou(a, b)` -> [n, m], in NumPy."""
    return _box_iou
