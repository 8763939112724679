"""The page in a browser finds what detect.py finds, says what is wrong, and needs no network."""

import base64
import functools
import http.server
import io
import pathlib
import threading
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.edge import device, exporting
from tests import tiny_network
from tests.web import browser

pytestmark = pytest.mark.slow

PAGE = pathlib.Path(__file__).resolve().parents[2] / "web"
SIZE = (64, 96)
IDLE = "import('./app.js').then(({page}) => !page.busy)"
STATE = """import('./app.js').then(({page}) => ({
  error: page.error,
  status: document.getElementById("status").textContent,
  network: document.getElementById("network").textContent,
  rows: document.querySelectorAll("#found tbody tr").length,
  found: page.found && page.found.map((one) => ({
    ...one, mask: one.mask && {...one.mask, bits: one.mask.bits.join("")}})),
}))"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program = browser.find()
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with browser.Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> bytes:
    """A whole Mask R-CNN, tiny, as a .tflite file."""
    from mrcnn_tf import detector
    from mrcnn_tf.serving.preprocessing import Preprocessor

    means, deviations = (103.5, 116.3, 123.7), (57.0, 58.0, 59.0)
    tiny = detector.Detector(
        tiny_network.build_network(),
        LabelMap((3, 5, 2**24 + 1), ("Röhre", "b", "c")),
        Preprocessor(64, 96, "detectron2", "bgr", means, deviations),
        "pixel_centres",
    )
    path, compared = exporting.export(
        tiny.detect,
        str(tmp_path_factory.mktemp("model")),
        file_format="litert",
        input_hw=SIZE,
        quantize="none",
        label_map=tiny.label_map,
        preprocess=tiny.preprocess,
        mask_convention=tiny.mask_paste,
        pictures=[photo(90, 140), photo(60, 50)],
        score_threshold=0.25,
    )
    assert compared.num_detections
    return pathlib.Path(path).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A folder that is served, with the page in it."""
    if not (PAGE / "node_modules" / "@litertjs" / "core").is_dir():
        pytest.skip("the runtime is not there: npm ci --prefix web")
    served = tmp_path_factory.mktemp("served")
    for path in PAGE.iterdir():
        (served / path.name).symlink_to(path)
    return served


class Handler(http.server.SimpleHTTPRequestHandler):
    """What `python -m http.server` answers, without its log."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(folder):
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coloured rectangles on noise: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, [height, width, 3], np.uint8)
    for color in ((250, 30, 20), (20, 240, 60), (90, 90, 255)):
        y, x = rng.integers(0, height * 2 // 3), rng.integers(0, width * 2 // 3)
        pixels[y : y + height // 3, x : x + width // 4] = color
    return pixels


def in_picture(mask: np.ndarray, top: int, left: int, pixels: np.ndarray) -> np.ndarray:
    """A part of a mask where it belongs: bool [height, width] of the picture."""
    whole = np.zeros(pixels.shape[:2], bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return whole


def show(chromium, address, **asked) -> dict:
    chromium.open(f"{address}?{urllib.parse.urlencode(asked)}")
    chromium.wait_for(IDLE)
    return chromium.evaluate(STATE)


def in_page(chromium, address, script: str):
    """Evaluate a script in which `picture` is web/picture.js."""
    chromium.open(address)
    chromium.wait_for(IDLE)
    return chromium.evaluate(f"import('./picture.js').then((picture) => {{ {script} }})")


@pytest.mark.parametrize(
    ("height", "width", "name", "orientation"),
    [(90, 140, "wide.png", 1), (60, 40, "high.png", 1), (30, 41, "small.png", 6)],
)
def test_it_finds_what_the_helper_finds(
    chromium, folder, address, model, height, width, name, orientation
):
    (folder / "a.tflite").write_bytes(model)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(photo(height, width)).save(folder / name, exif=exif)
    answer = show(chromium, address, model="a.tflite", photo=name)
    assert answer["error"] is None
    assert "finds Röhre, b, c" in answer["network"]
    pixels = device.read(str(folder / name))
    expected = device.find(device.load(str(folder / "a.tflite")), pixels)
    assert expected
    assert len(answer["found"]) == len(expected)
    differ = total = 0
    for one, other in zip(answer["found"], expected, strict=True):
        assert (one["category"], one["categoryId"]) == (other.category, other.category_id)
        assert one["score"] == pytest.approx(other.score, abs=1e-4)
        np.testing.assert_allclose(one["box"], other.box, atol=0.02)
        part = one["mask"]
        bits = np.frombuffer(part["bits"].encode(), np.uint8) == ord("1")
        bits = bits.reshape(part["height"], part["width"])
        drawn = in_picture(bits, part["top"], part["left"], pixels)
        wanted = in_picture(other.mask, other.top, other.left, pixels)
        differ += (drawn ^ wanted).sum()
        total += wanted.sum()
    assert total > 100
    assert differ <= 0.002 * total
    at_least = sum(one.score >= 0.25 for one in expected)
    assert answer["rows"] == at_least
    assert f"{at_least} of {len(expected)} objects shown; network " in answer["status"]


@pytest.mark.parametrize("resize", ["detectron2", "torchvision"])
@pytest.mark.parametrize(
    ("height", "width"), [(64, 96), (300, 123), (40, 150), (9, 7), (1, 500), (65, 96)]
)
def test_photos_are_resized_to_the_same_pixels(chromium, address, resize, height, width):
    pixels = np.random.default_rng(height).integers(0, 256, [height, width, 3], np.uint8)
    rgba = np.dstack([pixels, np.full([height, width], 255, np.uint8)])
    answer = in_page(
        chromium,
        address,
        f"const rgba = Uint8ClampedArray.from({rgba.ravel().tolist()});"
        f"const {{image, sizeHW}} = picture.fit({{height: {height}, width: {width}, rgba}},"
        f" [{SIZE[0]}, {SIZE[1]}], '{resize}');"
        "return [[...image], [...sizeHW]];",
    )
    image, size_hw = device.fit(pixels, SIZE, resize)
    assert answer[1] == size_hw.tolist()
    # Pillow 13 resizes some tall pictures in another order, which rounds otherwise.
    closest = 1 if resize == "detectron2" and height > width else 0
    np.testing.assert_allclose(answer[0], image.ravel(), rtol=0, atol=closest)


@pytest.mark.parametrize("convention", ["pixel_centres", "torchvision"])
def test_masks_are_pasted_to_the_same_pixels(chromium, address, convention):
    rng = np.random.default_rng(1)
    corners = np.sort(rng.uniform(-20, 100, [12, 2, 2]), axis=1)
    boxes = [*corners.reshape(12, 4), [3, 5, 3, 9], [10, 10, 10.5, 10.5], [200, 200, 300, 300]]
    probs = rng.random([len(boxes), 28, 28], np.float32)
    answer = in_page(
        chromium,
        address,
        f"const probs = {probs.reshape(len(boxes), -1).tolist()};"
        f"const boxes = {np.asarray(boxes).tolist()};"
        "return boxes.map((box, i) => picture.paste(Float32Array.from(probs[i]), 28, box,"
        f" {{height: 70, width: 90}}, '{convention}'))"
        ".map(({bits, ...rest}) => ({...rest, bits: [...bits]}));",
    )
    differ = total = 0
    for one, box, mask in zip(answer, boxes, probs, strict=True):
        expected, top, left = device.paste(mask, np.asarray(box), (70, 90), convention)
        assert (one["height"], one["width"]) == expected.shape
        assert (one["top"], one["left"]) == (top, left)
        differ += (np.array(one["bits"]) != (expected >= 0.5).ravel()).sum()
        total += expected.size
    assert total > 5000
    # NumPy's matrix product may round otherwise, which shows where a probability is 0.5.
    assert differ <= 1


def test_everything_comes_from_the_folder(chromium, folder, address, model):
    (folder / "model.tflite").write_bytes(model)
    Image.fromarray(photo(80, 120)).save(folder / "photo.png")
    chromium.events.clear()
    answer = show(chromium, address, photo="photo.png")
    (folder / "model.tflite").unlink()
    assert "model.tflite: " in answer["network"]  # taken because it is there
    assert answer["found"]
    asked = [url for url in chromium.requested() if not url.startswith(("data:", "blob:"))]
    assert any(url.endswith(".wasm") for url in asked)
    assert [url for url in asked if not url.startswith(address)] == []


def without_description(model: bytes) -> bytes:
    return model[: model.rindex(b"PK\x03\x04")]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("a.txt", lambda _: b"hello", "a.txt is not a LiteRT file (.tflite)."),
        ("a.onnx", lambda _: b"hello", "a.onnx is an ONNX file; this page runs those of"),
        ("b.tflite", lambda model: model[:5000], "b.tflite is damaged, or was not written by"),
        ("b.tflite", without_description, "b.tflite is damaged, or was not written by"),
        (
            "b.tflite",
            lambda model: model[:64] + bytes(len(model) // 2) + model[64 + len(model) // 2 :],
            "b.tflite is damaged",
        ),
    ],
    ids=["text", "onnx", "cut off", "no description", "overwritten"],
)
def test_a_wrong_network_is_refused_and_the_one_before_stays(
    chromium, folder, address, model, tmp_path, name, change, message
):
    (folder / "a.tflite").write_bytes(model)
    Image.fromarray(photo(80, 120)).save(folder / "photo.png")
    before = show(chromium, address, model="a.tflite", photo="photo.png")
    (tmp_path / name).write_bytes(change(model))
    chromium.choose("#model", tmp_path / name)
    chromium.wait_for(IDLE)
    answer = chromium.evaluate(STATE)
    assert answer["error"].startswith(message)
    assert answer["status"] == answer["error"]
    assert answer["network"] == before["network"]
    assert answer["rows"] == before["rows"]
    chromium.choose("#photo", folder / "photo.png")
    chromium.wait_for(IDLE)
    assert chromium.evaluate(STATE)["found"] == before["found"]


def test_a_file_that_is_no_photo_is_named(chromium, folder, address, model, tmp_path):
    (folder / "a.tflite").write_bytes(model)
    assert "choose a photo" in show(chromium, address, model="a.tflite")["status"]
    # What the file suggests.
    shown = chromium.evaluate('document.getElementById("shown-threshold").textContent')
    assert shown == "0.25"
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    chromium.choose("#photo", tmp_path / "broken.jpg")
    chromium.wait_for(IDLE)
    answer = chromium.evaluate(STATE)
    assert answer["error"] == "broken.jpg is not a picture that this browser can read."


def test_what_is_not_there_is_said(chromium, address):
    assert "choose a network" in show(chromium, address)["status"]
    for asked in ({"model": "no.tflite"}, {"photo": "no.png"}):
        (name,) = asked.values()
        assert show(chromium, address, **asked)["error"] == f"{name} is not beside this page."


def test_files_can_be_dropped(chromium, folder, address, model):
    (folder / "a.tflite").write_bytes(model)
    Image.fromarray(photo(80, 120)).save(folder / "photo.png")
    chromium.open(address)
    chromium.wait_for(IDLE)
    chromium.evaluate(
        """Promise.all(["photo.png", "a.tflite"].map(async (name) =>
          new File([await (await fetch(name)).blob()], name))).then((files) => {
            const dataTransfer = new DataTransfer();
            files.forEach((file) => dataTransfer.items.add(file));
            document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true}));
          })"""
    )
    chromium.wait_for(IDLE)
    answer = chromium.evaluate(STATE)
    assert answer["error"] is None
    assert answer["found"]


def slide(chromium, threshold: float) -> None:
    chromium.evaluate(
        f"""(() => {{ const slider = document.getElementById("threshold");
          slider.value = {threshold};
          slider.dispatchEvent(new Event("input")); }})()"""
    )


def drawing(chromium) -> np.ndarray:
    url = chromium.evaluate('document.getElementById("drawing").toDataURL("image/png")')
    with Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))) as image:
        return np.asarray(image.convert("RGB"))


def test_the_slider_decides_what_is_drawn(chromium, folder, address, model):
    (folder / "a.tflite").write_bytes(model)
    pixels = photo(400, 800)  # of the drawing's own size
    Image.fromarray(pixels).save(folder / "photo.png")
    found = show(chromium, address, model="a.tflite", photo="photo.png")["found"]
    slide(chromium, 1)
    assert chromium.evaluate(STATE)["rows"] == 0
    np.testing.assert_array_equal(drawing(chromium), pixels)
    threshold = 0.01 * int(100 * found[1]["score"])
    slide(chromium, threshold)
    shown = [one for one in found if one["score"] >= threshold]
    assert chromium.evaluate(STATE)["rows"] == len(shown) >= 2
    expected = pixels.astype(float)
    is_plain = np.ones(pixels.shape[:2], bool)  # neither frame nor name stands there
    for number, one in reversed(list(enumerate(shown))):
        part = one["mask"]
        bits = np.frombuffer(part["bits"].encode(), np.uint8) == ord("1")
        bits = bits.reshape(part["height"], part["width"])
        mask = in_picture(bits, part["top"], part["left"], pixels)
        expected[mask] = 0.5 * expected[mask] + 0.5 * np.array(device._COLORS[number])
        y1, x1, y2, x2 = (max(round(place), 0) for place in one["box"])
        for line in (y1, y2):
            is_plain[max(line - 24, 0) : line + 24] = False
        for line in (x1, x2):
            is_plain[:, max(line - 3, 0) : line + 3] = False
    is_masked = (expected != pixels).any(-1) & is_plain
    assert is_masked.sum() > 500
    assert (~is_masked & is_plain).sum() > 500
    difference = np.abs(drawing(chromium) - expected)
    assert difference[is_masked].max() <= 3  # rounded once for each mask
    assert difference[~is_masked & is_plain].max() == 0


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_window(chromium, folder, address, model, width):
    (folder / "a.tflite").write_bytes(model)
    Image.fromarray(photo(80, 200)).save(folder / "photo.png")
    chromium.open(f"{address}?model=a.tflite&photo=photo.png", width, 800)
    chromium.wait_for(IDLE)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    drawn = chromium.evaluate('document.getElementById("drawing").clientWidth')
    assert drawn > 0.6 * min(width, 900)


def test_opened_as_a_file_it_says_how_it_wants_to_be_opened(chromium):
    chromium.open((PAGE / "index.html").as_uri())
    shown = chromium.evaluate('document.getElementById("status").innerText')
    assert "python -m http.server" in shown
