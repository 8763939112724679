"""Proposal files: there and back, refused where they do not belong, joined to batches."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import augment, canvases, pipeline, record_files, schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.staged import proposals
from mrcnn_tf.staged.proposal_writer import ProposalWriter, quantise

LABEL_MAP = LabelMap((1, 7, 90), ("one", "seven", "ninety"))


def batch_of(per_image, sizes, count=6, scale=1.0):
    """Arguments of `add` of {id: yxyx boxes in stored pixels, best first} and {id: (h, w)}."""
    rows = len(per_image)
    source_id = np.zeros([rows, schema.SOURCE_ID_BYTES], np.uint8)
    boxes = np.full([rows, count, 4], np.nan, np.float32)  # whatever lies in padded rows
    valid = np.zeros([rows, count], bool)
    for b, (image_id, found) in enumerate(per_image.items()):
        source_id[b, : len(image_id.encode())] = np.frombuffer(image_id.encode(), np.uint8)
        boxes[b, : len(found)] = np.asarray(found, np.float32).reshape(-1, 4) * scale
        valid[b, : len(found)] = True
    hw = np.float32([sizes.get(image_id, (1, 1)) for image_id in per_image])
    return {
        "source_id": source_id,
        "image_size_hw": hw * scale,
        "original_size_hw": hw,
        "boxes": boxes,
        "scores": np.where(valid, 1e6 - np.arange(count), -np.inf),
        "valid": valid,
    }


@pytest.fixture
def scenes(scene_type):
    """Images with one to three filled rectangles, which a crop cuts to rectangles."""
    made = []
    for k, (h, w) in enumerate([(40, 60), (60, 40), (50, 50), (40, 60), (33, 47)]):
        rng = np.random.default_rng(k)
        masks = np.zeros([k % 3 + 1, h, w], bool)
        for mask in masks:
            y, x = rng.integers(0, [h - 15, w - 15])
            mask[y : y + rng.integers(8, 15), x : x + rng.integers(8, 15)] = True
        image = rng.integers(0, 256, [h, w, 3], dtype=np.uint8)
        made.append(scene_type(image, masks, [1] * len(masks), [False] * len(masks), f"ü-{k}"))
    return made


def sizes_of(scenes):
    return {scene.source_id: scene.image.shape[:2] for scene in scenes}


@pytest.fixture
def write(tmp_path):
    """`write(scenes, pattern, found)` -> folder; by default each object's box is a proposal."""

    def write(scenes, pattern, found=None, name="found"):
        found = found or {scene.source_id: scene.boxes for scene in scenes}
        folder = str(tmp_path / name)
        with ProposalWriter(folder, {"rpn": "a"}, record_files.find(pattern)) as writer:
            for scene in reversed(scenes):
                one = {scene.source_id: found[scene.source_id], "": []}
                writer.add(**batch_of(one, sizes_of(scenes), scale=2.0))
        return folder

    return write


def test_rounding_moves_an_edge_by_half_a_step_at_most():
    """0.005 pixels at 640, 0.01 at 1333, as `proposals.py` says; rounding again changes nothing."""
    rng = np.random.default_rng(0)
    for side, most in ((640, 0.005), (1333, 0.0103)):
        boxes = np.sort(rng.uniform(0, side, [5000, 2, 2]), axis=1).reshape(-1, 4)
        size_hw = np.array([side, side])
        steps = quantise(boxes, size_hw)
        pixels = proposals.to_pixels(tf.constant(steps), tf.constant(size_hw, tf.int32)).numpy()
        assert most / 2 < np.abs(pixels - boxes).max() < most
        np.testing.assert_array_equal(quantise(pixels, size_hw), steps)
    edges = quantise(np.array([[0, -3, 480, 700.0]]), np.array([480, 641]))
    assert edges.tolist() == [[0, 0, 65535, 65535]]
    for size in ([480, 641], [7, 1333], [65535, 3]):
        pixels = proposals.to_pixels(tf.constant(edges), tf.constant(size)).numpy()
        np.testing.assert_array_equal(pixels[0, 2:], np.float32(size))


def test_written_and_read(scenes, write_records, write, tmp_path):
    found = {scene.source_id: scene.boxes for scene in scenes} | {"ü-1": []}
    # Thinner than a step: nothing; a tenth of a pixel: something.
    found["ü-2"] = [(5, 5, 5.0003, 30), (1, 2, 3.5, 4.25), (9, 9, 9.1, 9.1)]
    folder = write(scenes, write_records(scenes), found)
    reader = proposals.ProposalReader(folder)
    assert reader.meta["made_from"] == {"rpn": "a"}
    assert (reader.meta["num_images"], reader.meta["num_per_image"]) == (5, 6)
    for scene in scenes:
        size = np.array(scene.image.shape[:2])
        steps = reader.lookup(scene.source_id.encode(), size)
        assert steps.dtype == np.uint16
        want = found[scene.source_id]
        want = np.asarray(want[1:] if scene.source_id == "ü-2" else want).reshape(-1, 4)
        np.testing.assert_allclose(steps / 65535 * np.tile(size, 2), want, atol=0.0006)
    scores = np.load(tmp_path / "found" / "scores.npy")
    assert (scores == np.float16(65504)).all()  # as large as float16 can be
    assert len(scores) == reader.meta["num_boxes"] == sum(len(f) for f in found.values()) - 1
    assert not (tmp_path / "found.partial").exists()


def test_no_proposals_at_all(scenes, write_records, write):
    folder = write(scenes, write_records(scenes), {scene.source_id: [] for scene in scenes})
    reader = proposals.ProposalReader(folder)
    assert reader.lookup(b"\xc3\xbc-0", np.array([40, 60])).shape == (0, 4)


def test_what_was_interrupted_is_not_there(scenes, write_records, write, tmp_path):
    pattern = write_records(scenes)
    before = write(scenes, pattern)
    old = proposals.ProposalReader(before).meta
    with pytest.raises(KeyError):
        write(scenes, pattern, found={"ü-4": []})
    assert proposals.ProposalReader(before).meta == old  # what was whole still is
    with pytest.raises(KeyError):
        write(scenes, pattern, {"ü-4": []}, name="other")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["found"]
    (tmp_path / "other.partial").mkdir()  # killed with no chance to tidy up
    (tmp_path / "other.partial" / "boxes.npy").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="write_proposals makes them"):
        proposals.ProposalReader(str(tmp_path / "other"))
    proposals.ProposalReader(write(scenes, pattern, name="other"))


def test_some_images_only_are_no_folder(scenes, write_records, write, tmp_path):
    with pytest.raises(ValueError, match="of 3 images were added, but there are 5 records"):
        write(scenes[:3], write_records(scenes))
    assert not (tmp_path / "found").exists()


def test_a_folder_of_something_else_is_left_alone(scenes, write_records, write, tmp_path):
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="is no folder of proposals"):
        write(scenes, write_records(scenes))
    assert (tmp_path / "found" / "photo.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.full([1, 6], np.nan)}, "image 'ü-0': a proposal's box or score is not fin"),
        ({}, "image 'ü-0' was added before"),
    ],
)
def test_wrong_batches_are_refused(scenes, write_records, tmp_path, change, message):
    files = record_files.find(write_records(scenes))
    given = batch_of({"ü-0": [(1, 2, 3, 4)]}, sizes_of(scenes))

    def add_twice():
        with ProposalWriter(str(tmp_path / "found"), {}, files) as writer:
            writer.add(**(given | change))
            writer.add(**given)

    with pytest.raises(ValueError, match=message):
        add_twice()
    assert not list(tmp_path.glob("found*"))


def test_damaged_folders_are_refused(scenes, write_records, write, tmp_path):
    pattern = write_records(scenes)
    folder = write(scenes, pattern)
    other = write(scenes, pattern, {scene.source_id: [] for scene in scenes}, name="other")
    meta = tmp_path / "found" / "meta.json"
    good = meta.read_text()
    meta.write_text(json.dumps(json.loads(good) | {"format_version": 2}))
    with pytest.raises(ValueError, match="format version 2, this reads 1"):
        proposals.ProposalReader(folder)
    meta.write_text(good)
    (tmp_path / "found" / "boxes.npy").write_bytes((tmp_path / "other" / "boxes.npy").read_bytes())
    with pytest.raises(ValueError, match="do not belong together"):
        proposals.ProposalReader(folder)
    proposals.ProposalReader(other)


def test_records_are_counted_without_reading_them(scenes, write_records, tmp_path):
    files = record_files.find(write_records(scenes, 3))
    tf.io.TFRecordWriter(str(tmp_path / "empty")).close()
    assert record_files.count_records([*files, str(tmp_path / "empty")]) == 5
    (first, *_) = record_files.sample_images(files, count=1)
    assert (first.source_id.decode(), first.size_hw) == ("ü-0", (40, 60))
    assert len(list(record_files.sample_images(files, count=3))) == 3


def test_proposals_of_other_records_are_refused_before_training(
    scenes, scene_type, write_records, write, tmp_path
):
    pattern = write_records(scenes, 3)
    folder = write(scenes, pattern)
    _build(pattern, folder)

    def rewrite(changed):
        for file in tmp_path.glob("set-*"):
            file.unlink()
        return write_records(changed, 1)

    def refused(changed, message):
        with pytest.raises(ValueError, match=message) as error:
            _build(rewrite(changed), folder)
        assert folder in str(error.value)

    _build(rewrite(scenes[:4]), folder)  # some of them, in other files

    changes = {"masks": scenes[3].masks, "categories": [1], "crowds": [False]}
    more = scene_type(scenes[3].image, **changes, source_id="new")
    refused([*scenes, more], "of 5 images, but there are 6 records")
    refused([*scenes[:3], more], "image 'new' has no entry in")
    turned = scene_type(np.zeros([60, 40, 3], np.uint8), **changes, source_id="ü-3")
    turned.masks = np.ones([1, 60, 40], bool)
    refused([turned], "image 'ü-3' is 60 x 40 pixels .* but was 40 x 60")
    same_size = scene_type(scenes[3].image // 2, **changes, source_id="ü-3")
    refused([*scenes[:3], same_size], "image 'ü-3' of .* is not the image of this id")
    with pytest.raises(FileNotFoundError, match="no proposals in 'nowhere'"):
        _build(rewrite(scenes), "nowhere")


def test_an_image_without_an_entry_is_named_when_its_turn_comes(
    scenes, write_records, write, tmp_path, monkeypatch
):
    """Where the look at some records did not find it."""
    folder = write(scenes[:4], write_records(scenes[:4]))
    pattern = write_records(scenes[1:])
    monkeypatch.setattr(record_files, "sample_images", lambda files: [])
    for is_training in (False, True):
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            _read(_build(pattern, folder, is_training).take(20))
        assert f"image 'ü-4' has no entry in {folder}, which holds the prop" in str(error.value)


def _build(pattern, folder, is_training=False, num_proposals=6, **replaced):
    arguments = {
        "label_map": LABEL_MAP,
        "is_training": is_training,
        "per_replica_batch_size": 2,
        "num_replicas": 1,
        "seed": 5,
        "short_edges": (48, 64) if is_training else (64,),
        "long_edge": 96,
        "canvas_sizes": canvases.make((48, 64), 96),
        "resize_convention": "detectron2",
        "channel_order": "rgb",
        "pixel_mean": (0.0, 0.0, 0.0),
        "pixel_std": (1.0, 1.0, 1.0),
        "flip_probability": 0.5,
        "scale_jitter": (),
        "color_jitter": augment.ColorJitter(0.0, 0.0, 0.0, 0.0),
        "max_instances": 4,
        "mask_arena_pixels": 2**15,
        "proposals": proposals.ProposalReader(str(folder)) if folder else None,
        "num_proposals": num_proposals,
    }
    # TensorFlow mixes its global seed, which other tests set, into the order of the images.
    tf.random.set_seed(87654321)
    return pipeline.build(pattern, **(arguments | replaced))


def _read(dataset):
    return list(dataset.as_numpy_iterator())


def test_evaluation_gives_every_image_its_proposals(scenes, write_records, write):
    pattern = write_records(scenes)
    found = {scene.source_id: [*scene.boxes, (0, 0, 9, 9)] for scene in scenes} | {"ü-1": []}
    dataset = _build(pattern, write(scenes, pattern, found))
    spec = dataset.element_spec
    assert spec[schema.PROPOSAL_BOXES] == tf.TensorSpec([2, 6, 4], tf.float32)
    assert spec[schema.PROPOSALS_VALID] == tf.TensorSpec([2, 6], tf.bool)
    seen = set()
    for batch in _read(dataset):
        for k, row in enumerate(batch[schema.SOURCE_ID]):
            image_id = bytes(row).rstrip(b"\0").decode()
            seen.add(image_id)
            want = np.reshape(found.get(image_id, []), [-1, 4])  # of a filler: none
            assert batch[schema.PROPOSALS_VALID][k].tolist() == [i < len(want) for i in range(6)]
            scale = np.tile(batch[schema.IMAGE_SIZE_HW][k] / batch[schema.ORIGINAL_SIZE_HW][k], 2)
            boxes = batch[schema.PROPOSAL_BOXES][k]
            np.testing.assert_allclose(boxes[: len(want)], want * scale, atol=2e-3)
            assert not boxes[len(want) :].any()
    assert seen == {scene.source_id for scene in scenes} | {""}


@pytest.mark.parametrize("jitter", [(), (0.3, 3.0)])
def test_proposals_move_with_the_objects(scenes, write_records, write, jitter):
    """Each object's box is a proposal, and a crop leaves of both the same or nothing."""
    pattern = write_records(scenes)
    sizes = {"canvas_sizes": canvases.square(96), "scale_jitter": jitter} if jitter else {}
    batches = _read(_build(pattern, write(scenes, pattern), True, **sizes).take(40))
    flipped = cut = 0
    for batch in batches:
        counts = batch[schema.GT_VALID].sum(axis=1)
        np.testing.assert_array_equal(batch[schema.PROPOSALS_VALID].sum(axis=1), counts)
        for k, count in enumerate(counts):
            boxes = batch[schema.GT_BOXES][k, :count]
            np.testing.assert_allclose(
                batch[schema.PROPOSAL_BOXES][k, :count], boxes, atol=2e-3 * max(jitter or [1])
            )
            frames = batch[schema.GT_MASK_FRAMES][k, :count]
            flipped += (frames[:, 1] > frames[:, 3]).sum()
            ends = np.stack([frames[:, 0], frames[:, [1, 3]].min(axis=1)], axis=1)
            # A shrunk mask is sampled anew, which moves its frame by up to a pixel.
            cut += (np.abs(ends - boxes[:, :2]) > 1.5).any(axis=1).sum()
    assert flipped > 20
    assert cut > 10 if jitter else cut == 0


def test_the_best_are_kept_of_those_that_a_crop_leaves(scenes, write_records, write):
    """The best is in the far corner, which most crops leave out, the next is the image."""
    pattern = write_records(scenes)
    sizes = sizes_of(scenes)
    found = {i: [(h - 3, w - 3, h, w), (0, 0, h, w), (0, 0, h, 9)] for i, (h, w) in sizes.items()}
    folder = write(scenes, pattern, found)
    replaced = {"canvas_sizes": canvases.square(96), "scale_jitter": (2.0, 3.0)}
    replaced |= {"flip_probability": 0.0}
    batches = _read(_build(pattern, folder, True, num_proposals=1, **replaced).take(20))
    boxes = np.concatenate([batch[schema.PROPOSAL_BOXES][:, 0] for batch in batches])
    whole = np.isclose(boxes, [0, 0, 96, 96], atol=1e-4).all(axis=1)
    corner = (boxes[:, 0] > 50) & np.isclose(boxes[:, 2:], 96, atol=1e-4).all(axis=1)
    assert (whole | corner).all()
    assert whole.any()
    assert corner.any()
    assert all(batch[schema.PROPOSALS_VALID].all() for batch in batches)


def test_without_a_folder_a_batch_has_no_proposals(scenes, write_records):
    spec = _build(write_records(scenes), None).element_spec
    assert not {schema.PROPOSAL_BOXES, schema.PROPOSALS_VALID} & set(spec)
