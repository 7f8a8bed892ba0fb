import numpy as np
import PIL.Image
import pytest

from spatial_smoothing.data import shapes
from spatial_smoothing.data.images import image_files

IMAGES, _ = shapes.generate("test", size=1)


def save(path, pixels, mode=None, **options):
    image = PIL.Image.fromarray(np.asarray(pixels))
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def test_image_files_keep_their_pixels(tmp_path):
    file = image_files.read(save(tmp_path / "a.png", IMAGES[0]), size=32)
    np.testing.assert_array_equal(file.pixels, IMAGES[0])
    assert (file.size, file.mode) == ((32, 32), "RGB")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_image_files_of_any_mode_become_rgb(tmp_path, mode):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    file = image_files.read(save(path, pixels, mode), size=32)
    np.testing.assert_array_equal(file.pixels, pixels)
    assert file.mode == mode


def test_alpha_is_laid_on_white(tmp_path):
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:16, :, 3] = 255  # opaque black above, transparent black below
    file = image_files.read(save(tmp_path / "a.png", pixels), size=32)
    assert (file.pixels[:16] == 0).all()
    assert (file.pixels[16:] == 255).all()


def test_image_files_are_turned_cropped_and_resized(tmp_path):
    pixels = np.zeros((40, 120, 3), np.uint8)  # green with a red and a blue end
    pixels[:, :40, 0] = pixels[:, 40:80, 1] = pixels[:, 80:, 2] = 255
    file = image_files.read(save(tmp_path / "a.png", pixels), size=8)
    assert file.size == (120, 40)
    np.testing.assert_array_equal(file.pixels[:, 1:-1], [[[0, 255, 0]] * 6] * 8)
    exif = PIL.Image.Exif()
    exif[274] = 6  # to be turned clockwise
    path = save(tmp_path / "b.png", pixels[:, :80], exif=exif)
    file = image_files.read(path, size=8)
    assert file.size == (40, 80)
    np.testing.assert_array_equal(file.pixels[0, 0], [255, 0, 0])
    np.testing.assert_array_equal(file.pixels[-1, -1], [0, 255, 0])


def test_unusable_image_files_are_refused_by_name(tmp_path):
    good = save(tmp_path / "good.png", IMAGES[0])
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(good.read_bytes()[:-800])
    text = tmp_path / "text.png"
    text.write_text("no image")
    empty = tmp_path / "empty.png"
    empty.touch()
    deep = save(tmp_path / "deep.png", np.zeros((32, 32), np.uint16))
    for path, message in [
        (truncated, "cannot read .*truncated.png: .*; it may be truncated"),
        (text, "text.png is not an image file"),
        (empty, "empty.png is not an image file"),
        (deep, "deep.png has mode 'I;16'; convert it to 8 bits a channel"),
        (tmp_path / "none.png", "no image file .*none.png"),
        (tmp_path, "no image file"),
    ]:
        with pytest.raises(ValueError, match=message):
            image_files.read(path, size=32)
