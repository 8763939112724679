"""Shared fixtures: quiet TensorFlow, and the optional folder of real data."""

import gc
import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest

# A shell starts what it sends to the background deaf to Ctrl-C, and so would all be that tests
# start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Real photos and recordings that are not part of the repository. MRCNN_SHARED names the folder;
# without it the sibling folder `shared` of the checkout is tried.
_SHARED = pathlib.Path(
    os.environ.get("MRCNN_SHARED", pathlib.Path(__file__).resolve().parents[2] / "shared")
)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Folder with the real data; the test is skipped where it is absent."""
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"no real data: {_SHARED} is absent (set MRCNN_SHARED)")
    return _SHARED


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    """What a file's tests leave behind is looked through once, not by every collection after it."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["for_accelerators", "for_cpus"])
def each_implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the test with each of the two implementations that some operations have."""
    from mrcnn_tf.ops import implementation

    with implementation.force(accelerators=request.param == "for_accelerators"):
        yield


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder on a disk of 256 KiB of its own."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
