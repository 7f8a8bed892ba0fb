"""All programs compile for TPUs and GPUs, narrow and with small shapes.

Neither is here: their compilers run on any machine. `benchmarks.compiled` says what
programs of the usual sizes cost.
"""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from random_runs import write_run

from benchmarks import compiled_figures
from spatial_smoothing import ensembles, metrics, models
from spatial_smoothing.analysis import (
    features,
    fourier,
    frequency,
    hessian,
    lanczos,
    landscape,
)
from spatial_smoothing.data import augment, batches
from spatial_smoothing.data.corruption import perturbations, transforms
from spatial_smoothing.data.datasets import DatasetShape
from spatial_smoothing.ensembles import mixtures, temporal
from spatial_smoothing.evaluation import (
    confidences,
    detection,
    feature_bank,
    feature_confidences,
    rows,
    scores,
    tallies,
)
from spatial_smoothing.evaluation.suites import temporal as temporal_suite
from spatial_smoothing.evaluation.suites.differences import _bootstrapped
from spatial_smoothing.evaluation.suites.perturbation import compare_frames
from spatial_smoothing.metrics import feature_statistics
from spatial_smoothing.metrics.feature_confidences import (
    Gaussians,
    LastLayer,
    Residual,
)
from spatial_smoothing.runtime import hlo, random_bits, sharding, topologies
from spatial_smoothing.runtime.costs import costs
from spatial_smoothing.serving.export import export
from spatial_smoothing.training import costing, optim
from spatial_smoothing.training.options import Hyperparameters, Placement

pytestmark = pytest.mark.compilers
# The smallest of each that has several devices.
TOPOLOGIES = {"tpu": "v5e:2x2", "cuda": "h200:2"}
ONE = {"tpu": "v5e:1x1", "cuda": "h200"}
NETWORK = models.build(
    "resnet_mcdo_smoothing_18", num_classes=10, stem="cifar", width=4, stages=(1,)
)
KEY = random_bits.key(0)
B = 8


class Program(NamedTuple):
    """What to compile.

    Attributes:
      function: A function, which may be compiled by `jax.jit` already.
      arguments: Arrays, or their shapes and types, without devices.
      split: Numbers of the arguments whose first axis the devices split; all else is on
        every device.
    """

    function: Callable[..., Any]
    arguments: tuple
    split: tuple[int, ...] = ()


def normalized(images):
    return augment.normalize(images, mean=(0.5,) * 3, std=(0.25,) * 3)


def augmented(key, images):
    return normalized(augment.crop_and_flip(key, images))


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def batch(*lead):
    return {
        "image": array(*lead, B, 32, 32, 3, dtype=jnp.uint8),
        "label": array(B, dtype=jnp.int32),
        "mask": array(B, dtype=bool),
    }


@functools.cache
def variables_of(members=1):
    shapes = jax.eval_shape(NETWORK.init, KEY, jnp.zeros((1, 32, 32, 3)))
    if members == 1:
        return shapes
    return jax.tree.map(lambda x: array(members, *x.shape, dtype=x.dtype), shapes)


def of_scores(mesh, *, members=1):
    predict = ensembles.predictor(
        NETWORK, prepare=normalized, sizes=(1, 3), num_members=members, chunk=2
    )
    # Neither temperatures, nor thresholds of sets, nor sets of labels.
    arguments = (variables_of(members), KEY, 0, batch(), None, None, None)
    return Program(scores.batch_scores(predict), arguments, split=(3,))


def of_streams(mesh):
    predict = functools.partial(
        ensembles.predictor, NETWORK, prepare=normalized, chunk=2
    )
    smoothed = temporal_suite.predictor(
        predict(sizes=(1, 2)),
        predict(sizes=(1,)),
        sizes=(1,),
        num_members=1,
        window=temporal_suite.Window(past=2, num_frames=4),
    )
    arguments = variables_of(), KEY, 0, batch()
    return Program(tallies.batch_tallies(smoothed), arguments, split=(3,))


def of_stream_step(mesh):
    def step(variables, key, frame):
        make = temporal.stream(
            NETWORK, variables, prepare=normalized, num_samples=3, chunk=2
        )
        return make.step(make.init(frame), key, frame)

    return Program(step, (variables_of(), KEY, batch()["image"]))


def point_state(mesh):
    shapes = variables_of()
    statistics = jax.tree.map(
        lambda x: array(mesh.size, *x.shape), shapes["batch_stats"]
    )
    params = shapes["params"]
    points = array(mesh.size, 2)
    return landscape.State(params, statistics, (params, params), points)


def of_point(mesh):
    predict = landscape.point_predictor(
        NETWORK, prepare=augmented, mesh=mesh, num_samples=2
    )
    arguments = point_state(mesh), KEY, 0, batch()
    return Program(tallies.batch_tallies(predict), arguments)


def of_statistics(mesh):
    add = landscape.batch_statistics(NETWORK, prepare=augmented, mesh=mesh)
    state = point_state(mesh)
    count = array(dtype=jnp.int32)
    return Program(add, (state.statistics, count, state, KEY, 0, batch()))


def of_hessian(mesh):
    loss = hessian.objective(NETWORK, prepare=augmented, weight_decay=1e-4)
    vector = array(hessian.num_parameters(variables_of()))
    return Program(hessian.compile_hvp(loss), (variables_of(), KEY, batch(), vector))


def of_lanczos(mesh):
    vector = array(1000)
    return Program(lanczos._extend, (array(20, 1000), 0, vector, vector))


def of_variance(mesh, *, over):
    sums = features.compile_sums(NETWORK, prepare=normalized, over=over, num_samples=3)
    data = batch(3) if over == "frames" else batch()
    return Program(sums, (variables_of(), KEY, data))


def of_sample_maps(mesh):
    compute = features.compile_sample_maps(NETWORK, num_samples=3)
    return Program(compute, (KEY, variables_of(), array(B, 32, 32, 3)))


def of_spectra(mesh):
    sums = fourier.compile_sums(NETWORK, prepare=normalized)
    return Program(sums, (variables_of(), KEY, batch()))


def of_frequency(mesh):
    predict = frequency.noisy_predictor(
        NETWORK, prepare=normalized, num_samples=2, chunk=2
    )
    state = variables_of(), array(32, 32)
    return Program(tallies.batch_tallies(predict), (state, KEY, 0, batch()), split=(3,))


def of_frames(mesh):
    log_probs = array(3, B, 10)
    arguments = log_probs, log_probs, log_probs, array(B, dtype=bool)
    return Program(compare_frames, arguments)


@functools.cache
def examples(*lead):
    """Shapes of what is kept of 100 images."""
    log_probs, labels = array(100, 10), array(100, dtype=jnp.int32)
    value = array(100)
    further = dict.fromkeys(("mutual_information", "variation_ratio", "energy"), value)
    score = lambda log_probs, labels, further: metrics.per_example(
        log_probs, labels, **further
    )
    found = jax.eval_shape(score, log_probs, labels, further)
    return jax.tree.map(lambda x: array(*lead, *x.shape, dtype=x.dtype), found)


REPLICATES = {"num_classes": 10, "num_replicates": 60}


def of_intervals(mesh):
    bootstrap = functools.partial(rows._bootstrap, **REPLICATES)
    extra = {"cec": array(100)}
    return Program(bootstrap, (KEY, examples(), examples(), extra))


def of_detection(mesh):
    inside = {"entropy": array(100)}
    outside = {"entropy": array(60)}
    detect = functools.partial(rows._detect, num_replicates=60)
    return Program(detect, (KEY, inside, outside))


def of_confidences(mesh):
    predict = ensembles.predictor(
        NETWORK,
        prepare=normalized,
        sizes=(1, 3),
        chunk=2,
        of_sample=mixtures.single_with_logits,
    )
    function = confidences.batch_confidences(
        predict, confidences.confidences_of(confidences.AVERAGES), gammas=(0.1, 0.5)
    )
    return Program(function, (variables_of(), KEY, 0, batch(), None), split=(3,))


def of_feature_confidences(mesh):
    function = feature_confidences.batch_confidences(
        NETWORK, normalized, feature_confidences.NAMES, mesh=mesh, neighbours=(3, 5)
    )
    dim = NETWORK.width  # of features: that of the one stage
    # More than one piece of each device's part of the bank.
    bank = array(2 * feature_bank.PART * mesh.size, dim)
    gaussians = Gaussians(array(10, dim), array(dim, dim))
    fitted = feature_bank.Fitted(
        LastLayer(array(dim, 10), array(10)),
        bank,
        classes=gaussians,
        everything=gaussians._replace(means=array(1, dim)),
        residual=Residual(array(dim), array(dim, 2), array()),
        thresholds=array(2),
    )
    return Program(function, (variables_of(), fitted, batch()), split=(2,))


def of_moments(mesh):
    sums = functools.partial(feature_statistics.sums, num_classes=10)
    features, labels = array(100, 32), array(100, dtype=jnp.int32)
    return Program(sums, (features, labels, array(100, dtype=bool), array(32)))


def of_detected_sets(mesh):
    detect = functools.partial(
        detection._detect, distances=("near", "far"), num_replicates=60
    )
    value = array(100)
    return Program(detect, (KEY, value, value, [array(60), array(50)]))


def of_differences(mesh):
    bootstrap = functools.partial(_bootstrapped, **REPLICATES)
    return Program(bootstrap, (KEY, examples(2), examples(2)))


def of_temperature(mesh):
    labels = array(100, dtype=jnp.int32)
    return Program(metrics.fit_temperature, (array(100, 10), labels))


def of_order(mesh):
    order = lambda key, epoch: batches.epoch_order(key, epoch, 1000)
    return Program(order, (KEY, 0))


# Name -> what makes the program for a mesh. Those of the first table show between them
# all that the others are made of, and compile in a few seconds each.
PROGRAMS = {
    "scores of members": functools.partial(of_scores, members=2),
    "step of a stream": of_stream_step,
    "landscape": of_point,
    "hessian": of_hessian,
    "lanczos": of_lanczos,
    "variance": functools.partial(of_variance, over="samples"),
    "fourier": of_spectra,
    "flips": of_frames,
    "moments of features": of_moments,
    "temperature": of_temperature,
    "order": of_order,
}
SLOW_PROGRAMS = {
    "scores": of_scores,
    "temporal smoothing": of_streams,
    "statistics of a landscape": of_statistics,
    "variance of frames": functools.partial(of_variance, over="frames"),
    "maps": of_sample_maps,
    "frequency": of_frequency,
    "intervals": of_intervals,
    "detection": of_detection,
    "confidences": of_confidences,
    "confidences of features": of_feature_confidences,
    "detected sets": of_detected_sets,
    "differences": of_differences,
}


@functools.cache
def mesh_of(name, members=1):
    return sharding.mesh(devices=topologies.topology(name).devices, members=members)


def compiled(program, mesh):
    """Compiles a program for the devices of a mesh."""
    places = sharding.replicated(mesh), sharding.split(mesh)

    def placed(number, argument):
        place = places[number in program.split]
        shape = lambda x: (
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
            if hasattr(x, "dtype")
            else x
        )
        return jax.tree.map(shape, argument)

    arguments = [placed(*each) for each in enumerate(program.arguments)]
    jitted = program.function
    jitted = jitted if hasattr(jitted, "lower") else jax.jit(jitted)
    return checked(jitted.lower(*arguments).compile())


def checked(program):
    """Checks that a device can run a compiled program alone, and fast."""
    assert not re.search(r"callback|\b(f64|c128)\[", program.as_text())
    return program


@pytest.fixture(params=TOPOLOGIES)
def platform(request):
    if not can_compile(request.param):
        pytest.skip(f"no compiler for {request.param}")
    return request.param


@functools.cache
def can_compile(platform):
    if not topologies.is_available(platform):
        return False
    try:
        topologies.topology(ONE[platform])
    except ValueError as error:
        # Parts of CUDA that JAX's plugin does not bring.
        if "ptxas" in str(error):
            return False
        raise
    return True


@pytest.mark.parametrize(
    "name",
    [
        *PROGRAMS,
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_PROGRAMS),
    ],
)
def test_programs_compile(name, platform):
    mesh = mesh_of(TOPOLOGIES[platform])
    compiled((PROGRAMS | SLOW_PROGRAMS)[name](mesh), mesh)


# Each of the five convolutions behind the first dropout had a kernel of its own that
# rounds its weights for every sample, which makes five more fusions.
@pytest.mark.parametrize(("chunk", "fusions"), [(1, 20), (2, 9)])
def test_samples_share_what_follows_from_variables(chunk, fusions):
    if not can_compile("cuda"):
        pytest.skip("no compiler for cuda")
    network = NETWORK.clone(dtype="bfloat16", smoothing=(0, 0), stages=(1, 1), width=8)
    images = array(B, 32, 32, 3)
    variables = jax.eval_shape(network.init, KEY, jnp.zeros((1, 32, 32, 3)))

    def mixtures_of(key, variables, images):
        return mixtures.mc_mixtures(
            key, network, variables, images, sizes=(1, 2, 4), chunk=chunk
        )

    program = Program(mixtures_of, (KEY, variables, images))
    text = compiled(program, mesh_of(ONE["cuda"])).as_text()
    loop = compiled_figures.largest_loop(hlo.Program(text))
    assert loop.convolutions == 5
    assert loop.fusions <= fusions


@pytest.mark.parametrize(
    ("members", "in_memory"),
    [
        (2, True),
        pytest.param(1, True, marks=pytest.mark.slow),
        pytest.param(1, False, marks=pytest.mark.slow),
    ],
)
def test_training_compiles(members, in_memory, platform):
    schedule = optim.warmup_multistep(
        0.1, steps_per_epoch=7, warmup_epochs=1, milestones=(2,), factor=0.2
    )
    hyperparameters = Hyperparameters(
        prepare=augmented,
        schedule=schedule,
        optimizer=optim.sgd(schedule, momentum=0.9, weight_decay=1e-4),
        epochs=2,
        batch_size=B,
        members=members,
    )
    dataset = DatasetShape(50, (32, 32, 3), in_memory=in_memory)
    mesh = mesh_of(TOPOLOGIES[platform], members=members)
    traced = costing.trace_step(NETWORK, dataset, hyperparameters, Placement(mesh))
    checked(traced.lower().compile())


def test_exported_programs_compile(tmp_path, platform):
    run = write_run(tmp_path / "run", model="resnet_mcdo_smoothing_18")
    out = export(run, tmp_path / "out", num_samples=3)
    content = (out / "predict.jax_export").read_bytes()
    exported = jax.export.deserialize(bytearray(content))
    arguments = batch()["image"], array(dtype=jnp.uint32)
    compiled(Program(exported.call, arguments), mesh_of(ONE[platform]))


def of_corruption(name, *, severity=3, count=1000):
    values, static = (), transforms.constants_of(name, severity)
    if transforms.CORRUPTIONS[name].traced:
        values, static = array(len(static)), ()

    def corrupt(key, images, numbers, values):
        options = {"name": name, "static": static}
        return transforms._corrupt(key, images, numbers, values, **options)

    images = array(count, 32, 32, 3, dtype=jnp.uint8)
    return Program(corrupt, (KEY, images, array(count, dtype=jnp.int32), values))


# Those that read pixels or tables at random places, of which a TPU reads one after the
# other: bytes would be 10,000 times those of the images, and more.
RANDOM_READS = ("shot_noise", "glass_blur", "elastic_transform")


@pytest.mark.parametrize(
    "name",
    [
        name if name == "shot_noise" else pytest.param(name, marks=pytest.mark.slow)
        for name in transforms.CORRUPTIONS
    ],
)
def test_corruptions_compile(name, platform):
    found = costs(compiled(of_corruption(name), mesh_of(ONE[platform])))
    ideal = 1000 * 32 * 32 * 3 * 2  # bytes to read the images, and to write others
    limit = 100 if name in RANDOM_READS and platform == "tpu" else 300
    assert found.bytes_accessed < limit * ideal


@pytest.mark.slow
@pytest.mark.parametrize("name", perturbations.NAMES)
def test_perturbations_compile(name, platform):
    images = array(100, 32, 32, 3, dtype=jnp.uint8)
    perturb = functools.partial(perturbations.sequence, name=name)
    found = costs(compiled(Program(perturb, (KEY, images)), mesh_of(ONE[platform])))
    ideal = 100 * 32 * 32 * 3 * (1 + perturbations.PERTURBATIONS[name].frames)
    assert found.bytes_accessed < 300 * ideal
