import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest
import scipy.stats

import spatial_smoothing as ss
from spatial_smoothing import serving, workdirs
from spatial_smoothing.checkpoints import Checkpoints
from spatial_smoothing.data import image_files, shapes
from spatial_smoothing.prediction import Description, Prediction, Predictor, uncertainty

ROOT = pathlib.Path(__file__).parent.parent
IMAGES, _ = shapes.generate("test", size=5)


def write_run(path, *, model, dataset="shapes", **fields):
    """A run that ends before it begins: random variables, one checkpoint."""
    config = {"model": model, "dataset": dataset, "width": 4, "stages": [1], **fields}
    path = workdirs.claim(path, config)
    shapes_of = jax.eval_shape(
        workdirs.build_model(config).init, jax.random.key(0), np.zeros((1, 32, 32, 3))
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(0, 0.6, leaf.shape).astype(leaf.dtype), shapes_of
    )
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(7, {"variables": variables}, {"step": 7})
    return str(path)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mcdo"
    return write_run(path, model="resnet_mcdo_smoothing_18", rate=0.95)


@pytest.fixture(scope="module")
def predictor(workdir):
    return serving.load_predictor(workdir, num_samples=6, chunk=4, batch_size=4)


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model"
    return serving.export(workdir, path, num_samples=6)


def expected(workdir, *, seed=0, num_samples=6):
    """Predictions by the public functions, one image at a time."""
    run = workdirs.load(workdir)
    pixels = (IMAGES / 255 - shapes.MEAN) / shapes.STD
    samples = np.concatenate(
        [
            ss.mc_dropout(
                jax.random.key(seed),
                run.model,
                run.variables,
                image[None].astype(np.float32),
                num_samples=num_samples,
            )
            for image in pixels
        ],
        axis=1,
    )
    probs = samples.mean(0)
    entropy = scipy.stats.entropy(probs, axis=-1)
    return probs, entropy, entropy - scipy.stats.entropy(samples, axis=-1).mean(0)


def assert_close(result, wanted):
    for part, other in zip(result, wanted, strict=True):
        np.testing.assert_allclose(part, other, atol=1e-5)


def test_predictions_are_those_of_mc_dropout(predictor, workdir):
    result = predictor(IMAGES)
    assert [part.shape for part in result] == [(5, 10), (5,), (5,)]
    assert result.mutual_information.min() > 1e-4
    assert_close(result, expected(workdir))
    assert_close(predictor(IMAGES, seed=3), expected(workdir, seed=3))


def test_floating_images_are_those_of_bytes(predictor):
    for dtype in (np.float32, np.float64):
        assert_close(predictor((IMAGES / 255).astype(dtype)), predictor(IMAGES))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_image_is_predicted_alone_as_in_company(predictor, count):
    whole, part = predictor(IMAGES), predictor(IMAGES[::-1][:count])
    assert_close(part, [field[::-1][:count] for field in whole])


def test_the_seed_decides(predictor):
    first, again, other = (predictor(IMAGES, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.probs, again.probs)
    assert not np.allclose(first.probs, other.probs)


def test_a_network_without_dropout_makes_one_certain_pass(tmp_path):
    workdir = write_run(tmp_path / "dnn", model="resnet_dnn_smoothing_18")
    predictor = serving.load_predictor(workdir)
    result, run = predictor(IMAGES), workdirs.load(workdir)
    pixels = ((IMAGES / 255 - shapes.MEAN) / shapes.STD).astype(np.float32)
    logits = run.model.apply(run.variables, pixels)
    np.testing.assert_allclose(result.probs, jax.nn.softmax(logits), atol=1e-5)
    np.testing.assert_allclose(result.mutual_information, 0, atol=1e-6)
    assert predictor.description.num_samples == 1


def test_uncertainty_of_known_predictions():
    certain, torn = np.eye(4)[0], np.full(4, 1 / 4)
    samples = np.array([[certain, torn, np.eye(4)[0]], [certain, torn, np.eye(4)[1]]])
    with np.errstate(divide="ignore"):
        result = uncertainty(np.log(samples).astype(np.float32))
    entropy = [0, np.log(4), np.log(2)]
    np.testing.assert_allclose(result["entropy"], entropy, atol=1e-6)
    np.testing.assert_allclose(
        result["mutual_information"], [0, 0, np.log(2)], atol=1e-6
    )
    assert min(result["mutual_information"]) >= 0


def test_batches_of_many_sizes_are_compiled_for_few():
    seen = []

    def predict(images, seed):
        seen.append(len(images))
        values = images.astype(np.float32).mean((1, 2, 3)) + seed
        return {"probs": values, "entropy": values, "mutual_information": values}

    about = Description("", "", 0, 1, 2, (), (), ())
    predictor = Predictor(predict, about, batch_size=6)
    for count in range(15):
        images = np.repeat(np.arange(count, dtype=np.uint8), 12).reshape(-1, 2, 2, 3)
        np.testing.assert_array_equal(
            predictor(images, seed=2).probs, np.arange(count) + 2
        )
    assert set(seen) == {1, 2, 4, 6}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((32, 32, 3)), r"got \[32, 32, 3\]; add the batch axis"),
        (np.zeros((2, 32, 32)), r"np\.repeat\(images\[\.\.\., None\], 3, axis=-1\)"),
        (np.zeros((2, 32, 32, 1)), r"np\.repeat\(images, 3, axis=-1\)"),
        (np.zeros((2, 32, 32, 4)), r"\[2, 32, 32, 4\]; drop the alpha"),
        (np.zeros((2, 3, 32, 32)), r"np\.moveaxis\(images, 1, -1\)"),
        (np.zeros((2, 28, 28, 3)), r"be \[B, 32, 32, 3\], got \[2, 28, 28, 3\]; resi"),
        (np.full((2, 32, 32, 3), 255.0), r"in \[0, 1\], got values in \[0, 255\]"),
        (np.full((2, 32, 32, 3), -0.5), r"got values in \[-0\.5, 0\]; do not norma"),
        (np.full((2, 32, 32, 3), np.nan), "got values in .*nan"),
        (np.zeros((2, 32, 32, 3), np.int64), "type uint8 or float32, got int64"),
    ],
)
def test_unusable_images_are_refused(predictor, images, message):
    with pytest.raises(ValueError, match=message):
        predictor(images)


def test_unusable_options_are_refused(predictor, workdir, tmp_path):
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\^32\), got -1"):
        predictor(IMAGES, seed=-1)
    for name in ("num_samples", "chunk", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            serving.load_predictor(workdir, **{name: 0})
    with pytest.raises(ValueError, match="no run in workdir"):
        serving.load_predictor(tmp_path)


def test_class_names_are_those_of_the_data_set(predictor, tmp_path):
    assert tuple(predictor.description.class_names) == shapes.CLASS_NAMES
    names = [f"name{number}" for number in range(10)]
    folder = tmp_path / "tfds/cifar10/3.0.2"
    folder.mkdir(parents=True)
    workdir = write_run(
        tmp_path / "run",
        model="resnet_dnn_18",
        dataset="cifar10",
        data_dir=str(tmp_path / "tfds"),
    )
    assert serving.load_predictor(workdir).description.class_names == list("0123456789")
    (folder / "label.labels.txt").write_text("\n".join(names) + "\n")
    assert serving.load_predictor(workdir).description.class_names == names


def test_what_is_exported_predicts_the_same(exported, predictor):
    loaded = serving.load_exported(exported, batch_size=4)
    for seed in (0, 5):
        assert_close(loaded(IMAGES, seed=seed), predictor(IMAGES, seed=seed))
    assert vars(loaded.description) == json.loads(
        json.dumps(vars(predictor.description))
    )
    with pytest.raises(ValueError, match="of type uint8, got float32"):
        loaded(IMAGES / 255)


_ALONE = """
import json, pathlib, sys
for name in ("spatial_smoothing", "flax", "orbax"):
    sys.modules[name] = None  # importing it is an error
import jax, numpy as np
folder, results = pathlib.Path(sys.argv[1]), []
exported = jax.export.deserialize((folder / "predict.jax_export").read_bytes())
for count in (1, 5):
    images = np.load(sys.argv[2])[:count]
    result = exported.call(images, np.uint32(3))
    results.append({name: value.tolist() for name, value in result.items()})
print(json.dumps(results))
"""


def test_what_is_exported_needs_jax_alone(exported, predictor, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(exported), str(tmp_path / "images.npy")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wanted = predictor(IMAGES, seed=3)
    for count, result in zip((1, 5), json.loads(done.stdout), strict=True):
        assert result.keys() == wanted._asdict().keys()
        assert_close(Prediction(**result), [field[:count] for field in wanted])


def test_exporting_leaves_nothing_half_written(exported, workdir, tmp_path):
    with pytest.raises(ValueError, match="is there already"):
        serving.export(workdir, exported)
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp/rest").write_text("of an export that was killed")
    with pytest.raises(ValueError, match="no run in workdir"):
        serving.export(tmp_path, tmp_path / "out")
    serving.export(workdir, tmp_path / "out", num_samples=1, platforms=["cpu"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "description.json",
        "out",
        "predict.jax_export",
    ]


def test_what_is_not_exported_is_not_loaded(exported, tmp_path):
    with pytest.raises(ValueError, match="nothing exported in"):
        serving.load_exported(tmp_path)
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot read .*; export it again"):
        serving.load_exported(tmp_path)


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
    deep = save(tmp_path / "deep.png", np.zeros((32, 32), np.uint16))
    for path, message in [
        (truncated, "cannot read .*truncated.png: .*; it may be truncated"),
        (text, "text.png is not an image file"),
        (deep, "deep.png has mode 'I;16'; convert it to 8 bits a channel"),
        (tmp_path / "none.png", "no image file .*none.png"),
        (tmp_path, "no image file"),
    ]:
        with pytest.raises(ValueError, match=message):
            image_files.read(path, size=32)


def predict(*args):
    return subprocess.run(
        [sys.executable, ROOT / "predict.py", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_predict_prints_classes_and_uncertainty(workdir, predictor, tmp_path):
    first = save(tmp_path / "first.png", IMAGES[0])
    grey = save(tmp_path / "grey.png", np.zeros((64, 48), np.uint8))
    done = predict(f"--workdir={workdir}", "--num_samples=6", "--top=2", first, grey)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "resnet_mcdo_smoothing_18 on shapes, 6 samples"
    result = predictor(IMAGES[:1])
    best = np.argsort(-result.probs[0])
    assert lines[2] == str(first)
    for line, label in zip(lines[3:5], best, strict=False):
        percent, name = 100 * result.probs[0, label], shapes.CLASS_NAMES[label]
        assert line == f"  {percent:5.1f} %  {name}"
    assert lines[5] == (
        f"  entropy {result.entropy[0]:.3f} nats, "
        f"of which {result.mutual_information[0]:.3f} between samples"
    )
    changes = "(L converted to RGB, 48x64 cropped and resized to 32x32)"
    assert lines[7] == f"{grey} {changes}"


def test_predict_refuses_bad_input_in_one_line(workdir, tmp_path):
    for args, message in [
        ([f"--workdir={workdir}", tmp_path / "none.png"], "no image file"),
        ([tmp_path / "none.png"], "give either --workdir=DIR or --exported=DIR"),
    ]:
        done = predict(*args)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_documentation_runs(workdir, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/shapes").symlink_to(workdir)
    monkeypatch.chdir(tmp_path)
    page, names = (ROOT / "docs/serving.md").read_text(), {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    for field, values in names["result"].items():
        np.testing.assert_allclose(values, names[field], atol=1e-6)
