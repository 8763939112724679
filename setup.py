"""Which folders a wheel holds, and under which names. Everything else is in pyproject.toml.

`experiments/` and `data_prep/` stand beside the package in a checkout. Their names are too common
for the top level of an environment, where those of another project would overwrite them, or a
folder of the user's shadow them; so a wheel has them inside the package.
"""

from setuptools import find_packages, setup

MOVED = {
    "mrcnn_tf.experiments": "experiments",
    "mrcnn_tf.data_prep": "data_prep",
    "mrcnn_tf.data_prep.formats": "data_prep/formats",
    "mrcnn_tf.data_prep.tfds": "data_prep/tfds",
    "mrcnn_tf.data_prep.tfds.coco_folder": "data_prep/tfds/coco_folder",
}

setup(
    packages=[*find_packages(include=["mrcnn_tf", "mrcnn_tf.*"]), *MOVED],
    package_dir=MOVED,
    package_data={
        "mrcnn_tf.experiments": ["*.yaml"],
        "mrcnn_tf.data_prep.tfds.coco_folder": ["README.md", "TAGS.txt"],
    },
)
