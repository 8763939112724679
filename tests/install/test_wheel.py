"""What is in the wheel, and that it works in environments without the checkout."""

import configparser
import email
import json
import sys
import zipfile

import pytest

import mrcnn_tf
from tests.install import environments

ROOT = environments.ROOT
PACKAGES = {"mrcnn_tf": "mrcnn_tf", "data_prep": "mrcnn_tf/data_prep"}  # {in the checkout: wheel}

# Imports every module and every command of what is installed, and prints what came of it.
IMPORTS = """
import importlib, importlib.metadata, json, pkgutil
from absl import flags
import mrcnn_tf
from mrcnn_tf import demo
from mrcnn_tf.console import layout
from mrcnn_tf.experiment import loading
def fail(name):
    raise
modules = [m.name for m in pkgutil.walk_packages(mrcnn_tf.__path__, "mrcnn_tf.", onerror=fail)]
modules.remove("mrcnn_tf.sahi_model")  # it takes SAHI, which is no dependency
modules.remove("mrcnn_tf.edge.onnx_file")  # it takes the extra onnx
of_beam = ("mrcnn_tf.beam.", "mrcnn_tf.data_prep.beam_")  # they take the extra beam
modules = [name for name in modules if not name.startswith(of_beam)]
files = [importlib.import_module(name).__file__ for name in modules]
scripts = importlib.metadata.distribution("mrcnn-tf").entry_points
print(json.dumps({
    "file": mrcnn_tf.__file__,
    "modules": modules,
    "elsewhere": [f for f in files if f and not f.startswith(mrcnn_tf.__path__[0])],
    "scripts": [s.name for s in scripts if s.group == "console_scripts" and callable(s.load())],
    "flags of ours": [m for m in flags.FLAGS.flags_by_module_dict() if m.startswith("mrcnn_tf")],
    "experiments": loading.names(),
    "experiment": loading.load("maskrcnn_shapes").task.name,
    "first command": demo.stages()[0][2][1:3],
}))
"""


def _read(wheel, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [path for path in archive.namelist() if path.endswith(f".dist-info/{name}")]
        return archive.read(path).decode()


def _names(wheel) -> set[str]:
    """Paths in a wheel, without what every wheel has."""
    with zipfile.ZipFile(wheel) as archive:
        return {path for path in archive.namelist() if ".dist-info/" not in path}


def test_the_wheel_holds_every_module_and_experiment_and_nothing_else(wheel):
    expected = {"mrcnn_tf/py.typed"}
    for folder, inside in PACKAGES.items():
        for path in (ROOT / folder).glob("**/*.py"):
            expected.add(f"{inside}/{path.relative_to(ROOT / folder).as_posix()}")
    of_tfds = "mrcnn_tf/data_prep/tfds/coco_folder"
    expected |= {f"{of_tfds}/README.md", f"{of_tfds}/TAGS.txt"}  # not its dummy data
    expected |= {f"mrcnn_tf/experiments/{p.name}" for p in (ROOT / "experiments").glob("*.yaml")}
    assert len(expected) > 90
    assert _names(wheel) == expected


def test_the_source_archive_gives_the_same_wheel(source, wheel, tmp_path):
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    environments.run([sys.executable, "-c", build], source)
    (archive,) = tmp_path.glob("mrcnn_tf-*.tar.gz")
    assert _names(environments.build_wheel(archive, tmp_path)) == _names(wheel)


def test_metadata(wheel):
    metadata = email.message_from_string(_read(wheel, "METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("mrcnn-tf", mrcnn_tf.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata.get_payload().startswith("# Mask R-CNN for TensorFlow")
    assert metadata.get_all("Provides-Extra") == list(environments.PROJECT["optional-dependencies"])
    assert "Apache License" in _read(wheel, "licenses/LICENSE")


def test_every_command_has_a_script_of_its_name(wheel):
    """A file with `run_main` is a command; the script is called as the file is."""
    scripts = configparser.ConfigParser()
    scripts.read_string(_read(wheel, "entry_points.txt"))
    expected = {}
    for folder, inside in PACKAGES.items():
        for path in (ROOT / folder).glob("*.py"):
            if "\ndef run_main()" in path.read_text("utf-8"):
                module = f"{inside}/{path.stem}".replace("/", ".")
                expected["mrcnn-" + path.stem.replace("_", "-")] = f"{module}:run_main"
    assert len(expected) >= 9
    assert dict(scripts["console_scripts"]) == expected


def test_all_of_the_wheel_imports_without_the_checkout(installed, tmp_path):
    found = json.loads(environments.run([installed, "-c", IMPORTS], tmp_path).splitlines()[-1])
    assert found["file"].startswith(str(installed.parents[1]))
    assert not found["elsewhere"]
    assert {"mrcnn_tf.train", "mrcnn_tf.data_prep.shards"} <= set(found["modules"])
    assert set(found["scripts"]) == set(environments.PROJECT["scripts"])
    assert not found["flags of ours"], "importing a command must not claim flag names"
    assert found["experiments"] == sorted(p.stem for p in (ROOT / "experiments").glob("*.yaml"))
    assert found["experiment"] == "maskrcnn_shapes"
    assert found["first command"] == ["-m", "mrcnn_tf.data_prep.create_shapes_coco"]


def test_an_editable_installation_finds_what_lies_beside_the_package(editable, source, tmp_path):
    code = (
        "from mrcnn_tf.console import layout; from mrcnn_tf.data_prep import shape_scene; "
        "print(layout.folder('experiments'), *layout.data_prep_command('x'), shape_scene.__file__)"
    )
    experiments, *command, module = environments.run([editable, "-c", code], tmp_path).split()
    assert experiments == str(source / "experiments")
    assert [(tmp_path / part).resolve() for part in command] == [source / "data_prep" / "x.py"]
    assert module == str(source / "data_prep" / "shape_scene.py")


def test_the_checkout_finds_what_lies_beside_the_package():
    code = (
        "from mrcnn_tf.console import layout; "
        "print(layout.folder('experiments'), *layout.data_prep_command('x'))"
    )
    found = environments.run([sys.executable, "-c", code], ROOT).split()
    assert found == [str(ROOT / "experiments"), "data_prep/x.py"]


def test_the_package_alone_builds_networks_and_has_nothing_of_training(plain, tmp_path):
    code = """
import importlib.util
from mrcnn_tf.modeling import mask_rcnn
from mrcnn_tf import predict
print([name for name in ("official", "orbit", "yaml", "hotcoco") if importlib.util.find_spec(name)])
"""
    assert environments.run([plain, "-c", code], tmp_path) == "[]\n"


@pytest.mark.parametrize("extras", ["train", "train,convert"])
def test_a_command_without_its_packages_says_what_installs_them(plain, tmp_path, extras):
    name = "convert_weights" if "convert" in extras else "train"
    script, module = f"mrcnn-{name.replace('_', '-')}", f"mrcnn_tf.{name}"
    missing = "official, orbit, yaml, hotcoco" + ", safetensors" * ("convert" in extras)
    by_script = environments.run([plain.with_name(script), "--help"], tmp_path, code=1)
    assert by_script == (
        f"error: {script} needs packages that are not installed ({missing}). They come with\n"
        f"  pip install 'mrcnn-tf[{extras}]'\nor in a checkout\n  pip install '.[{extras}]'\n"
    )
    by_module = environments.run([plain, "-m", module, "--help"], tmp_path, code=1)
    assert by_module == by_script.replace(script, f"python -m {module}")
