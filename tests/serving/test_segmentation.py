import re

import jax
import numpy as np
import PIL.Image
import pytest
import scipy.special
from random_runs import write_run

from spatial_smoothing import serving
from spatial_smoothing.cli import command_line, segmented
from spatial_smoothing.cli import predict as command
from spatial_smoothing.data.images import overlays
from spatial_smoothing.data.segmentation import moving_shapes
from spatial_smoothing.ensembles import mc_logits
from spatial_smoothing.runs import workdirs
from spatial_smoothing.serving import streaming

IMAGES = moving_shapes.generate("test", num_videos=1)[0][0, :3]
SHAPE = IMAGES.shape[1:3]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mcdo"
    fields = {"stages": [1, 1], "rate": 0.9}
    return write_run(
        path, model="unet_mcdo_smoothing", dataset="moving_shapes", **fields
    )


def called(*arguments):
    """What `predict.py` does, in this process."""
    command.FLAGS.unparse_flags()
    command.predict(
        command_line.parse(
            ["predict.py", *map(str, arguments)], command.FLAGS, positional=True
        )
    )


def probabilities(workdir, image, key, *, num_samples):
    """By the public functions, f64[S, H, W, K]."""
    run = workdirs.load(workdir)
    pixels = np.float32((image / 255 - run.source.mean) / run.source.std)
    of = jax.jit(
        lambda key, x: mc_logits(
            key, run.model, run.variables, x, num_samples=num_samples
        )
    )
    return scipy.special.softmax(np.float64(of(key, pixels[None])[:, 0]), -1)


def test_images_have_probabilities_of_every_pixel(workdir, tmp_path):
    predictor = serving.load_predictor(workdir, num_samples=3, batch_size=2)
    result = predictor(IMAGES[:1])
    assert [x.shape for x in result] == [(1, *SHAPE, 6), (1, *SHAPE), (1, *SHAPE)]
    samples = probabilities(workdir, IMAGES[0], jax.random.key(0), num_samples=3)
    np.testing.assert_allclose(result.probs[0], samples.mean(0), atol=1e-4)
    entropy = scipy.special.entr(samples.mean(0)).sum(-1)
    np.testing.assert_allclose(result.entropy[0], entropy, atol=1e-4)
    information = entropy - scipy.special.entr(samples).sum(-1).mean(0)
    np.testing.assert_allclose(result.mutual_information[0], information, atol=1e-4)
    assert information.max() > 1e-3
    exported = serving.load_exported(
        serving.export(workdir, tmp_path / "out", num_samples=3, platforms=("cpu",))
    )
    np.testing.assert_allclose(exported(IMAGES[:1]).probs, result.probs, atol=1e-4)
    assert exported.description.palette[1] == list(moving_shapes.PALETTE[1])
    assert exported.description.image_shape == (*SHAPE, 3)
    message = re.escape("images must be [B, 48, 64, 3], got [1, 64, 48, 3]")
    with pytest.raises(ValueError, match=message):
        predictor(IMAGES[:1].swapaxes(1, 2))


def test_frames_are_smoothed_over_time(workdir):
    predictor = streaming.load_stream(workdir)
    found = list(predictor(IMAGES, seed=1))
    key = jax.random.key(1)
    frames = np.concatenate(
        [
            probabilities(workdir, image, jax.random.fold_in(key, t), num_samples=1)
            for t, image in enumerate(IMAGES)
        ]
    )
    weights = scipy.special.softmax(0.8 * np.arange(3))
    smooth = np.tensordot(weights, frames, 1)
    np.testing.assert_allclose(found[-1].frame_probs, frames[-1], atol=1e-4)
    np.testing.assert_allclose(found[-1].probs, smooth, atol=1e-4)
    entropy = scipy.special.entr(smooth).sum(-1)
    np.testing.assert_allclose(found[-1].entropy, entropy, atol=1e-4)


def test_the_command_writes_a_picture_of_each_frame(workdir, tmp_path, capsys):
    folder, output = tmp_path / "frames", tmp_path / "out"
    folder.mkdir()
    # Twice as large as the network's frames, and wider than their aspect.
    for number, image in zip((2, 10, 1), IMAGES, strict=True):
        large = np.pad(image.repeat(2, 0).repeat(2, 1), ((0, 0), (6, 6), (0, 0)))
        PIL.Image.fromarray(large).save(folder / f"frame{number}.png")
    called(f"--workdir={workdir}", f"--frames={folder}", f"--output={output}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "unet_mcdo_smoothing on moving_shapes, 1 sample a frame"
    assert [line.split()[0] for line in lines[1:4]] == [
        *("frame1.png", "frame2.png", "frame10.png")
    ]
    assert re.fullmatch(r"frame1.png  \w+ [\d.]+ %.*; entropy [\d.]+ nats", lines[1])
    assert re.fullmatch(r"single frames: consistency [\d.]+ %", lines[4])
    assert re.fullmatch(r"smoothed: consistency [\d.]+ %", lines[5])
    assert re.fullmatch(r"[\d.]+ frames a second, with reading and writing", lines[6])
    names = {path.name for path in output.iterdir()}
    assert names == {"frame1.png", "frame2.png", "frame10.png", "legend.png"}
    first = np.asarray(PIL.Image.open(output / "frame1.png"))
    found = next(iter(streaming.load_stream(workdir)(IMAGES[2:])))
    wanted = overlays.overlay(IMAGES[2], found.probs.argmax(-1), moving_shapes.PALETTE)
    # The frame was made larger and smaller again by a filter.
    assert np.abs(np.int32(first) - wanted).mean() < 6


def test_the_command_writes_a_picture_of_each_image(workdir, tmp_path, capsys):
    path = tmp_path / "one.png"
    PIL.Image.fromarray(IMAGES[0]).save(path)
    arguments = (f"--workdir={workdir}", "--num_samples=3", str(path))
    with pytest.raises(ValueError, match="unet_mcdo_smoothing segments: give --output"):
        called(*arguments)
    called(*arguments, f"--output={tmp_path / 'out'}")
    assert capsys.readouterr().out.count("entropy") == 1
    picture = np.asarray(PIL.Image.open(tmp_path / "out" / "one.png"))
    result = serving.load_predictor(workdir, num_samples=3)(IMAGES[:1])
    wanted = overlays.overlay(
        IMAGES[0], result.probs[0].argmax(-1), moving_shapes.PALETTE
    )
    np.testing.assert_array_equal(picture, wanted)
    other = tmp_path / "two" / "one.png"
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"would both be one.png; predict them one"):
        called(*arguments, str(other), f"--output={tmp_path / 'out'}")


@pytest.mark.parametrize("name", ["one.png", "legend.jpg"])
def test_pictures_do_not_replace_what_is_read(workdir, tmp_path, name):
    path = tmp_path / name
    PIL.Image.fromarray(IMAGES[0]).save(path)
    before, link = path.read_bytes(), tmp_path / "link"
    link.symlink_to(tmp_path)
    # The image itself, and a folder that has it.
    for arguments in ([path], [f"--frames={tmp_path}"]):
        with pytest.raises(ValueError, match=rf"would replace .*{name}|would both be"):
            called(f"--workdir={workdir}", *arguments, f"--output={link}")
    assert path.read_bytes() == before
    assert {found.name for found in tmp_path.iterdir()} == {name, "link"}


def test_pictures_are_written_while_others_are_to_be_predicted(tmp_path):
    """Predictions of all pixels of many images would take much memory."""
    about = serving.Description(
        *("unet", "shapes", 0, 1, 8, (0,) * 3, (1,) * 3, ("a", "b")),
        task="segmentation",
        palette=((0, 0, 0), (9, 9, 9)),
    )
    sizes = []

    def predict(images, seed):
        sizes.append(len(images))
        if len(sizes) == 3:
            raise MemoryError
        probs = np.zeros((len(images), 8, 8, 2), np.float32)
        return {"probs": probs, "entropy": probs[..., 0], "mutual_information": probs}

    names = [f"{number}.png" for number in range(20)]
    with pytest.raises(MemoryError):
        segmented.write_images(
            serving.Predictor(predict, about),
            names,
            np.zeros((20, 8, 8, 3), np.uint8),
            seed=0,
            output=str(tmp_path),
        )
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {*names[:8], "legend.png"}


def test_overlays_mix_colours():
    palette = ((10, 20, 30), (200, 100, 0))
    frame = np.full((2, 2, 3), 100, np.uint8)
    classes = np.array([[0, 1], [1, 0]])
    picture = overlays.overlay(frame, classes, palette)
    assert picture[0, 0].tolist() == [55, 60, 65]
    assert picture[0, 1].tolist() == [150, 100, 50]
    drawn = overlays.legend(palette, ("sky", "a longer name"))
    for colour in palette:
        assert (drawn == colour).all(-1).sum() > 100
