import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.stats
from random_runs import write_run

import spatial_smoothing as ss
from spatial_smoothing import serving
from spatial_smoothing.data import shapes
from spatial_smoothing.ensembles import mixtures
from spatial_smoothing.runs import workdirs
from spatial_smoothing.serving.predictor import (
    Description,
    Prediction,
    Predictor,
    uncertainty,
)

IMAGES, _ = shapes.generate("test", size=5)


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
        logits = np.log(samples).astype(np.float32)
    result = uncertainty(jax.vmap(mixtures.single)(logits).sum())
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
    # Of maps of pixels, few are made at once.
    for task, largest in (("classification", 16), ("segmentation", 4)):
        seen.clear()
        several = Predictor(predict, dataclasses.replace(about, task=task))
        several(np.zeros((10, 2, 2, 3), np.uint8))
        assert max(seen) == largest


def test_warming_up_compiles_what_later_calls_need():
    traced = []

    @jax.jit
    def predict(images, seed):
        traced.append(len(images))
        values = images.astype(np.float32).mean((1, 2, 3)) + seed
        return {"probs": values, "entropy": values, "mutual_information": values}

    predictor = Predictor(predict, Description("", "", 0, 1, 2, (), (), ()))
    predictor.warmup((1, 7))
    assert traced == [1, 8]
    for count in (1, 5, 8):
        predictor(np.zeros((count, 2, 2, 3), np.uint8))
    assert traced == [1, 8]
    with pytest.raises(ValueError, match="batch_sizes must be at least 1, got 0"):
        predictor.warmup((0,))


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
    for seed in (1.5, "1", jax.random.key(0)):
        with pytest.raises(ValueError, match="seed must be a whole number, got "):
            predictor(IMAGES, seed=seed)
    for name in ("num_samples", "chunk", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, got 1.5"):
            serving.load_predictor(workdir, **{name: 1.5})
    for platforms in (["gpu"], "metal", ["cpu", "CPU"], ()):
        with pytest.raises(ValueError, match=r"unknown platform .*choices: cpu, cuda,"):
            serving.export(workdir, tmp_path / "out", platforms=platforms)


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
for count in (1, 7, 130):
    images = np.resize(np.load(sys.argv[2]), (count, 32, 32, 3))
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
    for count, result in zip((1, 7, 130), json.loads(done.stdout), strict=True):
        assert result.keys() == wanted._asdict().keys()
        again = [np.resize(field, (count, *field.shape[1:])) for field in wanted]
        assert_close(Prediction(**result), again)


def test_exporting_leaves_nothing_half_written(exported, workdir, tmp_path):
    with pytest.raises(ValueError, match="is there already"):
        serving.export(workdir, exported)
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp/rest").write_text("of an export that was killed")
    with pytest.raises(ValueError, match="no run in workdir"):
        serving.export(tmp_path, tmp_path / "out")
    serving.export(workdir, tmp_path / "out", num_samples=1, platforms="cpu")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "description.json",
        "out",
        "predict.jax_export",
    ]


def test_what_is_not_exported_is_not_loaded(exported, tmp_path):
    with pytest.raises(ValueError, match="nothing exported in"):
        serving.load_exported(tmp_path)
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    program = tmp_path / "predict.jax_export"
    content = bytearray(program.read_bytes())
    content[len(content) // 2] ^= 1  # of some weight
    program.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not the file that was written; export"):
        serving.load_exported(tmp_path)
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot read .*; export it again"):
        serving.load_exported(tmp_path)
