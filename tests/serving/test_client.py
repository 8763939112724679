"""`predict --server` and the Python client against a server over TensorFlow's C++ loader.

TensorFlow Serving's own program is not to be had from pip; the server of `benchmarks/` loads and
runs SavedModels as that does, and refuses with its codes and texts.
"""

import contextlib
import json
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.client import Client
from mrcnn_tf.remote.failures import ServerError
from mrcnn_tf.remote.served_model import ServedModel
from mrcnn_tf.remote.server import Server
from mrcnn_tf.serving import answers, full_masks, image_run, signatures
from tests.marks import one_quick
from tests.serving import served
from tests.serving.conftest import GREEN, RED

PROTOCOLS = ["grpc", "rest"]
UNAVAILABLE, INVALID_ARGUMENT = 14, 3


@pytest.fixture(scope="module")
def servers(export, tmp_path_factory):
    """Return f(input_type) -> its server, started once each."""
    started = {}

    def of(input_type="image_bytes"):
        if input_type not in started:
            folder = tmp_path_factory.mktemp("served")
            started[input_type] = served.start(export(input_type), folder)
        return started[input_type]

    yield of
    for server in started.values():
        server.stop()


@pytest.fixture(scope="module")
def masked(tmp_path_factory, detect, labels, preprocess):
    """Return f(kind of added masks) -> the SavedModel and its server, started once each."""
    started = {}

    def of(kind):
        if kind not in started:
            folder = tmp_path_factory.mktemp("masked")
            signatures.export_saved_model(
                detect,
                str(folder / "m"),
                input_type="image_bytes",
                label_map=labels,
                preprocess=preprocess,
                mask_convention="pixel_centres",
                added_masks=kind,
            )
            loaded = tf.saved_model.load(str(folder / "m"))
            started[kind] = loaded, served.start(folder / "m", folder)
        return started[kind]

    yield of
    for _, server in started.values():
        server.stop()


@pytest.fixture
def server(servers):
    """The server of the usual input type; what a test does to it is undone."""
    yield servers()
    servers().before = lambda: None


def where(server, protocol="grpc", model_name=served.MODEL_NAME, deadline_s=30.0):
    address = server.grpc_address if protocol == "grpc" else server.rest_address
    return Server(address, protocol, model_name, deadline_s)


def client_of(server, protocol="grpc", **others):
    given = where(server, protocol, **others)
    return Client(given.address, given.model_name, given.protocol, given.deadline_s)


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, draw_rectangles):
    """Pictures of many kinds, one of them turned, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    scene = Image.fromarray(draw_rectangles(100, 160, {RED: (20, 40, 60, 100)}))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    scene.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    scene.save(folder / "plain.png")
    both = {RED: (100, 10, 160, 60), GREEN: (10, 80, 90, 110)}
    Image.fromarray(draw_rectangles(200, 120, both)).save(folder / "both.webp", lossless=True)
    Image.fromarray(draw_rectangles(64, 64, {})).save(folder / "nothing.jpg")
    return folder


@pytest.fixture(scope="module")
def expected(export, folder, tmp_path_factory):
    """detections.json of the SavedModel itself."""
    out = tmp_path_factory.mktemp("expected")
    assert image_run.run(str(export("image_bytes")), str(folder), str(out), 0.5, 1) == 0
    rows = (out / "detections.json").read_bytes()
    assert len(json.loads(rows)) == 4
    return rows


@pytest.mark.parametrize(
    "input_type", one_quick(["image_bytes", "image_tensor", "tf_example"], quick=2)
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_finds_what_the_saved_model_finds(
    servers, folder, expected, tmp_path, protocol, input_type
):
    model = where(servers(input_type), protocol)
    out = tmp_path / "out"
    assert image_run.run(model, str(folder), str(out), 0.5, 2) == 0
    assert (out / "detections.json").read_bytes() == expected
    drawn = {path.name for path in (out / "drawn").iterdir()}
    assert drawn == {"turned.jpg", "plain.png", "both.webp.png", "nothing.jpg"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_command(server, folder, expected, tmp_path, protocol):
    given = where(server, protocol)
    command = [sys.executable, "-m", "mrcnn_tf.predict", f"--server={given.address}"]
    command += [f"--protocol={protocol}", f"--model_name={given.model_name}"]
    command += [f"--input={folder}", f"--output_dir={tmp_path / 'out'}", "--nodraw"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"loading {served.MODEL_NAME} on {given.address}" in done.stdout
    assert "TensorFlow prepares" not in done.stdout
    assert (tmp_path / "out/detections.json").read_bytes() == expected


@pytest.mark.parametrize("flags", [[], ["--saved_model=a", "--server=b:1"]])
def test_the_command_wants_one_of_both(flags):
    command = [sys.executable, "-m", "mrcnn_tf.predict", "--input=x", "--output_dir=y", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "give one of --saved_model=FOLDER, --model=FILE and --server=HOST:PORT" in done.stdout


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "input_type", one_quick(["image_bytes", "image_tensor", "tf_example"], quick=2)
)
def test_the_python_client(servers, folder, expected, protocol, input_type):
    """Paths, bytes and pixels, which it sends as they are or as PNG."""
    client = client_of(servers(input_type), protocol)
    names = ["both.webp", "nothing.jpg", "plain.png", "turned.jpg"]
    rows = [
        row.to_coco(name)
        for name, found in zip(names, client([folder / name for name in names]), strict=True)
        for row in found
    ]
    assert rows == json.loads(expected)
    image = np.asarray(Image.open(folder / "plain.png"))
    by_bytes, by_pixels = client([(folder / "plain.png").read_bytes(), image])
    assert by_bytes[0].to_coco("") == by_pixels[0].to_coco("")
    assert by_bytes[0].category == "Röhre"
    client.close()


def test_the_python_client_works_where_tensorflow_is_not(server, folder, expected):
    given = where(server)
    script = f"""
import json, sys
for name in ("tensorflow", "tf_keras", "keras", "official", "tensorflow_serving"):
    sys.modules[name] = None
from mrcnn_tf.client import Client
for address, protocol in (({server.grpc_address!r}, "grpc"), ({server.rest_address!r}, "rest")):
    client = Client(address, {given.model_name!r}, protocol)
    (found,) = client([{str(folder / "turned.jpg")!r}])
    print(json.dumps([one.to_coco("turned.jpg") for one in found]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(expected) if row["image_id"] == "turned.jpg"]
    assert rows
    assert [json.loads(line) for line in done.stdout.splitlines()] == [rows, rows]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_server(protocol, folder, tmp_path, capsys):
    nobody = Server(f"localhost:{free_port()}", protocol, "x", deadline_s=1.0)
    with pytest.raises(ServerError, match=rf"x on {nobody.address}: UNAVAILABLE: .* attempt"):
        image_run.run(nobody, str(folder), str(tmp_path / "out"), 0.5, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_port_of_the_other_protocol(server, protocol):
    given = where(server, "rest" if protocol == "grpc" else "grpc")
    with pytest.raises(ServerError, match=rf"is this its {protocol} port"):
        Client(given.address, given.model_name, protocol, deadline_s=1.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_without_that_model(server, protocol):
    with pytest.raises(ServerError) as error:
        client_of(server, protocol, model_name="triangles")
    assert "ervable not found for request: Latest(triangles)" in str(error.value)
    assert "no model named 'triangles'" in str(error.value)
    assert "--model_name" in str(error.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_does_not_describe_itself(export_of_0_1_0, tmp_path, protocol):
    old = served.start(export_of_0_1_0("image_bytes"), tmp_path)
    try:
        with pytest.raises(ServerError, match="export it again"):
            client_of(old, protocol)
    finally:
        old.stop()


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", ":8500", "http://a:1", "a:b", "a:99999", "a:0", "a:²"]
)
def test_what_is_no_address(address):
    with pytest.raises(ValueError, match="give HOST:PORT"):
        Client(address)


def test_what_is_no_protocol():
    with pytest.raises(ValueError, match=r"'http' is not one of \['grpc', 'rest'\]"):
        Client("localhost:1", protocol="http")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_fails_twice_and_then_answers(server, folder, expected, protocol):
    calls = []

    def before():
        calls.append(1)
        if len(calls) in (2, 3):  # the first one asks for the description
            raise served.model_server.Refusal(UNAVAILABLE, "The batch scheduling queue is full")

    server.before = before
    client = client_of(server, protocol)
    (found,) = client([folder / "plain.png"])
    assert len(calls) == 4
    rows = [row for row in json.loads(expected) if row["image_id"] == "plain.png"]
    assert [one.to_coco("plain.png") for one in found] == rows


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_deadline_names_the_picture(server, folder, tmp_path, capsys, protocol):
    """One slow picture fails; the others go on."""
    client_of(server, protocol)([folder / "plain.png"])  # a first call takes its time
    model = where(server, protocol, deadline_s=3.0)
    calls = []

    def before():
        calls.append(1)
        if len(calls) == 3:  # the description, both.webp, nothing.jpg
            time.sleep(5)

    server.before = before
    out = tmp_path / "out"
    assert image_run.run(model, str(folder), str(out), 0.5, 1, draw_images=False) == 1
    text = capsys.readouterr().out
    assert (
        f"FAILED nothing.jpg: {served.MODEL_NAME} on {model.address}: no answer within 3 s" in text
    )
    assert len(json.loads((out / "detections.json").read_text())) == 4
    assert len(calls) == 5


@pytest.mark.parametrize("protocol", one_quick(PROTOCOLS))
def test_a_server_that_dies_in_between(export, folder, tmp_path, capsys, protocol):
    """What was found until then stays; each picture behind it is named."""
    mortal = served.start(export("image_bytes"), tmp_path)
    calls = []

    def before():
        calls.append(1)
        if len(calls) > 2:  # the description, both.webp
            raise served.model_server.Refusal(UNAVAILABLE, "going down")

    mortal.before = before
    try:
        model = where(mortal, protocol)
        out = tmp_path / "out"
        assert image_run.run(model, str(folder), str(out), 0.5, 1, draw_images=False) == 1
    finally:
        mortal.stop()
    text = capsys.readouterr().out
    for name in ("nothing.jpg", "plain.png", "turned.jpg"):
        assert f"FAILED {name}: " in text
    assert text.count("1 attempt)") == 2  # once it is given up, nobody waits for it again
    rows = json.loads((out / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {"both.webp"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pictures_that_cannot_be_read(server, folder, tmp_path, protocol):
    client = client_of(server, protocol)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes((folder / "plain.png").read_bytes()[:200])
    with pytest.raises((ServerError, ValueError), match=r"damaged\.png: "):
        client([folder / "plain.png", damaged])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.jpg: not an image"):
        client([text])
    with pytest.raises(ValueError, match=r"absent\.jpg: No such file or directory"):
        client([tmp_path / "absent.jpg"])
    with pytest.raises(ValueError, match=r"image 1: .*uint8 \[height, width, 3\].*float64"):
        client([folder / "plain.png", np.zeros([4, 4, 3])])
    with pytest.raises(ValueError, match="put the one image into"):
        client("photo.jpg")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_picture_that_the_server_refuses_does_not_take_its_batch_along(
    server, tmp_path, draw_rectangles, capsys, protocol
):
    for name in ("a.png", "b.png", "c.png"):
        pixels = draw_rectangles(100, 160, {RED: (20, 40, 60, 100)})
        Image.fromarray(pixels).save(tmp_path / name)
    sizes, refused = [], []

    def before():
        sizes.append(1)
        # The description; three at once; then each alone, b the second of them.
        if len(sizes) in (2, 4):
            refused.append(1)
            raise served.model_server.Refusal(INVALID_ARGUMENT, "{{node x}} odd\n\t [[node]]")

    server.before = before
    model = where(server, protocol)
    out = tmp_path / "out"
    assert image_run.run(model, str(tmp_path / "*.png"), str(out), 0.5, 3, draw_images=False) == 1
    assert len(refused) == 2
    code = "INVALID_ARGUMENT" if protocol == "grpc" else "HTTP 400"
    name = f"{served.MODEL_NAME} on {model.address}"
    assert f"FAILED b.png: {name}: {code}: odd\n" in capsys.readouterr().out
    rows = json.loads((out / "detections.json").read_text())
    assert [row["image_id"] for row in rows] == ["a.png", "c.png"]


class OddServer:
    """Answers whatever it is told to whoever connects."""

    def __init__(self, answer):
        import threading

        self._socket = socket.create_server(("localhost", 0))
        self.rest_address = f"localhost:{self._socket.getsockname()[1]}"
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                for part in self._answer:
                    try:
                        connection.sendall(part)
                    except OSError:
                        break
                    if part == b" ":
                        time.sleep(0.1)
                # To close with parts of the request unread would reset the connection, and the
                # answer with it.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(2.0)
                    while connection.recv(65536):
                        pass


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\nhello"], "an answer that cannot be read"),
        ([b"HTTP/1.1 200 OK\r\n\r\n{}"], "an answer that cannot be read.*predictions"),
        ([b"HTTP/1.1 404 Not Found\r\n\r\n<html>nginx</html>"], "HTTP 404: <html>nginx"),
        ([b"HTTP/1.1 503 Busy\r\n\r\n"], "HTTP 503.*attempts"),
        ([b"hello\r\n\r\n"], "UNAVAILABLE: .*attempts"),
        ([], "UNAVAILABLE: .*attempts"),
        ([HEAD, *[b" "] * 40], "no answer within 1 s"),  # never silent, never done
    ],
)
def test_what_is_no_tensorflow_serving(answer, message):
    with pytest.raises(ServerError, match=message):
        client_of(OddServer(answer), "rest", deadline_s=1.0)


def answer_of_two():
    """One picture without a detection, and one that could not be used."""
    return {
        "detection_status": np.array([0, 3], np.int32),
        "image_size": np.array([[4, 4], [0, 0]], np.int32),
        "num_detections": np.zeros(2, np.float32),
        "detection_boxes": np.zeros([2, 0, 4], np.float32),
        "detection_class_ids": np.zeros([2, 0], np.int64),
        "detection_scores": np.zeros([2, 0], np.float32),
    }


def test_a_status_that_a_server_gives_a_picture():
    answer = answer_of_two()
    assert answers.read_detections(answer, 0, {}, "pixel_centres") == []
    with pytest.raises(answers.RefusedPictureError, match=r"\(detection_status 3\)"):
        answers.read_detections(answer, 1, {}, "pixel_centres")


def test_a_server_that_swaps_its_model():
    """The names were asked for once; the next version has a third category."""
    answer = answer_of_two() | {
        "num_detections": np.array([2, 0], np.float32),
        "detection_boxes": np.tile(np.float32([0.0, 0.0, 0.5, 0.5]), (2, 2, 1)),
        "detection_class_ids": np.array([[2, 3], [0, 0]], np.int64),
        "detection_scores": np.array([[0.9, 0.8], [0.0, 0.0]], np.float32),
    }
    names = {1: "a", 2: "b"}
    with pytest.raises(ValueError, match="another model now, with a category 3 .* start again"):
        answers.read_detections(answer, 0, names, "pixel_centres")
    names[3] = "c"
    found = answers.read_detections(answer, 0, names, "pixel_centres")
    assert [one.category for one in found] == ["b", "c"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_of_nothing(server, protocol):
    model = ServedModel(where(server, protocol))
    with pytest.raises(ValueError, match="no picture"):
        model.call([])
    model.close()


@pytest.mark.parametrize("kind", one_quick(sorted(full_masks.KINDS)))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_added_masks_arrive_as_the_saved_model_answers_them(masked, folder, protocol, kind):
    loaded, server = masked(kind)
    files = [(folder / name).read_bytes() for name in ("plain.png", "turned.jpg")]
    model = ServedModel(where(server, protocol))
    answer = model.call(files)
    model.close()
    (name,) = set(answer) & {full_masks.PASTED, full_masks.COUNTS}
    expected = loaded.signatures["serving_default"](input_tensor=tf.constant(files))[name].numpy()
    assert expected[:, 0].any()
    assert (answer[name].dtype == object) == (name == full_masks.COUNTS)
    np.testing.assert_array_equal(answer[name], expected)
