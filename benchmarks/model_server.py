"""A small stand-in for `tensorflow_model_server`, for tests and benchmarks.

It serves the newest version below a base path over gRPC (PredictionService's `Predict`) and REST
(`POST /v1/models/NAME:predict` in the row format, `GET /v1/models/NAME`), with TensorFlow's C++
loader and session behind both doors (`cpp_loader.py`) and the messages of tensorflow-serving-api in
front. Names, codes and texts of refusals are TensorFlow Serving's. It has no batching, and its
doors are Python: what it costs beyond the session says nothing of the real one.

    python benchmarks/model_server.py --model_base_path=models/shapes --model_name=shapes

prints one JSON line with both ports once it is ready, and serves until it is killed or its standard
input ends (`tail -f /dev/null |` before it keeps one open in a script).
"""

import argparse
import base64
import http.server
import json
import os
import pathlib
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cpp_loader
import grpc
import numpy as np
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

_THREADS = 16
# TF_Code, which is gRPC's: HTTP's, as tensorflow_serving/model_servers/http_server.cc has it.
_HTTP = {
    1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400,
    12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
}  # fmt: skip
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_FIELDS = {1: "float_val", 3: "int_val", 4: "int_val", 9: "int64_val"}
_NUMBERS = {
    np.dtype(np.float32): 1,
    np.dtype(np.int32): 3,
    np.dtype(np.uint8): 4,
    np.dtype(np.int64): 9,
}
_STRING = 7
_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(:predict)?")

Refusal = cpp_loader.TensorFlowError
_INVALID_ARGUMENT, _NOT_FOUND = 3, 5


class ModelServer:
    """One model behind two doors.

    Attributes:
      grpc_address: "host:port".
      rest_address: "host:port".
      before: called before every request; what it raises (`Refusal`) or how long it takes is what
        a client sees.
    """

    def __init__(self, base_path: pathlib.Path, model_name: str, warm_up: bool = True):
        """Load the newest version, replay its warm-up requests, and open both doors.

        Raises:
          FileNotFoundError: no version there.
        """
        versions = [path for path in base_path.iterdir() if path.name.isdigit()]
        if not versions:
            raise FileNotFoundError(f"{base_path}: no folder named by a number")
        newest = max(versions, key=lambda path: int(path.name))
        self._name, self._version = model_name, int(newest.name)
        self._session = cpp_loader.Session(newest)
        self.before: Callable[[], None] = lambda: None
        self.num_warm_up = self._warm_up(newest) if warm_up else 0

        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._grpc = grpc.server(futures.ThreadPoolExecutor(_THREADS), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _Service(self), self._grpc
        )
        self.grpc_address = f"localhost:{self._grpc.add_insecure_port('localhost:0')}"
        self._grpc.start()
        self._rest = http.server.ThreadingHTTPServer(("localhost", 0), _handler(self))
        self.rest_address = f"localhost:{self._rest.server_address[1]}"
        threading.Thread(target=self._rest.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close both doors."""
        self._grpc.stop(0).wait()
        self._rest.shutdown()
        self._rest.server_close()

    def predict(
        self, name: str, version: int | None, signature: str, inputs: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        """Answer a request of either door.

        Raises:
          Refusal: with TensorFlow's code.
        """
        self.before()
        self.check(name, version)
        signature = signature or "serving_default"
        if signature not in self._session.signatures:
            raise Refusal(
                _INVALID_ARGUMENT,
                f'Serving signature name: "{signature}" not found in signature def',
            )
        expected = set(self._session.signatures[signature].inputs)
        if set(inputs) != expected:
            raise Refusal(
                _INVALID_ARGUMENT, f"inputs {sorted(inputs)}, expected {sorted(expected)}"
            )
        return self._session.run(signature, inputs)

    def check(self, name: str, version: int | None) -> None:
        """Raise Refusal unless this is the model that is served."""
        if name != self._name or version not in (None, self._version):
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise Refusal(_NOT_FOUND, f"Servable not found for request: {asked}")

    def signature_type(self, signature: str, name: str) -> int:
        """Return TensorFlow's number of an input's type."""
        found = self._session.signatures.get(signature or "serving_default")
        return found.inputs[name].dtype if found and name in found.inputs else _STRING

    def _warm_up(self, saved_model: pathlib.Path) -> int:
        import tensorflow as tf

        path = saved_model / "assets.extra" / "tf_serving_warmup_requests"
        records = [*tf.data.TFRecordDataset(str(path))] if path.exists() else []
        for record in records:
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            request = log.predict_log.request
            self._session.run(request.model_spec.signature_name, _inputs(request))
        return len(records)


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server: ModelServer) -> None:
        self._server = server

    def Predict(  # noqa: N802, the protocol's name
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        try:
            outputs = self._server.predict(
                spec.name, version, spec.signature_name, _inputs(request)
            )
        except Refusal as error:
            context.abort(_CODES[error.code], str(error))
        response = predict_pb2.PredictResponse()
        response.model_spec.CopyFrom(spec)
        for name, values in outputs.items():
            _fill(response.outputs[name], values)
        return response


def _inputs(request: predict_pb2.PredictRequest) -> dict[str, Any]:
    """Return a request's tensors: arrays, or lists of strings."""
    inputs: dict[str, Any] = {}
    for name, tensor in request.inputs.items():
        if tensor.dtype == _STRING:
            inputs[name] = list(tensor.string_val)
            continue
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        inputs[name] = np.frombuffer(tensor.tensor_content, np.uint8).reshape(shape)
    return inputs


def _fill(tensor: Any, values: np.ndarray) -> None:
    """Write values one by one, as TensorFlow Serving does unless a flag says otherwise."""
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    if values.dtype == object:
        tensor.dtype = _STRING
        tensor.string_val.extend(values.ravel().tolist())
        return
    tensor.dtype = _NUMBERS[values.dtype]
    getattr(tensor, _FIELDS[tensor.dtype]).extend(values.ravel().tolist())


def _handler(server: ModelServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            self._answer(self._status)

        def do_POST(self) -> None:  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(lambda: self._predict(body))

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def _where(self) -> tuple[str, int | None]:
            match = _PATH.fullmatch(self.path)
            if match is None:
                raise Refusal(_INVALID_ARGUMENT, f"Malformed request: {self.command} {self.path}")
            return match[1], int(match[2]) if match[2] else None

        def _status(self) -> dict:
            name, version = self._where()
            server.check(name, version)
            state = {"error_code": "OK", "error_message": ""}
            row = {"version": str(server._version), "state": "AVAILABLE", "status": state}
            return {"model_version_status": [row]}

        def _predict(self, body: bytes) -> dict:
            name, version = self._where()
            try:
                request = json.loads(body)
                signature, rows = request.get("signature_name", ""), request["instances"]
                names = list(rows[0]) if _is_named(rows[0]) else ["input_tensor"]
                inputs = {
                    key: _column(
                        [row[key] if _is_named(row) else row for row in rows],
                        server.signature_type(signature, key),
                    )
                    for key in names
                }
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise Refusal(_INVALID_ARGUMENT, f"JSON Parse error: {error}") from error
            outputs = server.predict(name, version, signature, inputs)
            columns = {key: _plain(values) for key, values in outputs.items()}
            if len(columns) == 1:
                return {"predictions": next(iter(columns.values()))}
            made = [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
            return {"predictions": made}

        def _answer(self, make: Callable[[], dict]) -> None:
            try:
                status, content = 200, make()
            except Refusal as error:
                status, content = _HTTP[error.code], {"error": str(error)}
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _is_named(row: Any) -> bool:
    return isinstance(row, dict) and set(row) != {"b64"}


def _column(values: list, kind: int) -> Any:
    if kind != _STRING:
        return np.array(values, np.uint8)
    return [
        base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value.encode()
        for value in values
    ]


def _plain(values: np.ndarray) -> list:
    """Return what goes into JSON; Python writes floats with a point, integers without."""
    if values.dtype == object:
        values = np.frompyfunc(bytes.decode, 1, 1)(values)
    return values.tolist()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_base_path", required=True, type=pathlib.Path)
    parser.add_argument("--model_name", default="model")
    parser.add_argument("--enable_model_warmup", default="true", choices=["true", "false"])
    args = parser.parse_args()
    start = time.monotonic()
    server = ModelServer(args.model_base_path, args.model_name, args.enable_model_warmup == "true")
    line = {
        "grpc": server.grpc_address,
        "rest": server.rest_address,
        "warm_up_requests": server.num_warm_up,
        "load_s": round(time.monotonic() - start, 3),
    }
    print(json.dumps(line), flush=True)
    sys.stdin.read()  # the end of what started it is the end of this
    print("its standard input has ended, so the server ends", file=sys.stderr)


if __name__ == "__main__":
    main()
