"""Rivals against the networks that their members are, each built by itself."""

import dataclasses

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spatial_smoothing import ensembles, models
from spatial_smoothing.models import rivals
from spatial_smoothing.models.rivals import masksembles
from spatial_smoothing.runs import restricted, workdirs
from spatial_smoothing.training import freezing, losses

M, K, B = 3, 5, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(B, 8, 8, 3)).astype(np.float32)
MASK = np.array([True, True, True, False])
BATCH = {"image": IMAGES, "label": np.array([3, 0, 4, 1]), "mask": MASK}
# A projected shortcut, smoothing, two norms in a row; and dense layers in a row.
RESNET = {"name": "resnet_dnn_smoothing_18", "stages": (1, 1), "width": 12}
VGG = {"name": "prevgg_dnn_smoothing_11", "stages": (1, 1), "width": 12}
PRERESNET = {"name": "preresnet_mcdo_50", "stages": (1, 1), "width": 12}


def build(row, **fields):
    return models.build(**{"num_classes": K, **row, **fields})


def rival(row, ensemble, **fields):
    """A rival and variables that are not their initial values."""
    network = build(row, ensemble=ensemble, ensemble_size=M, **fields)
    variables = network.init(jax.random.key(0), IMAGES[:1])
    rng = np.random.default_rng(1)
    moved = jax.tree.map(
        lambda leaf: np.float32(leaf + rng.uniform(-0.3, 0.3, leaf.shape)), variables
    )
    return network, moved


def logits(network, variables, images=IMAGES, **options):
    return jax.jit(lambda v, x: network.apply(v, x, **options))(variables, images)


def members_of(tree, convert):
    """Variables of the M members: `convert(path, arrays, m)` for each layer."""
    flat = flax.traverse_util.flatten_dict(tree)
    layers = {}
    for path, value in flat.items():
        layers.setdefault(path[:-1], {})[path[-1]] = value
    return [
        flax.traverse_util.unflatten_dict(
            {
                (*path, name): value
                for layer, arrays in layers.items()
                for path, name, value in [
                    (path, name, value)
                    for path, found in convert(layer, arrays, member)
                    for name, value in found.items()
                ]
            }
        )
        for member in range(M)
    ]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("row", [RESNET, {**VGG, "head": "gap_mlp"}])
def test_members_of_a_batch_ensemble_have_kernels_w_times_r_s(row, train, monkeypatch):
    monkeypatch.setitem(models.heads.HEADS["gap_mlp"], "hidden", (6,))
    network, variables = rival(row, "batch")
    params = flax.traverse_util.flatten_dict(variables["params"])

    def convert(path, arrays, m):
        if path[-1] == "members":  # of a normalisation
            found = {name: np.split(each, M)[m] for name, each in arrays.items()}
            return [(path[:-1], found)]
        if path[-1] == "shared":
            r, s = (params[(*path[:-1], name)][m] for name in "rs")
            return [(path[:-1], {"kernel": arrays["kernel"] * np.outer(r, s)})]
        return [(path, {"bias": arrays["bias"][m]})] if "bias" in arrays else []

    each = zip(
        members_of(variables["params"], convert),
        members_of(variables["batch_stats"], convert),
        strict=True,
    )
    plain, options = build(row), {"train": train, "mask": MASK}
    options |= {"mutable": ["batch_stats"]} if train else {}
    found = logits(network, variables, **options)
    expected = [
        logits(plain, {"params": params, "batch_stats": stats}, **options)
        for params, stats in each
    ]
    if not train:
        found, expected = (found, {}), [(each, {}) for each in expected]
    np.testing.assert_allclose(
        np.array(found[0])[:, MASK],
        np.array([each for each, _ in expected])[:, MASK],
        rtol=1e-3,
        atol=1e-4,
    )
    if train:  # each member has its own statistics
        stats = [flax.traverse_util.flatten_dict(each) for _, each in expected]
        of_all = flax.traverse_util.flatten_dict(found[1])
        for path, value in of_all.items():
            one = [each[tuple(p for p in path if p != "members")] for each in stats]
            one = np.concatenate(one)
            np.testing.assert_allclose(value, one, rtol=1e-3, atol=1e-5)


def test_factors_begin_as_signs_and_learn_half_as_fast():
    network = build(RESNET, ensemble="batch", ensemble_size=M)
    params = network.init(jax.random.key(0), IMAGES[:1])["params"]["stem_conv"]
    assert set(np.unique(params["r"])) == set(np.unique(params["s"])) == {-1.0, 1.0}
    layer = rivals.batch_ensemble.FastWeights(
        lambda name: flax.linen.Dense(2, use_bias=False, name=name), size=2
    )
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    params = layer.init(jax.random.key(0), x)["params"]
    grads = jax.grad(lambda p: layer.apply({"params": p}, x).sum())(params)
    shared, parts = params["shared"]["kernel"], x.reshape(2, 2, 3)
    r = 0.5 * np.einsum("mbi,io,mo->mi", parts, shared, params["s"])
    np.testing.assert_allclose(grads["r"], r, rtol=1e-5)


@pytest.mark.parametrize(
    ("row", "alpha", "gamma"),
    [(RESNET, 2.0, 1), (RESNET, 1.0, 2), ({**VGG, "head": "gap_mlp"}, 1.5, 2)],
)
def test_members_of_a_packed_ensemble_are_narrow_networks(
    row, alpha, gamma, monkeypatch
):
    width = int(alpha * row["width"]) // M
    # The hidden layer has as many values as a member of it has in the narrow network.
    monkeypatch.setitem(models.heads.HEADS["gap_mlp"], "hidden", (8,))
    network, variables = rival(row, "packed", alpha=alpha, gamma=gamma)
    found = logits(network, variables)

    def part(values, m):
        return np.split(values, M, axis=-1)[m]

    def convert(path, arrays, m):
        if path[0] == "head" and "kernel" in arrays:
            blocks = np.split(arrays["kernel"], M)[m]
            kernel = jax.scipy.linalg.block_diag(*blocks)
            return [(path, {"kernel": kernel, "bias": part(arrays["bias"], m)})]
        found = {name: part(value, m) for name, value in arrays.items()}
        if "kernel" in found and gamma > 1 and path != FIRST[row["name"]]:
            # Groups of a member, as a kernel that has zeros between them.
            groups = np.split(found["kernel"], gamma, axis=-1)
            whole = np.zeros(
                (*groups[0].shape[:2], *np.multiply(groups[0].shape[2:], gamma))
            )
            for g, kernel in enumerate(groups):
                i, o = kernel.shape[2:]
                whole[:, :, g * i : (g + 1) * i, g * o : (g + 1) * o] = kernel
            found["kernel"] = np.float32(whole)
        return [(path, found)]

    each = zip(
        members_of(variables["params"], convert),
        members_of(variables["batch_stats"], convert),
        strict=True,
    )
    hidden = variables["params"]["head"].get("dense1", {"bias": np.zeros(M)})["bias"]
    monkeypatch.setitem(models.heads.HEADS["gap_mlp"], "hidden", (len(hidden) // M,))
    plain = build(row, width=width)
    expected = [
        logits(plain, {"params": params, "batch_stats": stats})
        for params, stats in each
    ]
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-3, atol=1e-4)


FIRST = {
    "resnet_dnn_smoothing_18": ("stem_conv",),
    "prevgg_dnn_smoothing_11": ("stage0_block0", "conv"),
}


def test_members_of_masksembles_see_channels_of_their_mask():
    network, variables = rival(RESNET, "masksembles", scale=2.5)
    plain, expected = build(RESNET), []
    for m in range(M):
        params = jax.tree.map(np.array, variables["params"])
        for block, width in (("stage1_block0", 12), ("stage2_block0", 24)):
            seed = masksembles.zlib.crc32(f"{block}/Masks_0".encode())
            kept = masksembles.masks(width, M, 2.5, seed=seed)[m]
            params[block]["conv2"]["kernel"][:, :, ~kept] = 0
        expected.append(logits(plain, {**variables, "params": params}))
    found = logits(network, variables)
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-3, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-2


@pytest.mark.parametrize("channels", [10, 16, 37, 64, 256])
@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 4.0])
def test_masks_are_those_of_the_published_algorithm(channels, scale):
    found = masksembles.masks(channels, 4, scale, seed=5)
    assert found.shape == (4, channels)
    assert len(set(found.sum(1))) == 1  # masks have the same number of ones
    assert found.any(0).all()  # and no channel is lost
    again = masksembles.masks.__wrapped__(channels, 4, scale, seed=5)
    np.testing.assert_array_equal(found, again)
    if scale == 1:
        assert found.all()
    # m ones in m s places share 1 / s of them with another mask.
    if channels == 256:
        shared = [
            (a & b).sum() / a.sum() for i, a in enumerate(found) for b in found[:i]
        ]
        assert np.mean(shared) == pytest.approx(1 / scale, abs=0.08)


@pytest.mark.parametrize("row", [RESNET, PRERESNET])
def test_members_of_mimo_are_heads_of_one_network(row):
    network, variables = rival(row, "mimo")
    images = RNG.normal(size=(B, 8, 8, 3 * M)).astype(np.float32)
    # One image for each member: the first layer adds up what it makes of each.
    plain, expected = build(row), []
    head = variables["params"]["head"]["dense"]
    stem = variables["params"]["stem_conv"]["kernel"]
    assert stem.shape[2] == 3 * M
    for m in range(M):
        kernel = head["kernel"][:, m * K : (m + 1) * K]
        dense = {"kernel": kernel, "bias": head["bias"][m * K : (m + 1) * K]}
        # Copies of an image meet the sum of the kernels of all members.
        params = {
            **variables["params"],
            "head": {**variables["params"]["head"], "dense": dense},
            "stem_conv": {"kernel": sum(np.split(stem, M, axis=2))},
        }
        expected.append(logits(plain, {**variables, "params": params}))
    found = logits(network, variables)
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-3, atol=1e-4)
    assert logits(network, variables, images).shape == (M, B, K)


@pytest.mark.parametrize("ensemble", ["batch", "packed", "masksembles", "mimo"])
def test_a_run_tells_some_of_its_classes_apart(ensemble):
    network, variables = rival(RESNET, ensemble)
    path = workdirs.epath.Path("run")
    run = workdirs.Run(path, {}, network, variables, step=0)
    some = restricted.restrict(run, (1, 4))
    found = logits(some.model, some.variables)
    expected = logits(network, variables)[..., np.array([1, 4])]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def arranged(count=12, size=3, padding=4, **fields):
    mask = np.arange(count) < count - padding
    np.random.default_rng(3).shuffle(mask)  # padding may be anywhere
    labels = np.arange(count)
    images = np.broadcast_to(labels[:, None, None, None], (count, 2, 2, 3))
    batch = {"image": images.astype(np.float32), "label": labels, "mask": mask}
    found = rivals.mimo.Mimo(size, **fields).arrange(jax.random.key(4), batch)
    return batch, found.batch, found.order


@pytest.mark.parametrize("repeats", [1, 2])
def test_labels_of_mimo_follow_the_images_and_padding_stays_at_the_end(repeats):
    given, batch, order = arranged(batch_repetitions=repeats)
    real = np.flatnonzero(given["mask"])
    count = repeats * len(real)
    np.testing.assert_array_equal(batch["mask"], np.arange(12 * repeats) < count)
    assert batch["image"].shape == (12 * repeats, 2, 2, 9)
    for m, labels in enumerate(batch["label"]):
        of_images = batch["image"][:, 0, 0, 3 * m]
        np.testing.assert_array_equal(of_images, labels)
        # Each member sees each image as often as the others.
        seen = np.sort(labels[:count])
        np.testing.assert_array_equal(seen, np.repeat(real, repeats))
    np.testing.assert_array_equal(order, batch["label"][0])
    assert (batch["label"][0] != batch["label"][1]).any()


def test_repetition_is_the_share_of_places_with_one_image():
    for repetition, least in ((1.0, 8), (0.5, 4)):
        _, batch, _ = arranged(repetition=repetition)
        labels = np.array(batch["label"])[:, :8]
        same = (labels == labels[0]).all(0)
        assert same.sum() >= least
        assert same[8 - least :].all()
    assert not same.all()


def test_draws_do_not_depend_on_64_bit_types():
    signs, labels = [], []
    for wide in (False, True):
        with jax.enable_x64(wide):
            network = build(RESNET, ensemble="batch", ensemble_size=M)
            params = network.init(jax.random.key(0), IMAGES[:1])["params"]
            signs.append(np.array(params["stem_conv"]["r"]))
            labels.append(np.array(arranged(repetition=0.3)[1]["label"]))
    np.testing.assert_array_equal(*signs)
    np.testing.assert_array_equal(*labels)


@pytest.mark.parametrize("ensemble", ["batch", "packed", "masksembles", "mimo"])
def test_the_loss_is_the_mean_over_members_and_examples(ensemble):
    network, variables = rival(RESNET, ensemble)
    key = jax.random.key(7)
    of = lambda **options: losses.training_loss(
        network, variables, BATCH, dropout_key=key, **options
    )
    loss, outputs = jax.jit(lambda: of(train=False))()
    found = np.float64(logits(network, variables))
    log_probs = found - np.log(np.exp(found).sum(-1, keepdims=True))
    each = -log_probs[:, np.arange(B), BATCH["label"]]
    assert loss == pytest.approx(each[:, MASK].mean(), rel=1e-4)
    mean = np.log(np.exp(log_probs).mean(0))
    np.testing.assert_allclose(outputs.logits, mean, rtol=1e-3, atol=1e-4)
    if ensemble != "mimo":
        return
    # In training, images and labels are arranged, and come back in their order.
    loss, outputs = jax.jit(of)()
    arrange = rivals.of(network).arrange
    batch, order = arrange(jax.random.fold_in(key, losses._ARRANGEMENT), BATCH)
    found, _ = network.apply(
        variables, batch["image"], train=True, mask=batch["mask"], mutable="batch_stats"
    )
    each = optax.softmax_cross_entropy_with_integer_labels(found, batch["label"])
    assert loss == pytest.approx(float(each[:, :3].mean()), rel=1e-4)
    np.testing.assert_allclose(outputs.logits[order], found[0], rtol=1e-3, atol=1e-4)


def test_padding_does_not_change_the_statistics_of_any_rival():
    other = {**BATCH, "image": np.where(MASK[:, None, None, None], IMAGES, 9.0)}
    for ensemble in rivals.ENSEMBLES:
        network, variables = rival(RESNET, ensemble)
        step = jax.jit(
            lambda batch, network=network, variables=variables: losses.training_loss(
                network, variables, batch, dropout_key=jax.random.key(1)
            )
        )
        (loss, outputs), (expected, same) = step(other), step(BATCH)
        assert loss == pytest.approx(float(expected), rel=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            outputs.batch_stats,
            same.batch_stats,
        )


def test_predictions_of_a_pass_are_samples_of_the_mixture():
    network, variables = rival(RESNET, "batch", rate=0.3)
    key, each = jax.random.key(2), []
    function = ensembles.as_apply(network)
    for index in range(2):
        pass_key = ensembles.sample_keys(jax.random.fold_in(key, 0), jnp.arange(2))[
            index
        ]
        each += list(jax.nn.softmax(function(variables, IMAGES, pass_key)))
    predict = ensembles.predictor(network, sizes=(1, 2))
    lineup = jax.jit(predict)(variables, key, IMAGES).mixtures
    np.testing.assert_array_equal(lineup.each.size, [[M, 2 * M]])
    for index, count in enumerate((M, 2 * M)):
        mean = np.mean(each[:count], axis=0)
        found = np.exp(lineup.each.log_probs()[0, index])
        np.testing.assert_allclose(found, mean, rtol=1e-3, atol=1e-6)
    # The deterministic part is shared by the samples, and loses no member.
    probs = ensembles.mc_dropout(
        jax.random.fold_in(key, 0), network, variables, IMAGES, num_samples=2
    )
    np.testing.assert_allclose(probs, each, rtol=1e-3, atol=1e-6)
    without = network.clone(rate=0.0)
    stacked = ensembles.stack([variables, variables])
    deep = ensembles.deep_ensemble(without, stacked, IMAGES)
    alone = jax.nn.softmax(logits(without, variables))
    np.testing.assert_allclose(deep, np.tile(alone, (2, 1, 1)), rtol=1e-3, atol=1e-6)
    both = ensembles.predictor(without, num_members=2, dropout=False)
    lineup = jax.jit(both)(stacked, key, IMAGES).mixtures
    np.testing.assert_array_equal(lineup.deep.size, [2 * M])
    np.testing.assert_allclose(
        np.exp(lineup.deep.log_probs()[0]), alone.mean(0), rtol=1e-3, atol=1e-6
    )


def test_normalisation_of_members_can_be_frozen():
    network, variables = rival(RESNET, "batch")
    with freezing.evaluating(["stage1"]):
        _, updates = network.apply(
            variables, IMAGES, train=True, mutable=["batch_stats"]
        )
    for name, stats in updates["batch_stats"].items():
        before = variables["batch_stats"][name]
        moved = jax.tree.map(lambda a, b: (a != b).any(), stats, before)
        assert all(jax.tree.leaves(moved)) == (freezing.part_of(name) != "stage1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ensemble": "batch", "ensemble_size": 1}, "ensemble_size must be at least 2"),
        ({"ensemble": "bach"}, "unknown ensemble 'bach'; did you mean 'batch'"),
        ({"ensemble": "packed", "alpha": 0.0}, "alpha must be above 0 and finite"),
        ({"ensemble": "packed", "alpha": np.inf}, "above 0 and finite, got inf"),
        (
            {"ensemble": "packed", "name": "resnext_dnn_50", "width": 16},
            "64 channels in front of 4 x 32 groups, which do not divide them",
        ),
        ({"ensemble": "packed", "squash": "softmax"}, "take another squash"),
        ({"ensemble": "masksembles", "scale": 7.0}, r"scale must be in \[1, 6\]"),
        ({"ensemble": "masksembles", "width": 4}, "at least 10 channels, got 4"),
        (
            {"ensemble": "masksembles", "stage_rates": (0.0, 0.2), "mc_stages": (1,)},
            "leave no place: all members would be equal",
        ),
        ({"ensemble": "mimo", "repetition": 1.5}, r"repetition must be in \[0, 1\]"),
        ({"ensemble": "mimo", "name": "unet"}, "'mimo' is for classifiers, and UNet"),
    ],
)
def test_fields_that_make_no_ensemble_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(build({**RESNET, **fields}).init, jax.random.key(0), IMAGES[:1])


def test_a_network_without_an_ensemble_has_the_fields_of_before():
    fields = {
        field.name: field.default
        for field in dataclasses.fields(models.network.Network)
    }
    assert fields["ensemble"] is None
    assert rivals.of(build(RESNET)) is None
