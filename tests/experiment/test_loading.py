import textwrap

import pytest
import yaml

from mrcnn_tf.experiment import loading, overrides
from mrcnn_tf.experiment.experiment import Experiment


def write(folder, name, text):
    (folder / f"{name}.yaml").write_text(textwrap.dedent(text))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "small", "task: {model: {backbone: {depth: 101}}}")
    return tmp_path


@pytest.mark.parametrize("name", loading.names())
def test_every_experiment_loads_under_its_name(name):
    assert loading.load(name).task.name == name


def test_the_papers_numbers_are_the_default():
    """Section 3.1 of the paper, sentence by sentence."""
    experiment = loading.load("maskrcnn_r50_fpn")
    model, trainer = experiment.task.model, experiment.trainer
    assert model.box_head.positive_iou == 0.5
    assert model.box_head.rois_per_image == 512
    assert model.box_head.positive_fraction == 0.25
    assert model.mask_head.mask_size == 28
    assert list(experiment.task.train_data.short_edges) == [800]
    assert experiment.task.train_data.images_per_replica == 2
    assert trainer.reference_batch_size == 16
    assert trainer.train_steps == 160_000
    learning_rate = trainer.optimizer_config.learning_rate.get()
    assert list(learning_rate.boundaries) == [120_000]
    assert list(learning_rate.values) == [0.02, 0.002]
    assert trainer.optimizer_config.optimizer.get().momentum == 0.9
    assert trainer.weight_decay == 0.0001
    assert len(model.rpn.anchor_sizes) == 5
    assert len(model.rpn.anchor_ratios) == 3
    assert model.rpn.post_nms_top_k_test == 1000
    assert model.max_instances == 100


def test_the_papers_numbers_for_resnext():
    """1 image per GPU on 8 of them, from 0.01, as many iterations (section 3.1)."""
    for name, groups, width in (("32x8d", 32, 8), ("64x4d", 64, 4)):
        experiment = loading.load(f"maskrcnn_x101_{name}_fpn")
        backbone, trainer = experiment.task.model.backbone, experiment.trainer
        assert (backbone.depth, backbone.groups, backbone.width_per_group) == (101, groups, width)
        assert not backbone.stride_in_1x1
        assert experiment.task.train_data.images_per_replica == 1
        assert trainer.reference_batch_size == 8
        assert trainer.train_steps == 160_000
        learning_rate = trainer.optimizer_config.learning_rate.get()
        assert list(learning_rate.boundaries) == [120_000]
        assert list(learning_rate.values) == [0.01, 0.001]


# What differs from the base that table 2 and section 4.2 compare with, and nothing else.
TABLE_2 = {
    "maskrcnn_r50_c4_softmax": ("maskrcnn_r50_c4", {"mask_head.classes": "softmax"}),
    "maskrcnn_r50_c4_agnostic": ("maskrcnn_r50_c4", {"mask_head.classes": "agnostic"}),
    "maskrcnn_r50_c4_roipool": (
        "maskrcnn_r50_c4",
        {"roi_align.type": "roi_pool", "roi_align.aggregate": "max"},
    ),
    "maskrcnn_r50_c4_roiwarp_max": (
        "maskrcnn_r50_c4",
        {"roi_align.type": "roi_warp", "roi_align.aggregate": "max"},
    ),
    "maskrcnn_r50_c4_roiwarp_ave": ("maskrcnn_r50_c4", {"roi_align.type": "roi_warp"}),
    "maskrcnn_r50_c4_roialign_max": ("maskrcnn_r50_c4", {"roi_align.aggregate": "max"}),
    "maskrcnn_r50_c5_roipool": (
        "maskrcnn_r50_c5",
        {"roi_align.type": "roi_pool", "roi_align.aggregate": "max"},
    ),
    "maskrcnn_r50_fpn_mlp2": ("maskrcnn_r50_fpn", {"mask_head.type": "mlp"}),
    "maskrcnn_r50_fpn_mlp3": (
        "maskrcnn_r50_fpn",
        {"mask_head.type": "mlp", "mask_head.fc_layers": 3},
    ),
}


@pytest.mark.parametrize("name", TABLE_2)
def test_a_line_of_table_2_differs_from_its_base_in_what_it_compares(name):
    base, differs = TABLE_2[name]
    ours, theirs = loading.load(name), loading.load(base)
    ours.task.name = theirs.task.name
    for field, value in differs.items():
        group, leaf = field.split(".")
        assert getattr(getattr(ours.task.model, group), leaf) == value
        setattr(getattr(theirs.task.model, group), leaf, value)
    assert ours.as_dict() == theirs.as_dict()


def test_large_scale_jitter_as_detectron2_published_it():
    experiment = loading.load("maskrcnn_r50_fpn_lsj")
    data, trainer = experiment.task.train_data, experiment.trainer
    assert list(data.scale_jitter) == [0.1, 2.0]
    assert list(data.short_edges) == [data.long_edge] == [1024]
    assert data.flip_probability == 0.5
    assert experiment.task.validation_data.long_edge == 1333
    images = trainer.reference_batch_size * trainer.train_steps
    assert round(images / 118_000) == 100
    learning_rate = trainer.optimizer_config.learning_rate.get()
    assert list(learning_rate.values) == [0.1, 0.01, 0.001]


def test_from_scratch_with_group_norm_as_detectron2_published_it():
    experiment = loading.load("maskrcnn_r50_fpn_gn_scratch")
    model, trainer = experiment.task.model, experiment.trainer
    parts = (model.backbone, model.fpn, model.box_head, model.mask_head)
    assert {part.norm for part in parts} == {"group_norm"}
    assert (model.backbone.weights, model.backbone.freeze_at) == ("", 0)
    assert trainer.reference_batch_size * trainer.train_steps == 9 * 16 * 90_000
    assert trainer.optimizer_config.learning_rate.get().values[0] == 0.08
    assert experiment.task.train_data.flip_probability == 0.5


def test_copy_paste_is_as_its_authors_have_it_and_off_elsewhere():
    plain = loading.load("maskrcnn_r50_fpn_lsj").task.train_data
    pasting = loading.load("maskrcnn_r50_fpn_lsj_copypaste").task.train_data
    assert plain.copy_paste.probability == 0
    assert vars(pasting.copy_paste) == {
        "probability": 1.0,
        "min_pixels": 300,
        "max_box_shift": 10.0,
    }
    pasting.copy_paste = plain.copy_paste
    assert pasting == plain


def test_later_layers_win(folder, tmp_path):
    (tmp_path / "more.yaml").write_text("task.model.fpn.channels: 64\ntrainer.train_steps: 7\n")
    experiment = loading.load(
        "small", [str(tmp_path / "more.yaml")], "trainer.train_steps=9", folder
    )
    assert experiment.task.model.backbone.depth == 101
    assert experiment.task.model.fpn.channels == 64
    assert experiment.trainer.train_steps == 9


def test_an_experiment_states_its_difference_to_its_base(folder):
    write(folder, "wide", "base: small\ntask.model.fpn.channels: 64")
    write(
        folder, "wider", "base: wide\ntask: {model: {fpn: {channels: 96}}}\ntrainer.train_steps: 7"
    )
    model = loading.load("wide", folder=folder).task.model
    assert (model.backbone.depth, model.fpn.channels) == (101, 64)
    experiment = loading.load("wider", folder=folder)
    assert experiment.task.name == "wider"
    assert experiment.task.model.backbone.depth == 101
    assert experiment.task.model.fpn.channels == 96
    assert experiment.trainer.train_steps == 7
    assert loading.load("wider", (), "trainer.train_steps=8", folder).trainer.train_steps == 8


def test_a_preset_of_the_base_lies_below_the_whole_chain(folder):
    write(folder, "bottom", "task.model: {preset: detectron2, rpn: {smooth_l1_beta: 0.5}}")
    write(folder, "top", "base: bottom\ntask.model.box_head.smooth_l1_beta: 0.25")
    model = loading.load("top", folder=folder).task.model
    assert model.rpn.post_nms_top_k_train == 1000
    assert (model.rpn.smooth_l1_beta, model.box_head.smooth_l1_beta) == (0.5, 0.25)


@pytest.mark.parametrize("text", ["", "# all of it was commented out\n"])
def test_an_empty_file_is_no_experiment(folder, text):
    """A run's params.yaml that was emptied would otherwise be all defaults."""
    write(folder, "nothing", text)
    with pytest.raises(ValueError, match=r"nothing.yaml: this file is empty"):
        loading.load("nothing", folder=folder)


def test_an_unknown_base_is_named_with_the_file_that_wants_it(folder):
    write(folder, "orphan", "base: nobody")
    with pytest.raises(ValueError, match=r"orphan.yaml: base: unknown experiment 'nobody'.*small"):
        loading.load("orphan", folder=folder)


def test_bases_in_a_circle_are_refused(folder):
    write(folder, "a", "base: b")
    write(folder, "b", "base: c")
    write(folder, "c", "base: a")
    write(folder, "self", "base: self")
    for name in ("a", "self"):
        with pytest.raises(ValueError, match="base: the experiment is based on itself"):
            loading.load(name, folder=folder)


def test_a_preset_lies_below_what_the_experiment_says(folder):
    override = "task.model.preset=torchvision,task.init_checkpoint=x"
    model = loading.load("small", params_override=override, folder=folder).task.model
    assert model.pixels.order == "rgb"
    assert model.backbone.norm_epsilon == 0.0
    override += ",task.model.backbone.norm_epsilon=1e-5"
    model = loading.load("small", params_override=override, folder=folder).task.model
    assert model.backbone.norm_epsilon == 1e-5
    assert model.roi_align.aligned is False


@pytest.mark.parametrize(
    ("text", "nested"),
    [
        ("a.b=1,a.c=[2,3],d='x,y'", {"a": {"b": 1, "c": [2, 3]}, "d": "x,y"}),
        ("{a: {b: 1}, a.c: 2}", {"a": {"b": 1, "c": 2}}),
        ('{"a": {"b": true}}', {"a": {"b": True}}),
        ("a.b=1e-4", {"a": {"b": "1e-4"}}),
        ("\n  a.b={c: 1, d: 2},\n  e=x\n", {"a": {"b": {"c": 1, "d": 2}}, "e": "x"}),
    ],
)
def test_forms_of_params_override(text, nested):
    assert overrides.parse_override(text) == nested


@pytest.mark.parametrize("text", ["nonsense", "a=1,b", "[1, 2]"])
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError, match="params_override"):
        overrides.parse_override(text)


def test_a_field_cannot_be_a_value_and_a_group():
    with pytest.raises(ValueError, match="a.b.c: b is set to 1, which has no fields"):
        overrides.parse_override("a.b=1,a.b.c=2")


def test_unknown_experiment_lists_the_known_ones(folder):
    with pytest.raises(ValueError, match=r"unknown experiment 'big'(.|\n)*small"):
        loading.load("big", folder=folder)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.train_stepps=3", "did you mean trainer.train_steps"),
        ("task.model.backbone.dept=50", "did you mean task.model.backbone.depth"),
        ("trainer.train_steps=abc", r"trainer.train_steps must be int, got 'abc' \(str\)"),
        ("trainer.train_steps=1.5", "must be int, got 1.5"),
        ("trainer.train_steps=true", "must be int, got True"),
        ("trainer.weight_decay=much", "must be float, got 'much'"),
        ("task.model.rpn.anchor_sizes=[1,2,x,4,5]", "must be float, got 'x'"),
        ("task.model.rpn.anchor_sizes=32", "anchor_sizes must be"),
        ("task.model.backbone=50", "needs fields of its own"),
        ("task.model.ignore_crowds=1", "must be bool, got 1"),
        ("trainer.optimizer_config.optimizer.sgd.momentun=0.5", "did you mean"),
    ],
)
def test_names_and_types_are_checked(folder, override, message):
    with pytest.raises(ValueError, match=message):
        loading.load("small", params_override=override, folder=folder)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.model.preset=caffe", "preset: got 'caffe', allowed are"),
        ("task.model.backbone.depth=51", "depth: got 51, allowed are 18, 34, 50, 101, 152"),
        ("task.model.rpn.anchor_sizes=[32,64]", "one size for each of P2..P6"),
        ("task.model.backbone.depth=18", "'imagenet' exists for depth 50, 101 and 152"),
        ("task.model.backbone.weights=''", "frozen_batch_norm' over random weights"),
        (
            "task.model.backbone.weights='',task.model.backbone.norm=group_norm",
            "would freeze random weights",
        ),
        ("task.model.pixels.order=rgb", "want pixels.order: bgr"),
        ("task.train_data.short_edges=[]", "must not be empty"),
        ("task.train_data.short_edges=[2000]", "exceed long_edge 1333"),
        ("trainer.train_steps=0", "trainer.train_steps: got 0, needs 1 or more"),
        ("task.train_data.scale_jitter=[2]", r"scale_jitter: got \(2.0,\), needs \(smallest"),
        ("task.train_data.scale_jitter=[2,1]", "scale_jitter: got"),
        ("task.train_data.scale_jitter=[0,1]", r"scale_jitter: got \(0.0, 1.0\), each needs more"),
        (
            "task.train_data.scale_jitter=[1,2],task.train_data.canvas=exact",
            "scale_jitter: needs canvas: bucket, not 'exact'",
        ),
        ("task.train_data.color_jitter.hue=0.6", "hue: got 0.6, needs 0 to 0.5"),
        ("task.train_data.color_jitter.contrast=-1", "contrast: got -1.0, needs 0 to 1"),
        (
            "task.train_data.enable_tf_data_service=true",
            "train_data.tf_data_service_address: enable_tf_data_service needs the address",
        ),
        (
            "task.train_data.tf_data_service_address='grpc://a:1'",
            "tf_data_service_address: 'grpc://a:1' would not be read: set task.train_data.enable",
        ),
        (
            "task.train_data.enable_tf_data_service=true,runtime.deterministic=true,"
            "task.train_data.tf_data_service_address='a:1'",
            "runtime.deterministic: the order in which the workers of a tf.data service send",
        ),
        (
            "task.validation_data.enable_tf_data_service=true",
            "validation_data.enable_tf_data_service: is for training",
        ),
        (
            "task.model.proposals=file,task.train_data.proposals=p,task.validation_data.proposals=p,"
            "task.train_data.enable_tf_data_service=true,"
            "task.train_data.tf_data_service_address='a:1'",
            r"proposals from a folder \('p'\) are joined in the process that trains",
        ),
        (
            "task.train_data.enable_tf_data_service=true,task.train_data.skip_corrupt_records=1,"
            "task.train_data.tf_data_service_address='a:1'",
            "skip_corrupt_records: got 1, but what is left of a damaged file is copied",
        ),
        ("task.validation_data.scale_jitter=[1,2]", "validation_data: scale_jitter and color"),
        ("task.validation_data.color_jitter.hue=0.1", "are for training"),
        ("task.train_data.copy_paste.probability=1.5", "probability: got 1.5, needs 0 to 1"),
        ("task.train_data.copy_paste.min_pixels=-1", "min_pixels: got -1, needs 0 or more"),
        ("task.train_data.copy_paste.probability=1", "copy_paste: needs scale_jitter, with"),
        (
            "task.train_data={scale_jitter: [1, 2], mask_arena_pixels: 0, "
            "copy_paste: {probability: 1}}",
            "cut out by masks; mask_arena_pixels is 0",
        ),
        ("task.train_data.images_per_update=-2", "images_per_update: got -2, needs 0 or more"),
        ("task.validation_data.images_per_update=2", "no update in validation"),
        (
            "task.train_data.images_per_update=16,task.model.fpn.norm=sync_batch_norm",
            "with task.model.fpn.norm: sync_batch_norm the statistics would be",
        ),
        ("task.train_data.repeat_threshold=-0.1", "repeat_threshold: got -0.1, needs 0 to 1"),
        (
            "task.validation_data.repeat_threshold=0.001",
            "an evaluation needs every image exactly once",
        ),
        ("task.validation_data.copy_paste.probability=1", "validation_data.copy_paste: is for"),
    ],
)
def test_combinations_that_cannot_work_are_refused(folder, override, message):
    with pytest.raises(ValueError, match=message):
        loading.load("small", params_override=override, folder=folder)


def test_a_type_that_the_optimizer_does_not_have_by_default_is_known(folder):
    override = "trainer.optimizer_config.optimizer={type: adam, adam: {beta_1: 0.8}}"
    experiment = loading.load("small", params_override=override, folder=folder)
    assert experiment.trainer.optimizer_config.optimizer.get().beta_1 == 0.8


def test_schedule_follows_the_batch():
    """One GPU instead of eight: an eighth of the rate for eight times the steps."""
    experiment = loading.load("maskrcnn_r50_fpn")
    sentence = loading.scale_to_batch(experiment, 2)
    trainer = experiment.trainer
    assert trainer.train_steps == 1_280_000
    assert trainer.validation_interval == 160_000
    rate, warmup = (
        trainer.optimizer_config.learning_rate.get(),
        trainer.optimizer_config.warmup.get(),
    )
    assert list(rate.boundaries) == [960_000]
    assert list(rate.values) == pytest.approx([0.0025, 0.00025])
    assert warmup.warmup_steps == 4000
    assert warmup.warmup_learning_rate == pytest.approx(0.02 / 3 / 8)
    assert "160,000 -> 1,280,000" in sentence
    assert loading.scale_to_batch(loading.load("maskrcnn_r50_fpn"), 16) == ""


def test_saved_experiment_is_the_same_when_loaded(tmp_path):
    """Scaled to the batch once, not again."""
    experiment = loading.load("maskrcnn_r50_fpn")
    loading.scale_to_batch(experiment, 2)
    loading.save(experiment, str(tmp_path / "params.yaml"))
    again = loading.load(str(tmp_path / "params.yaml"))
    assert loading.scale_to_batch(again, 2) == ""
    assert loading._plain(again.as_dict()) == loading._plain(experiment.as_dict())


def test_params_of_earlier_releases_load(tmp_path):
    """Fields that are no longer needed are dropped, whatever they say."""
    experiment = loading.load("maskrcnn_r50_fpn")
    fields = loading._plain(experiment.as_dict())
    for data in ("train_data", "validation_data"):
        fields["task"][data] |= {"shuffle_buffer_size": 2000, "exact_resume": False}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(fields))
    again = loading.load(str(tmp_path / "params.yaml"))
    assert loading._plain(again.as_dict()) == loading._plain(experiment.as_dict())


def test_registered_for_model_gardens_factory(folder):
    from official.core import exp_factory

    loading.register(folder)
    assert isinstance(exp_factory.get_exp_config("small"), Experiment)


@pytest.mark.parametrize("text", ["/nowhere/x.yaml", "of/run 7.yml"])
def test_an_override_whose_file_is_not_there(text):
    with pytest.raises(ValueError, match=f"^{text}: this file is not there$"):
        loading.load("maskrcnn_r50_fpn", params_override=text)


@pytest.mark.parametrize("text", ["task.annotation_file: /x.yaml", "task.annotation_file=x.yaml"])
def test_an_override_that_ends_like_a_file_is_none(text):
    experiment = loading.load("maskrcnn_r50_fpn", params_override=text)
    assert experiment.task.annotation_file.endswith("x.yaml")


def test_the_precision_is_always_named():
    assert loading.load("maskrcnn_r50_fpn").runtime.mixed_precision_dtype == "float32"
    null = loading.load("maskrcnn_r50_fpn", params_override="runtime.mixed_precision_dtype=null")
    assert null.runtime.mixed_precision_dtype == "float32"
