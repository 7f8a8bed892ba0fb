import io

import jpeg_images
import numpy as np
import PIL.Image
import pytest

from spatial_smoothing.data import sources
from spatial_smoothing.data.images import decoding, image_files

BILINEAR = PIL.Image.Resampling.BILINEAR


def decoded(content):
    return PIL.Image.open(io.BytesIO(content)).convert("RGB")


# Size -> size after its shorter side is 256, and the corner of the 224 in the middle.
CENTRES = {
    (500, 375): ((341, 256), (58, 16)),
    (375, 500): ((256, 341), (16, 58)),
    (333, 500): ((256, 384), (16, 80)),
    (64, 48): ((341, 256), (58, 16)),
    (256, 256): ((256, 256), (16, 16)),
}


@pytest.mark.parametrize("size", CENTRES)
def test_centre_is_resized_and_cropped_as_by_hand(size):
    content = jpeg_images.encode(jpeg_images.image(1, size))
    resized, (left, top) = CENTRES[size]
    whole = np.asarray(decoded(content).resize(resized, BILINEAR))
    expected = whole[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(decoding.center_crop(content, size=224), expected)


def test_other_sizes_keep_the_proportion():
    content = jpeg_images.encode(jpeg_images.image(2, (400, 300)))
    whole = np.asarray(decoded(content).resize((97, 73), BILINEAR))
    expected = whole[4 : 4 + 64, 16 : 16 + 64]
    np.testing.assert_array_equal(decoding.center_crop(content, size=64), expected)
    whole = np.asarray(decoded(content).resize((85, 64), BILINEAR))
    np.testing.assert_array_equal(
        decoding.center_crop(content, size=64, resize=64), whole[:, 10:74]
    )


@pytest.mark.parametrize("seed", range(6))
def test_random_crop_is_its_box_resized_and_mirrored(seed):
    content = jpeg_images.encode(jpeg_images.image(seed, (440, 330)))
    rng = np.random.default_rng(seed)
    left, top, right, bottom = decoding.random_box(rng, 440, 330)
    box = np.asarray(decoded(content))[top:bottom, left:right]
    expected = np.asarray(PIL.Image.fromarray(box).resize((224, 224), BILINEAR))
    if rng.random() < 0.5:
        expected = expected[:, ::-1]
    found = decoding.random_crop(content, np.random.default_rng(seed), size=224)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_large_jpegs_are_decoded_smaller_and_look_the_same(seed):
    content = jpeg_images.encode(jpeg_images.image(1, (1000, 750)))
    rng = np.random.default_rng(seed)
    box = decoding.random_box(rng, 1000, 750)
    expected = decoded(content).crop(box).resize((224, 224), BILINEAR)
    if rng.random() < 0.5:
        expected = expected.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    found = decoding.random_crop(content, np.random.default_rng(seed), size=224)
    assert 0 < np.abs(found.astype(int) - np.asarray(expected)).mean() < 1


@pytest.mark.parametrize("seed", [1, 2, 4])
@pytest.mark.parametrize("turned", [False, True])
def test_other_large_images_are_their_box_resized(turned, seed):
    """Of noise, in which pixels beside the box would show."""
    noise = np.random.default_rng(9).integers(0, 256, (750, 1000, 3)).astype(np.uint8)
    picture, exif, kind = PIL.Image.fromarray(noise), PIL.Image.Exif(), "PNG"
    if turned:
        exif[0x0112], kind = 3, "JPEG"  # to be turned by 180 degrees
    content = jpeg_images.encode(picture, kind, exif=exif)
    pixels = np.asarray(decoded(content))
    rng = np.random.default_rng(seed)
    left, top, right, bottom = decoding.random_box(rng, 1000, 750)
    assert min(right - left, bottom - top) >= 2 * 64
    box = (pixels[::-1, ::-1] if turned else pixels)[top:bottom, left:right]
    expected = np.asarray(PIL.Image.fromarray(box).resize((64, 64), BILINEAR))
    if rng.random() < 0.5:
        expected = expected[:, ::-1]
    found = decoding.random_crop(
        content, np.random.default_rng(seed), size=64, upright=True
    )
    np.testing.assert_array_equal(found, expected)


def test_boxes_are_drawn_as_they_are_meant_to_be():
    rng = np.random.default_rng(0)
    boxes = np.array([decoding.random_box(rng, 500, 400) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    assert left.min() == top.min() == 0
    assert right.max() == 500
    assert bottom.max() == 400
    width, height = right - left, bottom - top
    assert (width * height / 200_000 > 0.075).all()
    ratio = width / height
    assert 0.74 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.34
    # Where any box fits, areas are uniform and logarithms of ratios too.
    small = decoding.random_box
    boxes = [small(rng, 400, 400, area=(0.1, 0.5)) for _ in range(4000)]
    left, top, right, bottom = np.array(boxes).T
    share = (right - left) * (bottom - top) / 160_000
    np.testing.assert_allclose(share.mean(), 0.3, atol=0.01)
    np.testing.assert_allclose(share.std(), 0.4 / 12**0.5, atol=0.005)
    assert abs(np.log((right - left) / (bottom - top)).mean()) < 0.01


@pytest.mark.parametrize(
    ("size", "box"),
    [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506)), ((1, 1), None)],
)
def test_boxes_of_narrow_images_are_in_the_middle(size, box):
    expected = box or (0, 0, 1, 1)
    assert decoding.random_box(np.random.default_rng(0), *size) == expected


MODES = {
    "grey": ("L", "JPEG"),
    "CMYK": ("CMYK", "JPEG"),
    "alpha": ("RGBA", "PNG"),
    "palette": ("P", "PNG"),
    "black and white": ("1", "PNG"),
}


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("name", MODES)
def test_other_kinds_of_image_become_rgb(name, crop):
    mode, kind = MODES[name]
    picture = jpeg_images.image(3).convert(mode)
    content = jpeg_images.encode(picture, kind)
    if crop:
        rng = np.random.default_rng(0)
        pixels = decoding.random_crop(content, rng, size=32)
    else:
        pixels = decoding.center_crop(content, size=32)
        expected = decoding.center_crop(
            jpeg_images.encode(decoded(content), "PNG"), size=32
        )
        np.testing.assert_array_equal(pixels, expected)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8


def test_images_are_turned_only_where_asked():
    picture = jpeg_images.image(4, (80, 60))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    content = jpeg_images.encode(picture, "PNG", exif=exif)
    plain = jpeg_images.encode(picture, "PNG")
    turned = jpeg_images.encode(picture.rotate(-90, expand=True), "PNG")
    crop = lambda content, **options: decoding.center_crop(content, size=32, **options)
    np.testing.assert_array_equal(crop(content), crop(plain))
    np.testing.assert_array_equal(crop(content, upright=True), crop(turned))
    rngs = [np.random.default_rng(0) for _ in range(2)]
    np.testing.assert_array_equal(
        decoding.random_crop(content, rngs[0], size=32, upright=True),
        decoding.random_crop(turned, rngs[1], size=32),
    )


def test_files_to_predict_are_cropped_as_those_to_evaluate(tmp_path):
    content = jpeg_images.encode(jpeg_images.image(1, (500, 375)))
    (tmp_path / "a.jpg").write_bytes(content)
    resize = sources.source("imagenet").resize
    assert (resize, sources.source("cifar10").resize) == (256, None)
    file = image_files.read(tmp_path / "a.jpg", size=224, resize=resize)
    np.testing.assert_array_equal(file.pixels, decoding.center_crop(content, size=224))


def test_more_than_eight_bits_are_refused():
    deep = PIL.Image.fromarray(np.zeros((40, 40), np.uint16))
    with pytest.raises(ValueError, match="mode 'I;16'; convert it to 8 bits"):
        decoding.center_crop(jpeg_images.encode(deep, "PNG"), size=32)


@pytest.mark.parametrize("crop", [False, True])
def test_large_photographs_are_read_alike_by_both_readers(crop, tmp_path, monkeypatch):
    """Between Pillow's limit, at which it warns, and twice that, which it refuses."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 2000)
    picture = jpeg_images.image(5, (60, 60))
    for kind, name in (("PNG", "a.png"), ("JPEG", "a.jpg")):
        content = jpeg_images.encode(picture, kind)
        (tmp_path / name).write_bytes(content)
        with monkeypatch.context() as patch:
            patch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
            whole = np.asarray(decoded(content))
        # Before version 13, Pillow looks at the size of what is cropped too.
        middle = whole[10:50, 10:50]
        file = image_files.read(tmp_path / name, size=40, resize=60)
        np.testing.assert_array_equal(file.pixels, middle)
        if crop:
            decoding.random_crop(content, np.random.default_rng(0), size=50)
        else:
            pixels = decoding.center_crop(content, size=40, resize=60)
            np.testing.assert_array_equal(pixels, middle)


def test_photographs_beyond_the_limit_are_refused_alike(tmp_path, monkeypatch):
    content = jpeg_images.encode(jpeg_images.image(5, (60, 60)))
    (tmp_path / "a.jpg").write_bytes(content)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1700)
    message = "it has more than 3,400 pixels; make it smaller"
    with pytest.raises(ValueError, match=rf"cannot read .*a\.jpg: {message}$"):
        image_files.read(tmp_path / "a.jpg", size=32)
    with pytest.raises(ValueError, match=message):
        decoding.center_crop(content, size=32)
    with pytest.raises(ValueError, match=message):
        decoding.random_crop(content, np.random.default_rng(0), size=32)
