"""SAHI's model, with stand-ins for SAHI's own classes, and with SAHI where it is installed."""

import importlib
import sys
import types

import numpy as np
import pytest

from mrcnn_tf.ops import coco_rle
from mrcnn_tf.results.detection import Detection, ImageDetections


class DetectionModel:
    """What SAHI 0.12's base class does with the methods of a model."""

    def __init__(self, model_path=None, model=None, device=None, confidence_threshold=0.3):
        self.model_path, self.confidence_threshold = model_path, confidence_threshold
        self.category_remapping = None
        self.set_device(device)
        if model:
            self.set_model(model)
        else:
            self.load_model()

    def convert_original_predictions(self, shift_amount=[[0, 0]], full_shape=None):  # noqa: B006
        self._create_object_prediction_list_from_original_predictions(
            shift_amount_list=shift_amount, full_shape_list=full_shape
        )

    @property
    def object_prediction_list_per_image(self):
        return self._object_prediction_list_per_image


@pytest.fixture(params=["stand-in", "sahi"])
def sahi_model(request, monkeypatch):
    if request.param == "sahi":
        pytest.importorskip("sahi.models.base", reason="sahi is not installed")
        pytest.importorskip("shapely", reason="shapely, which sahi takes, is not installed")
    else:
        prediction = types.SimpleNamespace(ObjectPrediction=types.SimpleNamespace)
        base = types.SimpleNamespace(DetectionModel=DetectionModel)
        for name, module in (
            ("sahi", types.ModuleType("sahi")), ("sahi.models", types.ModuleType("sahi.models")),
            ("sahi.models.base", base), ("sahi.prediction", prediction),
        ):  # fmt: skip
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "mrcnn_tf.sahi_model", raising=False)
    yield importlib.import_module("mrcnn_tf.sahi_model")
    sys.modules.pop("mrcnn_tf.sahi_model", None)


class Finder:
    """Finds what is bright; red, green and blue are scores, in hundredths, of three masks."""

    category_names = {3: "c", 8: "d"}

    def __call__(self, images):
        return [self._look(image) for image in images]

    def _look(self, image):
        found = ImageDetections()
        for channel, category_id in enumerate((3, 8, 3)):
            mask = image[..., channel] > 0
            if not mask.any():
                continue
            y, x = np.nonzero(mask)
            box = np.array([y.min(), x.min(), y.max() + 1, x.max() + 1], np.float64)
            runs = coco_rle.crop_to_rle(mask, 0, 0, *mask.shape)
            score = image[..., channel].max() / 100
            name = self.category_names[category_id]
            found.append(Detection(box, score, category_id, name, runs))
        return found


def image():
    """A rectangle of category 3, a ring of category 8, and one that scores too little."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[2:6, 4:10, 0] = 90
    pixels[10:18, 5:15, 1] = 80
    pixels[12:16, 8:12, 1] = 0
    pixels[0, 0, 2] = 40
    return pixels


def as_rows(predictions):
    rows = []
    for one in predictions:
        if hasattr(one, "get_shifted_object_prediction"):  # SAHI's own
            one = one.get_shifted_object_prediction()
            mask = one.mask.segmentation
            rows.append((one.category.id, one.category.name, one.score.value, mask))
        else:
            (x, y) = one.shift_amount
            mask = [[v + (x, y)[k % 2] for k, v in enumerate(part)] for part in one.segmentation]
            rows.append((one.category_id, one.category_name, one.score, mask))
    return rows


def test_categories(sahi_model):
    model = sahi_model.MaskRCNN(model=Finder(), confidence_threshold=0.5)
    assert model.num_categories == 2
    assert model.category_names == ["c", "d"]
    assert model.category_mapping == {"3": "c", "8": "d"}


def test_one_slice(sahi_model):
    """Moved to where the slice lies; the ring's hole is filled."""
    model = sahi_model.MaskRCNN(model=Finder(), confidence_threshold=0.5)
    model.perform_inference(image())
    model.convert_original_predictions(shift_amount=[[100, 200]], full_shape=[[500, 500]])
    (found,) = model.object_prediction_list_per_image
    assert as_rows(found) == [
        (3, "c", 0.9, [[110, 202, 110, 206, 104, 206, 104, 202]]),
        (8, "d", 0.8, [[115, 210, 115, 218, 105, 218, 105, 210]]),
    ]
    model.convert_original_predictions(shift_amount=[100, 200], full_shape=[500, 500])
    assert as_rows(model.object_prediction_list_per_image[0]) == as_rows(found)


def test_whole_images_and_several_slices(sahi_model):
    model = sahi_model.MaskRCNN(model=Finder(), confidence_threshold=0.95)
    bright = np.full((4, 6, 3), (99, 0, 0), np.uint8)
    model.perform_batch_inference([bright, image(), bright[:2]])
    model.convert_original_predictions()
    counts = [len(found) for found in model.object_prediction_list_per_image]
    assert counts == [1, 0, 1]
    shifts = [[0, 0], [6, 0], [0, 4]]
    model.convert_original_predictions(shift_amount=shifts, full_shape=[[40, 40]] * 3)
    found = model.object_prediction_list_per_image
    assert as_rows(found[2])[0][3] == [[6, 4, 6, 6, 0, 6, 0, 4]]


def test_it_loads_an_export(sahi_model, monkeypatch):
    loaded = []
    monkeypatch.setattr(sahi_model, "Predictor", lambda path: loaded.append(path) or Finder())
    model = sahi_model.MaskRCNN(model_path="exported/photos")
    assert loaded == ["exported/photos"]
    model.unload_model()
    assert model.model is None


def test_without_sahi(monkeypatch):
    monkeypatch.setitem(sys.modules, "sahi", None)
    monkeypatch.delitem(sys.modules, "mrcnn_tf.sahi_model", raising=False)
    for name in [name for name in sys.modules if name.startswith("sahi.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match="mrcnn_tf.sahi_model takes SAHI: pip install sahi"):
        importlib.import_module("mrcnn_tf.sahi_model")
