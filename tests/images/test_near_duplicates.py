import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mrcnn_tf.images import near_duplicates, reading


def photo(seed: int, height: int = 240, width: int = 320) -> Image.Image:
    """A picture with structure at all scales, as photos have it: noise whose power is 1 / f^2."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.normal(size=(height, width, 3)), axes=(0, 1))
    pixels = np.fft.ifft2(spectrum / frequency[..., None], axes=(0, 1)).real
    pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def hash_of(image: Image.Image) -> int:
    return near_duplicates.hash_of(np.asarray(image))


CHANGES = {
    "smaller": lambda image: image.resize((100, 75)),
    "stretched": lambda image: image.resize((320, 320)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "cropped": lambda image: image.crop((4, 3, 316, 237)),
    "shifted": lambda image: image.crop((4, 4, 320, 240)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_altered_copies_are_alike(change):
    for seed in range(10):
        image = photo(seed)
        assert distance(hash_of(CHANGES[change](image)), hash_of(image)) <= 10, seed


def test_other_pictures_are_not():
    hashes = [hash_of(photo(seed)) for seed in range(60)]
    apart = [distance(a, b) for k, a in enumerate(hashes) for b in hashes[:k]]
    assert min(apart) > near_duplicates.MAX_DISTANCE
    assert 30 < np.mean(apart) < 34


def test_bits_by_hand():
    # Dark on the left, bright on the right: of the frequencies along one axis, only the odd
    # horizontal ones are there, of signs -, +, -, +, ...; the vertical and mixed ones are 0.
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    rows, columns = near_duplicates._LOWEST
    bits = f"{hash_of(Image.fromarray(pixels)):064b}"
    ones = [(r, c) for r, c, bit in zip(rows, columns, bits, strict=True) if bit == "1"]
    assert ones == [(0, 3), (0, 7)]
    assert len({*zip(rows, columns, strict=True)}) == 64
    assert (rows + columns).max() == 10
    assert (rows + columns).min() == 1
    assert hash_of(Image.new("RGB", (50, 40), "white")) == 0


def test_of_a_file_as_of_its_pixels(tmp_path):
    image = photo(3, 900, 1200)
    for name in ("a.jpg", "b.png", "c.bmp"):
        image.save(tmp_path / name)
        assert distance(near_duplicates.hash_of(tmp_path / name), hash_of(image)) <= 2


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_files_are_turned_upright(tmp_path, name):
    image = photo(4)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / name, exif=exif)
    assert distance(near_duplicates.hash_of(tmp_path / name), hash_of(image)) <= 2


def test_unusable_files(tmp_path):
    with pytest.raises(reading.UnusableImageError):
        near_duplicates.hash_of(tmp_path / "absent.jpg")
    photo(0).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    with pytest.raises(reading.UnusableImageError):
        near_duplicates.hash_of(tmp_path / "cut.jpg")


def test_groups_are_chains():
    hashes = [0b0, 0xFFFF << 40, 0b111, 0b11111, 0xFFFE << 40, 2**64 - 1]
    assert near_duplicates.groups(hashes, 3) == [[0, 2, 3], [1, 4], [5]]
    assert near_duplicates.groups(hashes, 1) == [[0], [1, 4], [2], [3], [5]]
    assert near_duplicates.groups([], 3) == []


def test_groups_equal_a_union_of_all_pairs():
    rng = np.random.default_rng(0)
    hashes = [int(bits) for bits in rng.integers(0, 2**12, 200)]
    group_of = list(range(len(hashes)))
    for k, a in enumerate(hashes):
        for j, b in enumerate(hashes):
            if distance(a, b) <= 1:
                group_of = [group_of[j] if g == group_of[k] else g for g in group_of]
    want = [[k for k, g in enumerate(group_of) if g == name] for name in dict.fromkeys(group_of)]
    assert near_duplicates.groups(hashes, 1) == want
