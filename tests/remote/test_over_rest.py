"""Answers over HTTP, as they come in."""

import contextlib
import http.client
import http.server
import json
import threading

import pytest

from mrcnn_tf.remote.failures import ServerError
from mrcnn_tf.remote.over_rest import Rest


@contextlib.contextmanager
def serve(status, content):
    """Answer every request so; yield the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def ask(address):
    return Rest(address, "m").predict("serving_default", "input_tensor", [b"file"], 10.0)


def read1_of_newer_pythons(response, size=-1):
    """Return what there is; the last byte that was announced closes the response."""
    if response.fp is None:
        return b""
    if response.length is not None and (size < 0 or size > response.length):
        size = response.length
    content = response.fp.read1(size)
    if not content and size:
        response._close_conn()
    elif response.length is not None:
        response.length -= len(content)
        if not response.length:
            response._close_conn()
    return content


@pytest.mark.parametrize("is_newer", [False, True])
def test_an_answer_is_read_to_its_end(monkeypatch, is_newer):
    if is_newer:
        monkeypatch.setattr(http.client.HTTPResponse, "read1", read1_of_newer_pythons)
    scores = [k / 8 for k in range(400_000)]  # several reads
    with serve(200, {"predictions": [{"scores": scores, "count": 2}]}) as address:
        answer = ask(address)
    assert answer["scores"].tolist() == [scores]
    assert answer["count"].tolist() == [2]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"error": "no\nsuch"}, "HTTP 400: no"),
        (
            {"error": {"code": 7, "message": "denied"}},
            r"HTTP 400: \{'code': 7, 'message': 'denied'",
        ),
        ({"error": None}, "HTTP 400: None"),
        (["denied"], r'HTTP 400: \["denied"\]'),
    ],
)
def test_refusals_of_any_form(content, text):
    with serve(400, content) as address, pytest.raises(ServerError, match=text) as error:
        ask(address)
    assert not error.value.is_timeout


def test_a_gateway_that_got_no_answer():
    with serve(504, {"error": "upstream"}) as address, pytest.raises(ServerError) as error:
        ask(address)
    assert str(error.value) == "no answer: upstream"
    assert error.value.is_timeout


def test_strings_are_bytes_however_deep():
    rows = [{"name": "Röhre", "counts": ["0a", ""]}, {"name": "b", "counts": ["ccc", "d"]}]
    with serve(200, {"predictions": rows}) as address:
        answer = ask(address)
    assert answer["name"].dtype == answer["counts"].dtype == object
    assert answer["name"].tolist() == ["Röhre".encode(), b"b"]
    assert answer["counts"].shape == (2, 2)
    assert answer["counts"].tolist() == [[b"0a", b""], [b"ccc", b"d"]]
