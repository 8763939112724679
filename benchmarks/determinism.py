"""Whether two runs of one command have the same bits, and what that costs.

    python benchmarks/determinism.py --steps=100 --runs=3

Trains `maskrcnn_shapes` so many steps from the same weights on the same images: as it is, with
--deterministic, and with --threads=1, in turn, so many times each. Prints a JSON line for each of
the three: seconds per step (of each run the median of its loops but the first; of those the median,
and all of them), and how many variables of the last checkpoint, the optimizer's too, differ between
the first run and any other one.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import timing
import tiny_run

FLAGS = {"as it is": (), "--deterministic": ("--deterministic",), "--threads=1": ("--threads=1",)}
LOOP = 5


def train(folder: pathlib.Path, run: pathlib.Path, steps: int, flags: tuple[str, ...]) -> float:
    """Train once; return the seconds of a step."""
    data = f"{folder}/records/train-*.tfrecord"
    trainer = {"train_steps": steps, "steps_per_loop": LOOP, "checkpoint_interval": steps}
    fields = {"task": {"train_data": {"input_path": data}}, "trainer": trainer}
    command = [
        *(sys.executable, "-m", "mrcnn_tf.train", f"--experiment={tiny_run.EXPERIMENT}"),
        *("--mode=train", f"--model_dir={run}", f"--params_override={json.dumps(fields)}", *flags),
    ]
    subprocess.run(command, cwd=tiny_run.ROOT, check=True, capture_output=True)
    rows = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    images = rows[0]["images"] / rows[0]["step"]
    return statistics.median(images / row["images_per_second"] for row in rows[1:])


def variables(run: pathlib.Path, steps: int) -> dict[str, bytes]:
    """The bits of all variables of the last checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(f"{run}/ckpt-{steps}")
    names = [name for name in reader.get_variable_to_shape_map() if ".ATTRIBUTES/VARIABLE" in name]
    return {
        name: reader.get_tensor(name).tobytes()
        for name in names
        if not name.startswith("save_counter")
    }


def main() -> None:
    """Print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tiny_run.make(folder, num_train=40, num_val=1)
        seconds: dict[str, list[float]] = {kind: [] for kind in FLAGS}
        for number in range(args.runs):
            for kind, flags in FLAGS.items():
                run = folder / f"{kind} {number}"
                seconds[kind].append(train(folder, run, args.steps, flags))
        for kind in FLAGS:
            first, *others = (
                variables(folder / f"{kind} {number}", args.steps) for number in range(args.runs)
            )
            different = {key for other in others for key in first if first[key] != other[key]}
            timing.print_line(
                benchmark="determinism",
                flags=kind,
                steps=args.steps,
                seconds_per_step=round(statistics.median(seconds[kind]), 4),
                of_runs=[round(value, 4) for value in seconds[kind]],
                variables=len(first),
                variables_that_differ=len(different),
            )


if __name__ == "__main__":
    main()
