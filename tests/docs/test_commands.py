"""Every command of the documentation has flags that exist, and a test or a reason."""

import ast
import fnmatch
import pathlib
import re
import tomllib

import pytest

from tests.docs import commands, listed, pages

ROOT = pages.ROOT
COMMANDS = [*commands.in_blocks(), *commands.in_prose()]
KEYS = {command.key for command in COMMANDS}
# TFDS's and pytest's own.
_FLAGS_OF_OTHERS = {
    "data_prep/tfds_build.py": {
        *("manual_dir", "data_dir", "config", "num_shards", "beam_pipeline_options"),
    },
}
# Flags of other programs that a page speaks of.
_FLAGS_IN_PROSE = {
    "CONTRIBUTING.md": {"sync"},
    "docs/beam.md": {
        *("experiments", "dataflow_service_options", "environment_type", "environment_config"),
        "runner",
    },
    "docs/many-machines.md": {"signal"},
    "docs/runs.md": {
        *("tpu", "gin_file", "gin_params", "tf_data_service", "tpu_platform", "tfhub_handle"),
        "tflex_output_uri",
    },
    "docs/serving.md": {
        *("port", "rest_api_port", "model_config_file", "model_config_file_poll_wait_seconds"),
        *("file_system_poll_wait_seconds", "monitoring_config_file", "rest_api_timeout_in_ms"),
        *("enable_batching", "batching_parameters_file", "per_process_gpu_memory_fraction"),
        *("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"),
        *("enable_model_warmup", "no-deps"),
    },
    "docs/start.md": {"logdir"},
    "docs/results.md": {"golden_dir"},
    "docs/weights.md": {"golden_dir"},
    "docs/tfds.md": {"imports"},
}


def of_ours() -> list[commands.Command]:
    return [command for command in COMMANDS if command.file]


def test_commands_are_found():
    assert len(COMMANDS) > 100
    assert len(of_ours()) > 70


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a -b 'c d' # no\ne", [(0, ["a", "-b", "c d"]), (1, ["e"])]),
        ("X=1 a \\\n  --b=2\nc", [(0, ["a", "--b=2"]), (2, ["c"])]),
        ('a "b\nc" | d && e & f; g', [(0, ["a", "b\nc"]), *((0, [x]) for x in "defg")]),
        ("nice -n 19 a b", [(0, ["a", "b"])]),
    ],
)
def test_a_shells_text_is_split(text, expected):
    # A command that goes over a line's end begins where it begins.
    assert [words for _, words in commands.split(text)] == [words for _, words in expected]
    assert [line for line, _ in commands.split(text)] == [line for line, _ in expected]


def test_programs_are_files_that_are_there():
    for command in of_ours():
        assert command.file.is_file(), f"{command.where}: there is no {command.file}"
        text = command.file.read_text("utf-8")
        assert 'if __name__ == "__main__":' in text, (
            f"{command.where}: {command.file} is no command"
        )


def test_flags_are_ones_that_the_programs_define():
    for command in of_ours():
        name = command.file.relative_to(ROOT).as_posix()
        known = commands.flags_of(command.file) | _FLAGS_OF_OTHERS.get(name, set())
        unknown = set(command.flags) - known
        assert not unknown, f"{command.where}: {name} has no flag {sorted(unknown)}"


def test_flags_are_read_from_programs():
    train = commands.flags_of(ROOT / "mrcnn_tf/train.py")
    assert {
        "experiment",
        "params_override",
        "mixed_precision",
        "threads",
        "noverify_records",
    } <= train
    assert "tpu" not in train
    export = commands.flags_of(ROOT / "mrcnn_tf/export.py")
    assert {"experiment", "format", "input_size"} <= export
    assert "params_overide" not in export
    assert "kills" in commands.flags_of(ROOT / "benchmarks/kills.py")
    assert "num_shards" in commands.flags_of(ROOT / "data_prep/beam_convert.py")


def test_flags_between_backticks_are_some_programs():
    """`--tiles=1024` in prose says of no program by itself which it belongs to."""
    programs = [*ROOT.glob("mrcnn_tf/*.py"), *ROOT.glob("data_prep/*.py")]
    programs += [*ROOT.glob("benchmarks/*.py"), ROOT / "tests/fuzz/run.py"]
    known = set().union(*map(commands.flags_of, programs), *_FLAGS_OF_OTHERS.values())
    for page in pages.all_pages():
        if page.path == "CHANGELOG.md":
            continue
        of_others = _FLAGS_IN_PROSE.get(page.path, set())
        found = set()
        for line, span in page.spans():
            for name in re.findall(r"(?<![\w-])--([a-z][\w-]*)", span):
                found.add(name)
                if name not in known | of_others:
                    raise AssertionError(f"{page.path}:{line}: no program has --{name}: `{span}`")
        assert of_others <= found, f"{page.path} does not speak of {sorted(of_others - found)}"


def matching(pattern: str) -> set[str]:
    found = {pattern} & KEYS
    return found or {key for key in KEYS if fnmatch.fnmatchcase(key, pattern.replace("[", "[[]"))}


def test_every_command_is_run_by_a_test_or_has_a_reason():
    explained = set().union(*map(matching, [*listed.RUN_BY, *listed.NOT_RUN]))
    of_pytest = {key for key in KEYS if re.match(r"(?:\S*python -m )?pytest\b", key)}
    for command in COMMANDS:
        assert command.key in explained | of_pytest, (
            f"{command.where}: list it in tests/docs/listed.py: {command.key!r}"
        )


def test_the_list_has_nothing_that_is_not_written_any_more():
    for pattern in [*listed.RUN_BY, *listed.NOT_RUN]:
        assert matching(pattern), f"tests/docs/listed.py: no page has {pattern!r}"
    for page in listed.BASH:
        assert any(block.language == "bash" for block in pages.read(page).blocks), page
    for block in pages.all_blocks("bash"):
        assert block.page in listed.BASH, f"{block.where}: list it in tests/docs/listed.py"


def _text_of_test(path: pathlib.Path) -> str:
    """A test's file, with what its folder and it share with others."""
    text = path.read_text("utf-8")
    files = {path, path.parent / "conftest.py"}
    for module in re.findall(r"^(?:from|import) (tests[\w.]*)(?: import ([\w, ]+))?", text, re.M):
        base = ROOT / module[0].replace(".", "/")
        files |= {base.with_suffix(".py")}
        files |= {base / f"{name.strip()}.py" for name in module[1].split(",")}
    return "\n".join(file.read_text("utf-8") for file in sorted(files) if file.is_file())


@pytest.mark.parametrize("key", listed.RUN_BY)
def test_the_named_test_is_there_and_says_program_and_flags(key):
    file, _, name = listed.RUN_BY[key].partition("::")
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    program, *flags = key.split()
    if not program.endswith(".py") or file == "tests/docs/test_typed.py":  # types it as it stands
        return
    text = _text_of_test(ROOT / file)
    assert re.search(rf"\b{pathlib.Path(program).stem.replace('_', '[_-]')}\b", text), program
    for flag in flags:
        assert re.search(rf"\b{flag.removeprefix('--')}\b", text), flag


def test_files_and_extras_that_pip_is_asked_for_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for command in COMMANDS:
        if "pip" not in command.words[0] or "install" not in command.words:
            continue
        for word in command.words:
            if word.startswith("requirements"):
                assert (ROOT / word).is_file(), command.where
            for extras in re.findall(r"(?:mrcnn-tf|\.)\[([\w,]+)\]", word):
                unknown = set(extras.split(",")) - set(project["optional-dependencies"])
                assert not unknown, f"{command.where}: {unknown}"


def test_targets_of_make_and_files_of_pytest_are_there():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for command in COMMANDS:
        if command.words[0] == "make":
            assert command.words[1] in phony.split(), command.where
        if "pytest" in command.words:
            for word in command.words:
                assert not word.startswith("tests") or (ROOT / word).exists(), command.where


def test_the_test_command_of_the_readme_is_what_ci_runs():
    typed = {command.key for command in COMMANDS if command.where.startswith("README.md:")}
    assert "make test" in typed
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text("utf-8")
