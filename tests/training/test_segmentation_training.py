import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import evaluation, models, training
from spatial_smoothing.cli import config_fields, train
from spatial_smoothing.configs import common, moving_shapes
from spatial_smoothing.data import augment
from spatial_smoothing.data.batches import VOID
from spatial_smoothing.data.segmentation import class_weights, sets
from spatial_smoothing.runs import recipes
from spatial_smoothing.runtime import sharding
from spatial_smoothing.training import losses, optim
from spatial_smoothing.training.checkpoints import Checkpoints

H, W, K, N = 6, 9, 3, 10


@pytest.fixture(scope="module")
def data():
    """Images whose colour tells the class, with void pixels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, (N, H, W)).astype(np.uint8)
    images = rng.integers(0, 100, (N, H, W, 3)).astype(np.uint8)
    images[..., 0] = 60 * labels
    labels[:, :2, :3] = VOID
    return sets.single_images(images, labels)


@functools.cache
def model():
    return models.build(
        "unet_mcdo_smoothing", num_classes=K, width=2, stages=(1, 1), rate=0.2
    )


def fit(data, *, mesh=None, stops=None, checkpoints=None, log=None, **changes):
    normalize = functools.partial(augment.normalize, mean=(0.5,) * 3, std=(0.25,) * 3)
    schedule = lambda step: jnp.float32(0.03)
    options = {
        "prepare": augment.JointPreparation(normalize, True, (0.5, 1.0, 2.0)),
        "schedule": schedule,
        "optimizer": optim.adam(schedule),
        "epochs": 3,
        "batch_size": 4,
        "seed": 1,
        **changes,
    }
    return training.fit(
        model(),
        data,
        training.Hyperparameters(**options),
        placement=training.Placement(mesh or sharding.mesh(1)),
        saving=training.Saving(checkpoints),
        monitoring=training.Monitoring(**({"log": log} if log else {})),
        should_stop=(lambda: next(stops, True)) if stops else (lambda: False),
    )


class Recorder(training.Log):
    def __init__(self):
        self.records = []

    def epoch(self, record):
        self.records.append(record)


@pytest.fixture(scope="module")
def straight(data):
    log = Recorder()
    return fit(data, log=log), log.records


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_learns_and_counts_pixels(data, straight):
    state, records = straight
    assert int(state.step) == 9
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    # Scaled images lose some pixels, and have others twice.
    pixels = (data.labels != VOID).sum()
    assert 0.5 * pixels < int(state.sums.count) < 1.5 * pixels
    plain = lambda images: images / 255.0
    prepare = augment.JointPreparation(plain, False)
    log = Recorder()
    state = fit(data, epochs=1, prepare=prepare, log=log)
    assert int(state.sums.count) == pixels
    (record,) = log.records
    assert 0 <= record["train_accuracy"] <= 1
    assert 0 < record["images_per_second"] < 10_000


def test_interrupted_it_ends_bit_by_bit_the_same(data, straight, tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        for stop in (4, 1000):
            looks = iter([False] * stop + [True])
            state = fit(data, checkpoints=checkpoints, stops=looks)
    assert_equal(state, straight[0])


def test_a_beginning_without_a_class_is_no_mistake(data):
    """The first record is made after one step."""
    log, void = Recorder(), np.full_like(data.labels, VOID)
    log.progress = log.epoch
    state = fit(sets.single_images(data.images, void), epochs=1, log=log)
    assert int(state.step) == 3
    assert {record["train_loss"] for record in log.records} == {0.0}


def test_two_devices_agree_with_one(data, straight):
    state = fit(data, mesh=sharding.mesh(2))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3),
        state.variables,
        straight[0].variables,
    )


def test_examples_that_are_decoded_when_needed_train_too(data):
    lazy = sets.SegmentationDataset(data.frames, data.rows)
    prepare = augment.JointPreparation(lambda images: images / 255.0, False)
    state = fit(lazy, epochs=1, prepare=prepare)
    assert int(state.sums.count) == (data.labels != VOID).sum()


class Constant(nn.Module):
    """Returns the same logits for every pixel."""

    @nn.compact
    def __call__(self, images, *, train, mask=None):
        bias = self.param("bias", nn.initializers.zeros, (K,))
        self.variable("batch_stats", "images", lambda: mask)
        if not self.is_initializing() and train:
            self.put_variable("batch_stats", "images", mask)
        return jnp.broadcast_to(bias.reshape(1, 1, 1, -1), (*images.shape[:3], K))


def test_loss_is_weighted_cross_entropy_of_the_pixels_in_the_mask():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, (3, H, W))
    mask = rng.random((3, H, W)) < 0.7
    mask[1] = False  # padding
    weights = np.array([0.5, 2.0, 3.0])
    bias = np.array([0.3, -1.0, 0.4])
    batch = {
        "image": jnp.zeros((3, H, W, 3)),
        "label": jnp.asarray(labels),
        "mask": jnp.asarray(mask),
        "weight": jnp.where(mask, weights[labels], np.inf),
    }
    variables = {"params": {"bias": jnp.asarray(bias, jnp.float32)}}
    variables["batch_stats"] = {"images": jnp.zeros(3, bool)}
    loss, outputs = losses.training_loss(
        Constant(), variables, batch, dropout_key=jax.random.key(0)
    )
    log_probs = bias - np.log(np.exp(bias).sum())
    each = -weights[labels] * log_probs[labels]
    np.testing.assert_allclose(loss, each[mask].mean(), rtol=1e-5)
    # A void pixel does not take its image out of the statistics.
    np.testing.assert_array_equal(outputs.batch_stats["images"], [True, False, True])
    batch["mask"] = jnp.zeros((3, H, W), bool)
    loss, outputs = losses.training_loss(
        Constant(), variables, batch, dropout_key=jax.random.key(0)
    )
    assert loss == 0
    assert outputs.batch_stats["images"].all()


def ramps(count):
    """Images that tell where each pixel was, and labels in blocks."""
    rows, columns = np.mgrid[:H, :W]
    image = np.stack([10 * rows, 10 * columns, 0 * rows + 7], -1).astype(np.uint8)
    label = (rows // 2 + columns // 3) % K
    mask = np.ones((H, W), bool)
    mask[2, 4] = False
    return {
        name: jnp.asarray(np.broadcast_to(value, (count, *value.shape)))
        for name, value in {"image": image, "label": label, "mask": mask}.items()
    }


def test_image_label_and_mask_are_transformed_alike():
    batch = ramps(64)
    found = jax.jit(augment.joint_scale_crop_flip)(jax.random.key(0), batch)
    found = {name: np.asarray(value) for name, value in found.items()}
    assert found["label"].dtype == np.int32
    rows, columns = found["image"][..., 0] / 10, found["image"][..., 1] / 10
    near_row, near_column = np.rint(rows).astype(int), np.rint(columns).astype(int)
    # Where two pixels are as near, either may be taken.
    clear = (np.abs(rows % 1 - 0.5) > 1e-3) & (np.abs(columns % 1 - 0.5) > 1e-3)
    inside = found["image"][..., 2] > 0
    np.testing.assert_allclose(found["image"][inside][:, 2], 7, rtol=1e-5)
    label, mask = (np.asarray(batch[name][0]) for name in ("label", "mask"))
    sure = inside & clear
    np.testing.assert_array_equal(
        found["label"][sure], label[near_row, near_column][sure]
    )
    np.testing.assert_array_equal(
        found["mask"][sure], mask[near_row, near_column][sure]
    )
    assert not found["mask"][~inside].any()
    assert (found["image"][~inside] == 0).all()
    # Larger and smaller ones, mirrored or not, at many places.
    step = np.diff(columns[:, H // 2], axis=1)[:, W // 2]
    assert 16 < (step < 0).sum() < 48
    scale = 1 / np.abs(step)
    assert 0.74 < scale.min() < 0.85
    assert 1.35 < scale.max() < 1.51
    assert len(np.unique(rows[:, H // 2, W // 2].round(3))) > 30


def test_augmentation_is_a_function_of_the_key_and_may_change_nothing():
    batch = ramps(4)
    transform = jax.jit(
        functools.partial(augment.joint_scale_crop_flip, scales=(1.0, 1.0))
    )
    one = transform(jax.random.key(0), batch)
    assert_equal(one, transform(jax.random.key(0), batch))
    # Without scaling, images are mirrored or as they were.
    for index in range(4):
        mirrored = one["image"][index, 0, 0, 1] > 0
        for name in batch:
            expected = batch[name][index]
            expected = expected[:, ::-1] if mirrored else expected
            np.testing.assert_array_equal(one[name][index], expected)


def test_median_frequency(data):
    counts = np.array([40, 0, 10, 20, 80])
    weights = class_weights.median_frequency(counts)
    np.testing.assert_allclose(weights, [30 / 40, 1, 3, 1.5, 30 / 80])
    counts = class_weights.count_pixels(data, num_classes=K)
    assert counts.sum() == (data.labels != VOID).sum()
    assert counts[1] == (data.labels == 1).sum()
    with pytest.raises(ValueError, match="all are void"):
        class_weights.median_frequency([0, 0])


def config(**changes):
    base = {**moving_shapes.get_config().to_dict(), "width": 2, "stages": (1, 1)}
    return config_fields.read({**base, **changes})


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SPATIAL_SMOOTHING_CACHE", str(folder))
        yield


def test_a_config_becomes_a_training(own_cache):
    given = config(class_weights=("median_frequency",), train_split="train[:24]")
    job = train.load(given)
    assert job.train.num_examples == 24
    assert isinstance(job.prepare, augment.JointPreparation)
    share = np.bincount(job.train.labels.ravel(), minlength=6)
    np.testing.assert_allclose(job.prepare.class_weights, np.median(share) / share)
    assert train.hyperparameters(job).batch_size == 16
    # Its monitor scores pixels: those of a network that knows nothing.
    variables = jax.jit(job.model.init)(jax.random.key(0), jnp.zeros((1, 48, 64, 3)))
    test = job.splits["test"].subset(np.arange(5))
    scores = evaluation.monitor(
        job.model.clone(rate=0.0),
        {"test": test},
        prepare=job.normalize,
        key=jax.random.key(0),
        batch_size=4,
        mesh=sharding.mesh(1),
    )(variables)
    logits = job.model.apply(variables, job.normalize(jnp.asarray(test.images)))
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    nll = -np.take_along_axis(log_probs, test.labels[..., None].astype(int), -1)
    assert scores["test_nll"] == pytest.approx(nll.mean(), rel=1e-5)
    accuracy = (log_probs.argmax(-1) == test.labels).mean()
    assert scores["test_accuracy"] == pytest.approx(accuracy)


def assembled(**changes):
    given = config(**changes)
    return train.assemble(given, recipes.shapes(given), sharding.mesh(1))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "resnet_dnn_18"}, "is for classification, and moving_shapes for"),
        ({"dataset": "shapes"}, "is for segmentation, and shapes for"),
        ({"class_weights": (1.0, 2.0)}, "or 6 numbers, one for each class"),
        ({"class_weights": (-1.0,)}, "class_weights must be"),
        ({"optimizer": "adagrad"}, "optimizer"),
        ({"image_size": 24}, "images of moving_shapes have"),
    ],
)
def test_what_does_not_fit_is_a_line(changes, expected, own_cache):
    with pytest.raises(ValueError, match=expected) as error:
        assembled(**changes)
    assert "\n" not in str(error.value)


def test_class_weights_are_for_segmentation():
    base = common.get_config().to_dict()
    given = {**base, "dataset": "shapes", "class_weights": (1.0,) * 10}
    given |= {"model": "resnet_dnn_18", "stages": (1,), "width": 2}
    with pytest.raises(ValueError, match="class_weights are for segmentation"):
        train.assemble(given, recipes.shapes(given), sharding.mesh(1))


def test_a_step_is_traced_without_data():
    given = config(class_weights=("median_frequency",))
    job = train.assemble(given, recipes.shapes(given), sharding.mesh(2))
    traced = train.trace_step(
        job.model,
        job.train,
        train.hyperparameters(job),
        training.Placement(sharding.mesh(2)),
    )
    labels = traced.jaxpr.in_avals[-1]
    assert (labels.shape, labels.dtype) == ((1200, 48 * 64), jnp.uint8)
