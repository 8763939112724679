"""Connections as they are: slow ones."""

import contextlib
import socket
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

from mrcnn_tf.remote import messages
from mrcnn_tf.remote.over_grpc import Grpc

_, SERVICE, METHOD = messages.METHOD.split("/")


def answer_number_7(request, context):
    response = messages.PredictResponse()
    output = response.outputs.add(key="number")
    output.value.dtype = 3
    output.value.int_val.append(7)
    output.value.tensor_shape.dim.add(size=1)
    return response


@pytest.fixture(scope="module")
def port():
    """The port of a server that answers the number 7."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(
        answer_number_7,
        request_deserializer=messages.PredictRequest.FromString,
        response_serializer=messages.PredictResponse.SerializeToString,
    )
    generic = grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield port
    server.stop(0).wait()


@contextlib.contextmanager
def slowed(port, seconds):
    """Yield the address of a wire to that port on which the server's bytes take so long."""

    def carry(source, target, pause):
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                time.sleep(pause)
                target.sendall(content)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                near, _ = door.accept()
                far = socket.create_connection(("localhost", port))
                for ends in ((near, far, 0.0), (far, near, seconds)):
                    threading.Thread(target=carry, args=ends, daemon=True).start()

    with socket.create_server(("localhost", 0)) as door:
        threading.Thread(target=accept, daemon=True).start()
        yield f"localhost:{door.getsockname()[1]}"


def test_a_slow_network(port):
    with slowed(port, 0.4) as address:
        connection = Grpc(address, "m")
        answer = connection.predict("serving_default", "input_tensor", [b"file"], 20.0)
        connection.close()
    np.testing.assert_array_equal(answer["number"], np.array([7], np.int32))
