"""Which test runs a command or a Python block of the documentation, or why none does.

Of programs of ours a command is listed by its file and its flags, whatever their values; of other
programs by all of its words, where `*` stands for any. What is no longer in the documentation has
to go from here: `test_commands.py` and `test_python_blocks.py` say so.
"""

_INTO = "--object_annotations_file --output_file_prefix"
_FROM_A_WHEEL = (
    "tests/install/test_train_from_wheel.py"
    "::test_one_step_is_trained_scored_exported_and_predicted_with"
)

# {command: the test that runs that program with these flags}.
RUN_BY = {
    f"data_prep/beam_convert.py --image_dir --num_shards {_INTO}": (
        "tests/data_prep/test_beam_convert.py::test_the_command_in_two_processes"
    ),
    f"data_prep/create_coco_tfrecord.py --image_dir --num_shards {_INTO}": _FROM_A_WHEEL,
    f"data_prep/create_coco_tfrecord.py --image_dir {_INTO}": (
        "tests/docs/test_typed.py::test_data_is_looked_at_split_and_converted"
    ),
    "data_prep/create_coco_tfrecord.py --num_shards --shards": (
        "tests/data_prep/test_parts.py::test_parts_at_once_with_kills"
    ),
    "data_prep/create_shapes_coco.py --num_categories --output_dir": (
        "tests/end_to_end/test_lvis.py::test_train_evaluate_export_predict"
    ),
    "data_prep/split_coco.py --annotations --images --output_dir": (
        "tests/docs/test_typed.py::test_data_is_looked_at_split_and_converted"
    ),
    "data_prep/tfds_build.py --data_dir --manual_dir": (
        "tests/end_to_end/test_tfds.py::test_tfdss_own_command_builds_the_same"
    ),
    "data_prep/to_coco.py --annotations --images --output_file": (
        "tests/docs/test_typed.py::test_data_is_looked_at_split_and_converted"
    ),
    "mrcnn_tf/convert_weights.py --input --output --source": (
        "tests/weights/test_convert_weights.py::test_the_command"
    ),
    "mrcnn_tf/experiment/reference.py": (
        "tests/docs/test_configuration.py::test_the_page_is_what_the_fields_say"
    ),
    "mrcnn_tf/env.py": "tests/test_env.py::test_versions_devices_and_environment",
    "mrcnn_tf/export.py --checkpoint_path --experiment --export_dir": _FROM_A_WHEEL,
    "mrcnn_tf/export.py --checkpoint_path --experiment --export_dir --format --input_size": (
        "tests/edge/test_exporting.py::test_predict_runs_a_file_without_tensorflow"
    ),
    "mrcnn_tf/export.py --checkpoint_path --experiment --serving_kit": (
        "tests/serving/test_kit.py::test_export_writes_versions_that_a_server_serves"
    ),
    "mrcnn_tf/export.py --format --input_size": (
        "tests/edge/test_exporting.py::test_an_onnx_file_of_a_whole_network"
    ),
    "mrcnn_tf/finetune.py --annotations --images --output_dir": (
        "tests/end_to_end/test_finetune.py::test_from_an_export_to_a_network"
    ),
    "mrcnn_tf/inspect_data.py --annotations --images --val_annotations --val_images": (
        "tests/docs/test_typed.py::test_data_is_looked_at_split_and_converted"
    ),
    "mrcnn_tf/predict.py --input --model --output_dir": (
        "tests/edge/test_exporting.py::test_predict_runs_a_file_without_tensorflow"
    ),
    "mrcnn_tf/predict.py --input --model_name --output_dir --server": (
        "tests/serving/test_client.py::test_the_command"
    ),
    "mrcnn_tf/predict.py --input --output_dir --saved_model": _FROM_A_WHEEL,
    "mrcnn_tf/predict.py --input --output_dir --saved_model --tta": (
        "tests/end_to_end/test_systems.py::test_looking_several_times"
    ),
    "mrcnn_tf/predict.py --model_name --protocol --server": (
        "tests/serving/test_client.py::test_the_command"
    ),
    "mrcnn_tf/predict_beam.py --input --output_dir --saved_model": (
        "tests/serving/test_predict_beam.py::test_the_command_in_two_processes"
    ),
    "mrcnn_tf/report.py --annotations --detections --images --output_dir": (
        "tests/reporting/test_report_of_files.py::test_the_command"
    ),
    "mrcnn_tf/report.py --model_dir": (
        "tests/end_to_end/test_report.py::test_train_report_export_predict"
    ),
    "mrcnn_tf/train.py --experiment --mixed_precision --model_dir --params_override": (
        "tests/end_to_end/test_train_to_predict.py"
        "::test_adamw_in_bfloat16_with_warm_up_and_cosine_goes_on_where_it_was_killed"
    ),
    "mrcnn_tf/train.py --experiment --mode": _FROM_A_WHEEL,
    "mrcnn_tf/train.py --experiment --mode --params_override": (
        "tests/end_to_end/test_train_to_predict.py"
        "::test_a_killed_run_ends_with_the_weights_of_one_that_was_not"
    ),
    "mrcnn_tf/train.py --experiment --model_dir": _FROM_A_WHEEL,
    "mrcnn_tf/train.py --experiment --model_dir --params_override": (
        "tests/end_to_end/test_train_to_predict.py"
        "::test_a_killed_run_ends_with_the_weights_of_one_that_was_not"
    ),
    "mrcnn_tf/train_stages.py --experiment": "tests/end_to_end/test_train_stages.py::test_separate",
    "benchmarks/near_duplicates.py --images": (
        "tests/benchmarks/test_commands.py::test_near_duplicates"
    ),
    "benchmarks/coco_size.py --num_processes": (
        "tests/benchmarks/test_commands.py::test_converter_of_a_few_images"
    ),
    "benchmarks/growth.py --plot": "tests/benchmarks/test_commands.py::test_growth",
    "benchmarks/gpu.py --folder": (
        "tests/benchmarks/test_gpu.py::test_jax_takes_the_step_that_tensorflow_takes"
    ),
    "docs/site/follow_an_image.py --output_dir": (
        "tests/docs/test_site.py::test_an_image_is_followed"
    ),
    "tests/docs/stale_numbers.py": "tests/docs/test_measured.py::test_the_list_is_made",
    "tests/fuzz/run.py --count": "tests/fuzz/test_fuzz.py::test_many_inputs",
    "python -c import tensorflow as tf*DispatchServer*": (
        "tests/end_to_end/test_input_service.py::test_two_workers_train_on_what_two_others_read"
    ),
    "python -c import tensorflow as tf*WorkerServer*": (
        "tests/end_to_end/test_input_service.py::test_two_workers_train_on_what_two_others_read"
    ),
    "python detect.py model.tflite photo.jpg --threads=2 --output=found.png": (
        "tests/edge/test_exporting.py::test_the_folder_alone_runs_on_a_device"
    ),
    "python -m http.server --directory web": (
        "tests/web/test_page.py::test_it_finds_what_the_helper_finds"
    ),
    "cp edge/photos/model.tflite web/": (
        "tests/web/test_page.py::test_it_finds_what_the_helper_finds"
    ),
    "npm ci --prefix web": "tests/web/test_page.py::test_it_finds_what_the_helper_finds",
}

_MEASURES = "a measurement of minutes or hours, whose numbers stand beside it; its parts are tested"
_INSTALLS = "downloads; tests/install holds files of pins and extras against each other"

# {command: why no test runs it}.
NOT_RUN = {
    f"data_prep/create_coco_tfrecord.py --image_dir --min_keypoints --noinclude_masks {_INTO}": (
        "COCO's persons; tests/data_prep/test_keypoints.py converts some from Python"
    ),
    "benchmarks/*": _MEASURES,
    "mrcnn_tf/export.py --checkpoint_path --experiment --export_dir --params_override": (
        "test_systems.py exports a network that looks several times from Python"
    ),
    "data_prep/tfds_build.py --config --data_dir --manual_dir": (
        "tests/data_prep/test_tfds_builder.py builds from such a configuration in Python"
    ),
    "mrcnn_tf/train.py --checkpoint_path --experiment --mode": (
        "test_train_to_predict.py scores a checkpoint from Python, the newest by the command"
    ),
    "benchmarks/kills.py --kills --seed": "hours; test_faults.py makes a few by the same code",
    "benchmarks/kills.py --kills --seed --workers": "the same with two processes",
    "benchmarks/model_server.py --model_base_path --model_name": (
        "runs until it is stopped; tests/serving/served.py starts it as a class"
    ),
    "tests/serving/large_picture_script.py": "asks for 20 GB of pixels",
    "data_prep/tfds_build.py --beam_pipeline_options --data_dir --manual_dir --num_shards": (
        "on Dataflow; tests/data_prep/test_tfds_beam.py has the runner that comes with Beam"
    ),
    "mrcnn_tf/predict_beam.py --manifest --output_dir --saved_model": (
        "tests/serving/test_predict_beam.py gives the same from Python; one is for Dataflow"
    ),
    "mrcnn_tf/convert_weights.py --input --output --target": (
        "tests/weights/test_convert_weights.py writes every target from Python"
    ),
    "mrcnn_tf/export.py --checkpoint_path --experiment --export_dir --input_type": (
        "without the last flag it is run; tests/serving exports each input type from Python"
    ),
    "mrcnn_tf/export.py --experiment --export_dir": "the same with the default of one more flag",
    "mrcnn_tf/finetune.py --annotations --images --minutes --output_dir --val_annotations"
    " --val_images": "half an hour; without photos to validate on it is run",
    "mrcnn_tf/train.py --experiment": "an experiment of the paper's size; others are run",
    "mrcnn_tf/train.py --experiment --params_override": "the same, with a field",
    "make beam-test": "is how tests are run that need Beam",
    "make bench*": _MEASURES,
    "make demo": "ten minutes; its stages are run by tests/end_to_end",
    "make docs": "test_site.py runs what it runs, where MkDocs is installed",
    "make lint": "is how tests are run",
    "make slow-test": "is how tests are run",
    "make test": "is how tests are run",
    "make pins": "asks pip's index; tests/install/test_requirements.py checks what it wrote",
    "make wheel": "tests/install/test_wheel.py builds one by the same backend",
    ".venv/bin/mkdocs serve": "runs until it is stopped",
    "pip install *": _INSTALLS,
    "beam/bin/pip install *": _INSTALLS,
    "python3.11 -m venv *": "tests/install makes environments from Python",
    "cat found/unread-*": "input of the next one",
    "cd kit": "a step to the next command",
    "docker compose up -d": "there is no Docker where tests run; test_kit.py checks the file",
    "sudo ln -s $PWD /kit": "changes the machine",
    "tensorflow_model_server *": (
        "is not to be had from pip; benchmarks/cpp_loader.py stands for it in tests/serving"
    ),
    "echo {*": "input of the next one",
    "curl --data @- http://localhost:8501/v1/models/shapes:predict": (
        "tests/remote/test_over_rest.py posts the same from Python"
    ),
    "export TF_CONFIG=*": "sets a variable; tests/end_to_end/test_workers.py sets it from Python",
    "python -m apache_beam.runners.worker.worker_pool_main": "Beam's own",
}

# {page: the tests that run its blocks of Bash}.
BASH = {"docs/many-machines.md": "tests/docs/test_scripts.py"}

# {(page, words that its block of Python and no other of the page has): the test that runs it, or
# why none does}. Those that `test_python_blocks.py` runs itself stand there.
PYTHON = {
    ("docs/edge.md", "import detect"): "tests/edge/test_device.py has the helper's functions",
    ("docs/predict.md", "supervision.MaskAnnotator"): (
        "not installed where tests run; tests/results/test_forms.py has a stand-in for it"
    ),
    ("docs/predict.md", "from sahi.predict"): (
        "not installed where tests run; tests/test_sahi_model.py has a stand-in for it"
    ),
    ("docs/serving.md", "Client("): "tests/serving/test_client.py::test_the_python_client",
    ("docs/tfds.md", "CocoFolder("): (
        "tests/data_prep/test_tfds_builder.py builds by download_and_prepare"
    ),
    (
        "docs/tfds.md",
        "def full_masks",
    ): "tests/data_prep/test_tfds_builder.py::test_an_example_by_hand",
}
