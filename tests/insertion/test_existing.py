import functools
import re
import threading
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spatial_smoothing as ss
from spatial_smoothing import ensembles, evaluation
from spatial_smoothing.insertion import add_mc_dropout, add_smoothing

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (3, 32, 32, 3))


def identity(x):
    return x


counting = functools.partial(nn.avg_pool, count_include_pad=False)


class CNN(nn.Module):
    """Convolutions and pools, with what is to be inserted written out as `before`."""

    pool: Callable = nn.avg_pool  # as if imported by name, before anything is wrapped
    before: Callable = identity
    flatten: bool = False

    @nn.compact
    def __call__(self, x):
        pool = self.pool
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        x = pool(self.before(x), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        x = pool(self.before(x), window_shape=(2, 2), strides=(2, 2), padding="SAME")
        x = pool(x, (2, 2))  # does not subsample
        x = x.reshape(len(x), -1) if self.flatten else x.mean((1, 2))
        return nn.Dense(5)(x)


class Bottleneck(nn.Module):
    """The stride is that of the 3x3 convolution and of the shortcut."""

    features: int
    stride: int
    norm: Callable
    before: Callable = identity

    @nn.compact
    def __call__(self, x):
        before = self.before if self.stride > 1 else identity
        y = nn.Conv(self.features, (1, 1), use_bias=False)(x)
        y = before(nn.relu(self.norm()(y)))
        y = nn.Conv(self.features, (3, 3), self.stride, use_bias=False)(inputs=y)
        y = nn.relu(self.norm()(y))
        y = nn.Conv(4 * self.features, (1, 1), use_bias=False)(y)
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        if y.shape != x.shape:
            strides = (self.stride, self.stride)
            x = nn.Conv(4 * self.features, (1, 1), strides, name="project")(before(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Small, but in the style of ImageNet: strided stem, max-pool, bottlenecks."""

    depths: Sequence[int] = (1, 1)
    before: Callable = identity
    block: type[nn.Module] = Bottleneck

    @nn.compact
    def __call__(self, x, train: bool = True):
        def norm(**kwargs):
            return nn.BatchNorm(use_running_average=not train, **kwargs)

        x = nn.Conv(4, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], name="stem")(x)
        x = nn.relu(norm(name="stem_norm")(x))
        x = nn.max_pool(self.before(x), (3, 3), strides=(2, 2), padding="SAME")
        for stage, depth in enumerate(self.depths):
            for index in range(depth):
                stride = 2 if stage and not index else 1
                name = f"stage{stage}_block{index}"
                x = self.block(4 << stage, stride, norm, self.before, name=name)(x)
        return nn.Dense(5, name="head")(x.mean((1, 2)))


class Tiny(nn.Module):
    """The least that has something to subsample."""

    @nn.compact
    def __call__(self, x):
        return nn.max_pool(nn.Conv(5, (1, 1))(x), (8, 8), (8, 8)).mean((1, 2))


MAKE = {
    "avg_pool": CNN,
    "avg_pool that counts": lambda **kwargs: CNN(pool=counting, **kwargs),
    "max_pool": lambda **kwargs: CNN(pool=nn.max_pool, **kwargs),
    "resnet": ResNet,
    "remat": lambda **kwargs: ResNet(block=nn.remat(Bottleneck), **kwargs),
    "jit": lambda **kwargs: ResNet(block=nn.jit(Bottleneck), **kwargs),
}


def trained(model):
    """Variables of which none has its initial value, as after training."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.uniform(-0.3, 1, leaf.shape).astype(leaf.dtype) ** 2,
        jax.eval_shape(model.init, KEY, IMAGES),
    )


def evaluated(model, variables):
    kwargs = {} if isinstance(model, CNN) else {"train": False}
    apply = jax.jit(lambda variables: model.apply(variables, IMAGES, **kwargs))
    return apply(variables)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("avg_pool", {}),
        ("avg_pool that counts", {}),
        ("max_pool", {"squash": "none", "taps": [1, 2, 1], "padding": "reflect"}),
        ("resnet", {}),
        ("remat", {"padding": "same"}),
        ("jit", {"temperature": 3.0}),
    ],
)
def test_smoothing_is_what_one_would_write_before_each_subsampling(name, options):
    model = MAKE[name]()
    by_hand = MAKE[name](before=lambda x: ss.smooth(x, **options))
    variables = trained(model)
    result = evaluated(add_smoothing(model, **options), variables)
    np.testing.assert_allclose(result, evaluated(by_hand, variables), rtol=1e-5)


def test_smoothing_changes_the_result():
    variables = trained(CNN())
    result = add_smoothing(CNN()).apply(variables, IMAGES)
    assert np.abs(result - CNN().apply(variables, IMAGES)).max() > 0.1


@pytest.mark.parametrize("name", MAKE)
def test_the_parameter_tree_is_unchanged(name):
    model = MAKE[name]()
    wrapped = add_mc_dropout(add_smoothing(model), 0.2)
    shapes = lambda module: jax.eval_shape(module.init, KEY, IMAGES)
    assert shapes(wrapped) == shapes(model)


def test_initial_values_are_those_of_the_model():
    model = Tiny()
    wrapped = add_mc_dropout(add_smoothing(model), 0.2)
    keys = {"params": KEY, "dropout": jax.random.key(5)}
    assert_same(wrapped.init(keys, IMAGES), model.init(KEY, IMAGES))


def test_training_updates_the_statistics_of_the_model():
    variables = trained(ResNet())

    def updated(model):
        options = {"train": True, "mutable": ["batch_stats"]}
        return jax.jit(lambda v: model.apply(v, IMAGES, **options)[1])(variables)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        updated(add_smoothing(ResNet())),
        updated(ResNet(before=ss.smooth)),
    )


def test_the_input_is_not_smoothed_nor_the_shortcut_that_sees_it():
    class Block(nn.Module):
        before: Callable = identity

        @nn.compact
        def __call__(self, x):
            x = 2 * x - 1
            y = nn.Conv(4, (3, 3), strides=2)(x) + nn.Conv(4, (1, 1), strides=2)(x)
            return nn.Conv(4, (3, 3), strides=2)(self.before(y))

    variables = Block().init(KEY, IMAGES)
    result = add_smoothing(Block()).apply(variables, IMAGES)
    expected = Block(before=ss.smooth).apply(variables, IMAGES)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", ["resnet_{}_18", "vgg_{}_11"])
def test_smoothing_after_the_stages_is_the_network_of_the_paper(name):
    stages = (1, 2, 1) if name.startswith("resnet") else (1, 1, 2, 1, 1)
    build = lambda method: ss.models.build(
        name.format(method), num_classes=5, width=4, head="gap", stages=stages
    )
    model, expected = build("dnn"), build("dnn_smoothing")
    variables = trained(expected)
    first = 0 if name.startswith("vgg") else 1
    where = [
        f"stage{stage}_block{count - 1}"
        for stage, count in enumerate(model.stages, first)
    ]
    result = evaluated(add_smoothing(model, where=where), variables)
    np.testing.assert_allclose(result, evaluated(expected, variables), rtol=1e-5)


def test_smoothing_after_the_norm_is_smoothing_after_its_relu():
    by_hand = ResNet(depths=(1,), before=ss.smooth)
    by_path = add_smoothing(ResNet(depths=(1,)), where="stem_norm")
    variables = trained(by_hand)
    np.testing.assert_allclose(
        evaluated(by_path, variables), evaluated(by_hand, variables), rtol=1e-5
    )


class Nested(nn.Module):
    """Blocks of paths such as "layer2/block0", each of which adds one."""

    @nn.compact
    def __call__(self, x):
        class Add(nn.Module):
            @nn.compact
            def __call__(self, x):
                return x + 1

        class Layer(nn.Module):
            @nn.compact
            def __call__(self, x):
                return Add(name="block1")(Add(name="block0")(x))

        return Layer(name="layer2")(Layer(name="layer1")(x))


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("layer2/*", 2),
        ("layer*", 2),
        ("*/block1", 2),
        (["layer1/block0", "layer?"], 3),
        (lambda path, module: path.startswith("layer"), 6),
        (lambda path, module: type(module).__name__ == "Add", 4),
    ],
)
def test_where_chooses_modules(where, count):
    model = add_smoothing(Nested(), where=where)
    assert model.apply({}, IMAGES).shape[1] == 32 + count


@pytest.mark.parametrize(
    ("model", "where", "message"),
    [
        (
            Nested(),
            "layer3/*",
            r"no place for smoothing: no module matches 'layer3/\*'; .* of: layer1, "
            "layer1/block0, layer1/block1, layer2, layer2/block0, layer2/block1\n",
        ),
        (Nested(), ["layer1", "block0"], "no module matches 'block0'"),
        (Nested(), "*/*/*", "no module matches"),
        (Nested(), "subsampling", "nothing is subsampled after the first convolution"),
        (Nested(), lambda *_: False, "where= is true for no module; .*layer1/block1"),
        (CNN(), "Dense_0", r"smoothing after Dense_0 needs .*, got float32\[3, 5\]"),
    ],
)
def test_a_place_that_is_not_there_is_named(model, where, message):
    wrapped = add_smoothing(model, where=where)
    variables = jax.eval_shape(model.init, KEY, IMAGES)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(wrapped.apply, variables, IMAGES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: add_smoothing(CNN(), squash="tahn"), "did you mean 'tanh'"),
        (lambda: add_smoothing(CNN(), padding="valid"), "unknown padding 'valid'"),
        (lambda: add_smoothing(CNN(), temperature=0), "must be positive, got 0"),
        (lambda: add_smoothing(CNN(), where=[]), r"where must be .*, got \[\]"),
        (lambda: add_smoothing(CNN(), where=["a", 2]), r"got \['a', 2\]"),
        (lambda: add_smoothing(CNN(), where=None), "where must be .*, got None"),
        (lambda: add_smoothing(CNN(), where=re.compile("a")), "where must be .*, got "),
        (lambda: add_smoothing(CNN(), taps=3), "taps must be a sequence .*, got 3"),
        (lambda: add_mc_dropout(CNN(), 1.0), r"rate must be in \[0, 1\), got 1.0"),
    ],
)
def test_unusable_options_are_errors_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_temperature_may_be_an_array():
    model, t = Tiny(), jnp.float32(2)
    variables = trained(model)
    expected = evaluated(add_smoothing(model, temperature=2.0), variables)
    found = evaluated(add_smoothing(model, temperature=t), variables)
    np.testing.assert_array_equal(found, expected)


def test_a_head_of_fixed_size_needs_padding_same():
    model = CNN(flatten=True)
    variables = trained(model)
    with pytest.raises(ValueError, match="padding='same' keeps it"):
        add_smoothing(model, where="Conv_1").apply(variables, IMAGES)
    same = add_smoothing(model, where="Conv_1", padding="same")
    assert same.apply(variables, IMAGES).shape == (3, 5)


def test_a_wrapped_model_is_a_module_like_any_other():
    class Classifier(nn.Module):
        wrap: Callable = identity

        @nn.compact
        def __call__(self, x):
            x = self.wrap(CNN(name="backbone"))(x)
            return nn.Dense(2)(x)

    class Given(nn.Module):
        backbone: nn.Module

        def __call__(self, x):
            return self.backbone(x)

    wrap = lambda model: add_mc_dropout(add_smoothing(model), 0.5)
    variables = trained(Classifier())
    shapes = jax.eval_shape(Classifier(wrap).init, KEY, IMAGES)
    assert shapes == jax.eval_shape(Classifier().init, KEY, IMAGES)
    wrapped, model = Classifier(add_smoothing), Classifier()
    assert not np.allclose(
        wrapped.apply(variables, IMAGES), model.apply(variables, IMAGES)
    )
    shapes = jax.eval_shape(Given(wrap(CNN())).init, KEY, IMAGES)
    assert shapes == jax.eval_shape(Given(CNN()).init, KEY, IMAGES)
    twice = add_smoothing(Given(add_smoothing(Nested(), where="*")), where="backbone")
    assert twice.apply({}, IMAGES).shape[1] == 32 + 3
    outer = add_smoothing(Given(add_smoothing(CNN())), where="backbone/Conv_1")
    inner = add_smoothing(add_smoothing(CNN()), where="Conv_1", squash="tanh")
    variables = trained(CNN())
    nested = {"params": {"backbone": variables["params"]}}
    np.testing.assert_allclose(
        outer.apply(nested, IMAGES), inner.apply(variables, IMAGES), rtol=1e-5
    )


def test_models_outside_the_wrapper_are_untouched_while_it_runs():
    model, variables = CNN(), trained(CNN())
    expected = model.apply(variables, IMAGES)
    seen = []

    class Spy(nn.Module):
        def __call__(self, x):
            def other():
                seen.append(model.apply(variables, IMAGES))

            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            return x

    class Both(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(3, (1, 1))(x)  # what is pooled from here on is smoothed
            return nn.max_pool(Spy()(x), (2, 2), (2, 2))

    both = Both().init(KEY, IMAGES)
    seen.clear()
    assert add_smoothing(Both()).apply(both, IMAGES).shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(seen, [expected])
    np.testing.assert_array_equal(model.apply(variables, IMAGES), expected)


def test_dropout_is_live_exactly_when_its_rng_is_given():
    model = ResNet(depths=())
    wrapped, variables = add_mc_dropout(model, 0.5), trained(model)

    @jax.jit
    def results(keys):
        sample = lambda key: wrapped.apply(
            variables, IMAGES, train=False, rngs={"dropout": key}
        )
        return jax.vmap(sample)(keys), wrapped.apply(variables, IMAGES, train=False)

    samples, mean = results(jnp.stack([KEY, KEY, jax.random.key(1)]))
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.allclose(samples[0], samples[2])
    np.testing.assert_allclose(mean, evaluated(model, variables), rtol=1e-5)


class Ones(nn.Module):
    """Subsamples maps of ones, and sums them up."""

    features: int = 1

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.features, (1, 1), kernel_init=nn.initializers.zeros)(x) + 1
        return nn.Conv(1, (1, 1), (2, 2), kernel_init=nn.initializers.ones)(x)


def test_dropout_is_elementwise_and_keeps_the_mean():
    images, model = jnp.zeros((1, 400, 400, 3)), Ones(features=2)
    variables = model.init(KEY, images)
    wrapped = add_mc_dropout(model, 0.25)
    result = wrapped.apply(variables, images, rngs={"dropout": KEY})
    levels, counts = np.unique(result, return_counts=True)
    np.testing.assert_allclose(levels, np.arange(3) / 0.75, rtol=1e-6)
    binomial = np.array([0.25**2, 2 * 0.25 * 0.75, 0.75**2])
    np.testing.assert_allclose(counts / 200**2, binomial, atol=0.01)  # 4 sigma


@pytest.mark.parametrize("order", ["smoothing first", "dropout first"])
def test_smoothing_averages_the_noise_of_dropout(order):
    if order == "smoothing first":
        wrapped = add_mc_dropout(add_smoothing(Ones(), padding="same"), 0.5)
    else:
        wrapped = add_smoothing(add_mc_dropout(Ones(), 0.5), padding="same")
    images = jnp.zeros((1, 64, 64, 3))
    result = wrapped.apply(
        Ones().init(KEY, images), images, rngs={"dropout": KEY}, train=True
    )
    levels = 10 * np.tanh(2 / 10) * np.arange(5) / 4  # means of four of 0 and 2
    np.testing.assert_allclose(np.unique(np.round(result, 5)), levels, atol=1e-5)


def test_dropout_is_before_a_chosen_module():
    class Doubled(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(1, kernel_init=nn.initializers.ones, name="first")(x)
            return 2 * nn.Dense(1, kernel_init=nn.initializers.ones, name="last")(x)

    wrapped = add_mc_dropout(Doubled(), 0.5, where="last")
    x = jnp.ones((100, 8))
    result = wrapped.apply(wrapped.init(KEY, x), x, rngs={"dropout": KEY})
    np.testing.assert_allclose(np.unique(result), [0, 2 * 2 * 8])  # not between


def test_training_without_a_key_is_an_error():
    wrapped = add_mc_dropout(ResNet(), 0.2)
    variables = jax.eval_shape(wrapped.init, KEY, IMAGES)
    with pytest.raises(ValueError, match=r"rate 0\.2 needs a key; pass rngs="):
        wrapped.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    with pytest.raises(ValueError, match=r"rate 0\.2 needs a key; pass rngs="):
        wrapped.apply(variables, IMAGES, True, mutable=["batch_stats"])


def test_dropout_hidden_by_a_transformation_is_an_error():
    class Step(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(3, name="dense")(x), None

    class Scanned(nn.Module):
        split_rngs: dict

        @nn.compact
        def __call__(self, x):
            steps = nn.scan(
                Step,
                variable_axes={"params": 0},
                split_rngs={"params": True, **self.split_rngs},
                length=2,
            )
            return steps(name="steps")(x, None)[0]

    x = jnp.ones((4, 3))
    wrap = lambda **split_rngs: add_mc_dropout(
        Scanned(split_rngs), 0.5, where="steps/dense"
    )
    variables = wrap().init(KEY, x)
    rngs = {"rngs": {"dropout": KEY}}
    with pytest.raises(ValueError, match=r"before steps/dense .* split_rngs="):
        wrap().apply(variables, x, **rngs)
    assert not np.allclose(
        wrap(dropout=True).apply(variables, x, **rngs), wrap().apply(variables, x)
    )


def test_ensembles_and_evaluation_take_a_wrapped_model():
    wrapped, variables = add_mc_dropout(Tiny(), 0.5), trained(Tiny())
    probs = ss.mc_dropout(KEY, wrapped, variables, IMAGES, num_samples=4)
    assert probs.shape == (4, 3, 5)
    assert len(np.unique(probs[:, 0, 0])) == 4
    predict = ensembles.predictor(wrapped, prepare=identity, sizes=(1, 4))
    batch = {
        "image": IMAGES,
        "label": jnp.array([0, 1, 2]),
        "mask": jnp.ones(3, bool),
    }
    tallies = evaluation.compile_tallies(predict)(variables, KEY, [batch])
    one, four = ensembles.named(tallies).values()
    assert one.nll != four.nll


def test_wrapped_models_are_told_that_they_do_not_train():
    class Required(nn.Module):
        """The mode has no default, and dropout of its own is usually off."""

        @nn.compact
        def __call__(self, x, train, deterministic=True):
            x = nn.BatchNorm(use_running_average=not train)(nn.Conv(5, (1, 1))(x))
            x = nn.Dropout(0.5, deterministic=deterministic)(x)
            return nn.max_pool(x, (8, 8), (8, 8)).mean((1, 2))

    model, wrapped = Required(), add_smoothing(Required())
    variables = wrapped.init(KEY, IMAGES, train=False)
    probs = ss.mc_dropout(KEY, wrapped, variables, IMAGES, num_samples=3)
    assert len(np.unique(probs[:, 0, 0])) == 3  # by the model's own dropout
    logits = ensembles.as_apply(wrapped)(variables, IMAGES)
    expected = wrapped.apply(variables, IMAGES, train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    assert wrapped.wrapped_model == model
