"""A SavedModel in TensorFlow's C++ loader and session, which TensorFlow Serving uses too.

Python's `tf.saved_model.load` revives functions and runs them one by one; a server loads the graph
and runs a session. This calls the latter through the C API of the installed wheel, without a line
of TensorFlow's Python in between.
"""

import ctypes
import glob
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

_STRING = 7
_DTYPES: dict[int, Any] = {1: np.float32, 3: np.int32, 4: np.uint8, 9: np.int64}
_NUMBERS = {np.dtype(dtype): number for number, dtype in _DTYPES.items()}
_STRING_BYTES = 24  # sizeof(TF_TString)


class TensorFlowError(RuntimeError):
    """What TensorFlow says went wrong.

    Attributes:
      code: TF_Code, which are gRPC's codes.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def _library() -> ctypes.CDLL:
    """Open the wheel's C API and say what its functions take."""
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None
    assert spec.origin is not None
    (path,) = glob.glob(os.path.join(os.path.dirname(spec.origin), "libtensorflow_cc.so.2"))
    library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    pointer, number, text, size = (
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_size_t,
    )
    signatures = {
        "TF_NewStatus": (pointer,),
        "TF_DeleteStatus": (None, pointer),
        "TF_GetCode": (number, pointer),
        "TF_Message": (text, pointer),
        "TF_NewGraph": (pointer,),
        "TF_NewSessionOptions": (pointer,),
        "TF_LoadSessionFromSavedModel": (
            *(pointer, pointer, pointer, text, pointer, number, pointer, pointer, pointer),
        ),
        "TF_GraphOperationByName": (pointer, pointer, text),
        "TF_SessionRun": (
            *(None, pointer, pointer, pointer, pointer, number, pointer, pointer, number),
            *(pointer, number, pointer, pointer),
        ),
        "TF_AllocateTensor": (pointer, number, pointer, number, size),
        "TF_DeleteTensor": (None, pointer),
        "TF_TensorData": (pointer, pointer),
        "TF_TensorType": (number, pointer),
        "TF_NumDims": (number, pointer),
        "TF_Dim": (ctypes.c_int64, pointer, number),
        "TF_StringInit": (None, pointer),
        "TF_StringCopy": (None, pointer, text, size),
        "TF_StringDealloc": (None, pointer),
        "TF_StringGetDataPointer": (pointer, pointer),
        "TF_StringGetSize": (size, pointer),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Session:
    """A SavedModel's graph and variables; `run` may be called from several threads.

    Attributes:
      signatures: {name: SignatureDef}.
    """

    def __init__(self, saved_model: pathlib.Path):
        """Load it.

        Raises:
          TensorFlowError: it cannot be loaded.
        """
        from tensorflow.core.protobuf import saved_model_pb2  # loads the libraries, too

        content = (saved_model / "saved_model.pb").read_bytes()
        (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
        self.signatures = dict(graph.signature_def)
        self._tf = _library()
        self._graph = self._tf.TF_NewGraph()
        tags = (ctypes.c_char_p * 1)(b"serve")
        status = self._tf.TF_NewStatus()
        options = self._tf.TF_NewSessionOptions()
        path = os.fsencode(saved_model)
        self._session = self._tf.TF_LoadSessionFromSavedModel(
            options, None, path, tags, 1, self._graph, None, status
        )
        self._check(status)

    def run(
        self, signature: str, inputs: dict[str, np.ndarray | Sequence[bytes]]
    ) -> dict[str, np.ndarray]:
        """Run a signature.

        Args:
          signature: its name.
          inputs: by name: an array, or a list of strings.

        Returns:
          The outputs by name; strings as bytes, dtype object.

        Raises:
          TensorFlowError: the graph fails.
        """
        wanted = self.signatures[signature]
        names = sorted(wanted.outputs)
        fed = [self._output(wanted.inputs[name].name) for name in inputs]
        fetched = [self._output(wanted.outputs[name].name) for name in names]
        given = [self._to_tensor(value) for value in inputs.values()]
        answered = (ctypes.c_void_p * len(names))()
        status = self._tf.TF_NewStatus()
        try:
            self._tf.TF_SessionRun(
                self._session, None,
                (_Output * len(fed))(*fed), (ctypes.c_void_p * len(fed))(*given), len(fed),
                (_Output * len(names))(*fetched), answered, len(names),
                None, 0, None, status,
            )  # fmt: skip
            self._check(status)
            return {
                name: self._to_array(tensor) for name, tensor in zip(names, answered, strict=True)
            }
        finally:
            for tensor, value in zip(given, inputs.values(), strict=True):
                self._delete_input(tensor, None if isinstance(value, np.ndarray) else len(value))
            for tensor in answered:
                if tensor:
                    self._tf.TF_DeleteTensor(tensor)

    def _output(self, name: str) -> _Output:
        operation, _, index = name.partition(":")
        found = self._tf.TF_GraphOperationByName(self._graph, operation.encode())
        assert found, name
        return _Output(found, int(index))

    def _to_tensor(self, value: np.ndarray | Sequence[bytes]) -> int:
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value)
            dims = (ctypes.c_int64 * value.ndim)(*value.shape)
            tensor = self._tf.TF_AllocateTensor(
                _NUMBERS[value.dtype], dims, value.ndim, value.nbytes
            )
            ctypes.memmove(self._tf.TF_TensorData(tensor), value.ctypes.data, value.nbytes)
            return tensor
        dims = (ctypes.c_int64 * 1)(len(value))
        tensor = self._tf.TF_AllocateTensor(_STRING, dims, 1, _STRING_BYTES * len(value))
        base = self._tf.TF_TensorData(tensor)
        for k, one in enumerate(value):
            self._tf.TF_StringInit(base + _STRING_BYTES * k)
            self._tf.TF_StringCopy(base + _STRING_BYTES * k, one, len(one))
        return tensor

    def _delete_input(self, tensor: int, num_strings: int | None) -> None:
        """Free a tensor of `_to_tensor`, and first the strings that it holds."""
        base = self._tf.TF_TensorData(tensor)
        for k in range(num_strings or 0):
            self._tf.TF_StringDealloc(base + _STRING_BYTES * k)
        self._tf.TF_DeleteTensor(tensor)

    def _to_array(self, tensor: int) -> np.ndarray:
        shape = [self._tf.TF_Dim(tensor, k) for k in range(self._tf.TF_NumDims(tensor))]
        count, base = int(np.prod(shape)), self._tf.TF_TensorData(tensor)
        kind = self._tf.TF_TensorType(tensor)
        if kind == _STRING:
            strings = np.empty(count, object)
            for k in range(count):
                place = base + _STRING_BYTES * k
                start, size = (
                    self._tf.TF_StringGetDataPointer(place),
                    self._tf.TF_StringGetSize(place),
                )
                strings[k] = ctypes.string_at(start, size)
            return strings.reshape(shape)
        dtype = np.dtype(_DTYPES[kind])
        content = ctypes.string_at(base, count * dtype.itemsize) if count else b""
        return np.frombuffer(content, dtype).reshape(shape)

    def _check(self, status: int) -> None:
        code = self._tf.TF_GetCode(status)
        text = (self._tf.TF_Message(status) or b"").decode("utf-8", "replace")
        self._tf.TF_DeleteStatus(status)
        if code:
            raise TensorFlowError(code, text)
