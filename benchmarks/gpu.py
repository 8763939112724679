"""Our training step and inference on a GPU without TensorFlow there, beside torchvision's.

    python benchmarks/gpu.py lower --folder=runs/lowered              # where TensorFlow is
    PYTHON benchmarks/gpu.py compare --folder=runs/lowered \
        --torchvision_python=PYTHON                                   # where JAX and the GPU are

`lower` traces the whole jitted step, the update of the weights included, and the network of
inference on `scene.py`, and writes each as an XLA module before optimization, with its inputs:
numbers that count (images, boxes, small tensors) as they are, large weights as mean and deviation,
from which `time` draws them, so that a folder is small enough to be carried; --exact writes all.
XLA then compiles for whatever device JAX has, as TensorFlow would on it. `time` measures one
module, `compare` all of a folder and torchvision's with channels-last, autocast and torch.compile:
each in a fresh process, which all compile side by side and are then timed in turn. One JSON line
per process. --experiments writes others than `maskrcnn_r50_fpn`, --preset=own with the conventions
of their own files.

Uses JAX's internal client, as it has no public door for such a module: tried with 0.10.2, 0.11.2.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

import numpy as np
import scene
import timing

SMALL = 2**16  # elements; larger floats are drawn
_FLOATS = ("float32", "bfloat16", "float16")


def write_module(function: Any, inputs: tuple, folder: pathlib.Path, exact: bool) -> None:
    """Lower a jitted function and write `module.hlo`, `inputs.npz` and `inputs.json`.

    Args:
      function: a `tf.function` with `jit_compile`, whose variables exist.
      inputs: of one call; a nest of tensors.
      folder: is made.
      exact: write every input as it is.
    """
    import tensorflow as tf

    concrete = function.get_concrete_function(*inputs)
    module = function.experimental_get_compiler_ir(*inputs)(stage="hlo_serialized")
    # The module's parameters: what is passed, then what is captured; variables by their value.
    arrays = []
    for value in (*tf.nest.flatten(inputs), *concrete.captured_inputs):
        if value.dtype == tf.resource:
            # Not every variable is among `concrete.variables`: a schedule's rate is not.
            [held] = value._handle_data.shape_and_type
            value = tf.raw_ops.ReadVariableOp(resource=value, dtype=held.dtype)
        arrays.append(value.numpy())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "module.hlo").write_bytes(module)
    kept, described = {}, []
    for number, array in enumerate(arrays):
        about = {"shape": array.shape, "dtype": array.dtype.name}
        if exact or array.size <= SMALL or number < len(tf.nest.flatten(inputs)):
            # NumPy's format does not know bfloat16.
            kept[str(number)] = array.astype(np.float32) if about["dtype"] in _FLOATS else array
        else:
            about |= {"mean": float(array.mean()), "deviation": float(array.std())}
        described.append(about)
    np.savez_compressed(folder / "inputs.npz", **kept)
    (folder / "inputs.json").write_text(json.dumps(described))


def lower(args: argparse.Namespace) -> None:
    """Write a folder per experiment, task and dtype."""
    for name in args.experiments:
        for dtype in args.dtypes:
            for task, function in (("train", lower_training), ("inference", lower_inference)):
                folder = args.folder / f"{name} {task} {dtype}"
                function(args, name, dtype, folder)
                print(folder, flush=True)


def lower_training(args: argparse.Namespace, name: str, dtype: str, folder: pathlib.Path) -> None:
    """Write the whole step."""
    import network
    import tensorflow as tf

    network.set_dtype(dtype)
    config = network.experiment(norm="batch_norm", **_fields(args, name))
    step = network.training_step(config, args.height, args.width, args.batch)
    function = tf.function(step.step, jit_compile=True, autograph=False)
    write_module(function, (step.inputs,), folder, args.exact)


def _fields(args: argparse.Namespace, name: str) -> dict[str, Any]:
    preset = None if args.preset == "own" else args.preset
    return {"name": name, "preset": preset, "classes": args.classes}


def lower_inference(args: argparse.Namespace, name: str, dtype: str, folder: pathlib.Path) -> None:
    """Write the network with its masks."""
    import network
    import tensorflow as tf

    network.set_dtype(dtype)
    model = network.build_model(network.experiment(**_fields(args, name)))
    network.give_proposals(model, scene.boxes(args.height, args.width, scene.PROPOSALS))
    function = tf.function(lambda x, s: model(x, s), jit_compile=True, autograph=False)
    inputs = network.images(args.height, args.width, args.batch)
    write_module(function, inputs, folder, args.exact)


def read_inputs(folder: pathlib.Path) -> list[Any]:
    """Return the module's inputs as NumPy arrays, drawing those that were not written."""
    import ml_dtypes

    described = json.loads((folder / "inputs.json").read_text())
    rng, arrays = np.random.default_rng(0), []
    with np.load(folder / "inputs.npz") as kept:
        for number, about in enumerate(described):
            if str(number) in kept:
                array = kept[str(number)]
            else:
                array = rng.standard_normal(about["shape"], np.float32)
                array = array * about["deviation"] + about["mean"]
            half = about["dtype"] == "bfloat16"
            arrays.append(array.astype(ml_dtypes.bfloat16 if half else about["dtype"]))
    return arrays


class Module:
    """A lowered module, compiled for JAX's first device, and its inputs there.

    Args:
      folder: of `write_module`.
    """

    def __init__(self, folder: pathlib.Path):
        import jax
        from jax._src.lib import xla_client

        jax.config.update("jax_enable_x64", True)  # else int64 inputs become int32
        computation = xla_client.XlaComputation((folder / "module.hlo").read_bytes())
        text = xla_client._xla.mlir.xla_computation_to_mlir_module(computation)
        # StableHLO, in which GPUs want a module, has no copy.
        text = re.sub(r"mhlo\.copy (%\S+) : (\S+)", r"stablehlo.reshape \1 : (\2) -> \2", text)
        module = xla_client._xla.mlir.mhlo_to_stablehlo(text)
        self.device = jax.devices()[0]
        start = time.perf_counter()
        self._executable = self.device.client.compile_and_load(
            module, xla_client.DeviceList((self.device,)), xla_client.CompileOptions()
        )
        self.compile_seconds = time.perf_counter() - start
        self._inputs = [jax.device_put(array, self.device) for array in read_inputs(folder)]
        self._given: list[Any] = []

    def prepare(self) -> None:
        """Copy the inputs for the next run, which writes new weights over its own."""
        import jax

        self._given = jax.block_until_ready([jax.numpy.copy(array) for array in self._inputs])

    def run(self) -> list[Any]:
        """Run once; return the results, on the device and done."""
        import jax

        results = self._executable.execute_sharded(self._given)
        arrays = results.disassemble_into_single_device_arrays()
        return jax.block_until_ready([shards[0] for shards in arrays])


def device_memory(device: Any) -> dict[str, float]:
    """Most memory of JAX's device that was in use, {"device_peak_mib": ...}; {} if not counted."""
    counts = device.memory_stats() or {}
    if "peak_bytes_in_use" not in counts:
        return {}
    return {"device_peak_mib": round(counts["peak_bytes_in_use"] / 2**20, 1)}


def time_module(args: argparse.Namespace) -> None:
    """Print the JSON line of one module; with --outputs write what it computes."""
    import jax

    module = Module(args.folder)
    module.prepare()
    outputs = [np.asarray(array) for array in module.run()]
    scalars = [round(float(array), 6) for array in outputs if not array.ndim]
    floats = [a for a in outputs if jax.numpy.issubdtype(a.dtype, jax.numpy.floating)]
    if args.outputs:
        np.savez(args.outputs, **{str(n): a for n, a in enumerate(outputs)})
    taken = timing.in_turn(
        {"call": module.run}, args.rounds, warm_up=2, before_each=lambda _: module.prepare()
    )
    timing.print_line(
        benchmark=args.folder.name,
        contestant="ours",
        device=module.device.device_kind,
        **device_memory(module.device),
        seconds={"call": taken["call"].summary(), "compile": round(module.compile_seconds, 1)},
        scalars=scalars,  # the losses first
        finite=bool(all(np.isfinite(a.astype(np.float32)).all() for a in floats)),
        versions={"jax": jax.__version__},
    )


def compare(args: argparse.Namespace) -> None:
    """Time all modules and torchvision's networks in turn."""
    here = pathlib.Path(__file__).resolve().parent
    commands = [
        [sys.executable, __file__, "time", f"--folder={folder}", f"--rounds={args.rounds}"]
        for folder in sorted(args.folder.iterdir())
    ]
    for script in ("torchvision_train_step.py", "torchvision_inference.py"):
        for dtype in ("float32", "bfloat16"):
            flags = [f"--dtype={dtype}", f"--rounds={args.rounds}", f"--device={args.device}"]
            flags += [f"--{name}={getattr(args, name)}" for name in ("height", "width", "batch")]
            flags += ["--channels_last", "--compile"]
            if args.torchvision_python:
                commands.append([args.torchvision_python, str(here / "peers" / script), *flags])
    # JAX would take most of the GPU's memory at once.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "WAIT_FOR_TURN": "1"}
    for _ in range(args.processes):
        in_turn(commands, environment)


def in_turn(commands: list[list[str]], environment: dict[str, str]) -> None:
    """Start all, wait until all are ready, and let one after the other run; print what they print.

    Raises:
      SystemExit: names those that failed, after the others ran.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, env=environment, **pipes) for command in commands]
    try:
        for process in started:
            for line in process.stdout:
                if line.strip() == timing.READY:
                    break
        for process in started:
            printed, _ = process.communicate("\n")
            print(printed, end="", flush=True)
    finally:
        for process in started:
            process.kill()
    failed = [" ".join(map(str, process.args)) for process in started if process.returncode]
    if failed:
        sys.exit("\n".join(["These failed:", *failed]))


def main() -> None:
    """Do one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(required=True)
    for name, action in (("lower", lower), ("time", time_module), ("compare", compare)):
        flags = actions.add_parser(name)
        flags.set_defaults(action=action)
        flags.add_argument("--folder", type=pathlib.Path, required=True)
        if action is not time_module:
            flags.add_argument("--height", type=int, default=800)
            flags.add_argument("--width", type=int, default=1344)
            flags.add_argument("--batch", type=int, default=1)
        if action is not lower:
            flags.add_argument("--rounds", type=int, default=20)
        if action is lower:
            flags.add_argument("--experiments", nargs="+", default=["maskrcnn_r50_fpn"])
            flags.add_argument("--preset", default="torchvision", help="or own, or detectron2")
            flags.add_argument("--classes", type=int, default=scene.CLASSES, help="with background")
            flags.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
            flags.add_argument("--exact", action="store_true", help="write all inputs as they are")
        elif action is time_module:
            flags.add_argument("--outputs", type=pathlib.Path, help="write the results (.npz)")
        else:
            flags.add_argument("--torchvision_python")
            flags.add_argument("--device", default="cuda", help="of torchvision's")
            flags.add_argument("--processes", type=int, default=2, help="of each contestant")
    args = parser.parse_args()
    args.action(args)


if __name__ == "__main__":
    main()
