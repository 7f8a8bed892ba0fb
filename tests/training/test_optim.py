import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spatial_smoothing import models
from spatial_smoothing.convert import from_pytorch
from spatial_smoothing.training import optim, steps

NAME = "resnet_dnn_18"
NORMS = golden.arrays("training")


def recipe(**options):
    return optim.warmup_multistep(0.1, steps_per_epoch=10, **options)


def test_learning_rates_equal_golden_values():
    count = np.arange(2010)
    rates = jax.vmap(recipe())(count)
    np.testing.assert_allclose(rates, NORMS["learning_rates"], rtol=1e-6)
    with jax.enable_x64(True):
        rates = jax.jit(jax.vmap(recipe()))(count)
        np.testing.assert_allclose(rates, NORMS["learning_rates"], rtol=1e-12)


def test_schedule_by_hand():
    schedule = recipe(warmup_epochs=2, milestones=(1, 3), factor=0.5)
    expected = {0: 0, 5: 0.025, 19: 0.095, 20: 0.1, 29: 0.1, 30: 0.05, 49: 0.05}
    for step, rate in {**expected, 50: 0.025, 10**6: 0.025}.items():
        np.testing.assert_allclose(schedule(step), rate, rtol=1e-6)
    late = recipe(warmup_epochs=0, milestones=(1, 2**31 - 1))
    np.testing.assert_allclose(jax.jit(late)(2**31 - 2), 0.02, rtol=1e-6)
    constant = recipe(warmup_epochs=0, milestones=())
    assert constant(0) == constant(10**6) == np.float32(0.1)


def test_sgd_equals_its_recurrence():
    rng = np.random.default_rng(0)
    matrix, start = rng.standard_normal((4, 4)), rng.standard_normal(4)
    rates = [0.0, 0.1, 0.2, 0.05, 0.05]
    optimizer = optim.sgd(
        lambda step: jnp.asarray(rates)[step], momentum=0.8, weight_decay=0.3
    )
    params = {"w": jnp.float32(start)}
    state = optimizer.init(params)
    w, buffer = start.copy(), np.zeros(4)
    for rate in rates:
        gradient = matrix @ w
        buffer = 0.8 * buffer + gradient + 0.3 * w
        w = w - rate * buffer
        grads = {"w": jnp.float32(matrix) @ params["w"]}
        changes, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, changes)
        np.testing.assert_allclose(params["w"], w, rtol=1e-5, atol=1e-6)


def test_sgd_decays_biases_and_scales_too():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(())}
    optimizer = optim.sgd(0.1)
    zeros = jax.tree.map(jnp.zeros_like, params)
    changes, _ = optimizer.update(zeros, optimizer.init(params), params)
    for change in jax.tree.leaves(changes):
        np.testing.assert_allclose(change, -0.1 * 5e-4, rtol=1e-6)


def state_of(variables, optimizer):
    zero = jnp.zeros(())
    return steps.TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=optimizer.init(variables["params"]),
        sums=steps.Sums(zero, zero, zero),
        finite=jnp.ones((), bool),
    )


def compile_step(model, optimizer):
    return jax.jit(
        functools.partial(
            steps.train_step,
            model=model,
            optimizer=optimizer,
            dropout_key=jax.random.key(0),
        )
    )


@functools.cache
def trained():
    """Five steps of the golden run in float64: the model, the batch, six states."""
    model = models.build(NAME, num_classes=100)
    values = golden.state_dict(golden.table("layouts")[f"cifar/{NAME}"])
    variables = from_pytorch(NAME, values, num_classes=100)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
    batch = {
        "image": golden.images(3, 8, 32).astype(np.float64),
        "label": np.arange(8, dtype=np.int32) * 7 % 100,
        "mask": np.ones(8, bool),
    }
    optimizer = optim.sgd(0.1)
    step = compile_step(model, optimizer)
    states = [state_of(variables, optimizer)]
    for _ in range(5):
        states.append(step(states[-1], batch))
    return model, batch, states


def in_pytorch_order(variables, keys):
    """Returns the leaf of each PyTorch key.

    Found by converting a state dictionary whose values are the numbers of its keys.
    """
    layout = golden.table("layouts")[f"cifar/{NAME}"]
    numbers = {key: np.full(s, i, np.float32) for i, (key, *s) in enumerate(layout)}
    numbered = from_pytorch(NAME, numbers, num_classes=100)
    leaves = {}
    for (path, number), leaf in zip(
        jax.tree.leaves_with_path(numbered), jax.tree.leaves(variables), strict=True
    ):
        assert number.shape == leaf.shape, path
        leaves[layout[int(number.ravel()[0])][0]] = np.asarray(leaf)
    return [leaves[key] for key in keys if key in leaves]


@pytest.mark.usefixtures("x64")
def test_five_steps_equal_golden_values():
    _, _, states = trained()
    keys = golden.table("training")
    counted = [not key.endswith("num_batches_tracked") for key in keys["keys"]]

    def check(actual, name, *, chosen=..., tolerance=1e-9):
        np.testing.assert_allclose(
            actual, NORMS[name][chosen], rtol=tolerance, atol=1e-12, err_msg=name
        )

    norms = lambda leaves: [np.linalg.norm(leaf) for leaf in leaves]
    for state, name in ((states[1], "norms_after_step1"), (states[5], "norms_after")):
        leaves = in_pytorch_order(state.variables, keys["keys"])
        check(norms(leaves), name, chosen=counted)
    sums = np.array([leaf.sum() for leaf in leaves])
    expected = NORMS["sums_after"][counted]
    np.testing.assert_allclose(sums, expected, atol=1e-9 * np.abs(expected).max())
    parameters = keys["parameter_keys"]
    first, last = (
        in_pytorch_order(states[index].variables, parameters) for index in (0, 5)
    )
    changes = [new - old for new, old in zip(last, first, strict=True)]
    check(norms(changes), "change_norms_after")
    # The first buffer is the first gradient and the decay: it tells the gradient.
    after = in_pytorch_order(states[1].variables, parameters)
    gradients = [
        (old - new) / 0.1 - 5e-4 * old for new, old in zip(after, first, strict=True)
    ]
    check(norms(gradients), "grad_norms_step0")
    check(np.linalg.norm(norms(gradients)), "grad_norm_step0")
    losses = np.diff([state.sums.loss for state in states]) / 8
    check(losses, "loss")


@pytest.mark.usefixtures("x64")
def test_logits_before_and_after_five_steps_equal_golden_values():
    model, batch, states = trained()
    logits, _ = model.apply(
        states[0].variables, batch["image"], train=True, mutable=["batch_stats"]
    )
    for actual, name in (
        (logits, "logits_step0"),
        (model.apply(states[5].variables, batch["image"]), "eval_logits_after"),
    ):
        scale = np.abs(NORMS[name]).max()
        np.testing.assert_allclose(actual, NORMS[name], atol=1e-9 * scale)
    assert states[5].step == 5
    assert states[5].finite


@pytest.mark.usefixtures("x64")
def test_padding_leaks_neither_into_gradients_nor_into_statistics():
    model = models.build(
        "resnet_mcdo_smoothing_18", num_classes=7, width=4, stages=(1, 1), rate=0.0
    )
    images = golden.images(3, 8, 8).astype(np.float64)
    labels, mask = np.arange(8, dtype=np.int32) % 7, np.arange(8) < 5
    images[~mask], labels[~mask] = 1e6, 6
    variables = golden.variables(model, images)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
    optimizer = optim.sgd(0.1)
    state = state_of(variables, optimizer)
    step = compile_step(model, optimizer)
    padded = step(state, {"image": images, "label": labels, "mask": mask})
    full = {"image": images[:5], "label": labels[:5], "mask": mask[:5]}
    alone = step(state, full)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12),
        padded,
        alone,
    )
    assert padded.sums.count == 5
    changed = jax.tree.map(lambda new, old: (new != old).any(), alone, state)
    assert all(jax.tree.leaves(changed.variables))


def test_steps_that_are_not_finite_are_marked():
    model = models.build("resnet_dnn_18", num_classes=3, width=4, stages=(1,))
    images = golden.images(3, 4, 8)
    optimizer = optim.sgd(0.1)
    state = state_of(golden.variables(model, images), optimizer)
    step = compile_step(model, optimizer)
    batch = {"label": np.zeros(4, np.int32), "mask": np.ones(4, bool)}
    assert step(state, {**batch, "image": images}).finite
    assert not step(state, {**batch, "image": np.nan * images}).finite


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_that_of_pytorch(nesterov):
    torch = pytest.importorskip("torch")
    options = {"momentum": 0.8, "weight_decay": 0.1, "nesterov": nesterov}
    ours = trajectory(optim.sgd(0.05, **options))
    theirs = torch_trajectory(torch.optim.SGD, lr=0.05, **options)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_adamw_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    ours = trajectory(optim.adamw(0.05, beta1=0.8, weight_decay=0.1))
    theirs = torch_trajectory(
        torch.optim.AdamW, lr=0.05, betas=(0.8, 0.999), weight_decay=0.1
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


MATRIX = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)


def trajectory(optimizer):
    """Parameters after each of some steps down a quadratic function."""
    params, found = jnp.arange(1.0, 5.0), []
    state = optimizer.init(params)
    for _ in range(6):
        changes, state = optimizer.update(MATRIX @ params, state, params)
        params = optax.apply_updates(params, changes)
        found.append(np.asarray(params))
    return np.stack(found)


def torch_trajectory(kind, **options):
    import torch

    params, found = torch.nn.Parameter(torch.arange(1.0, 5.0)), []
    optimizer = kind([params], **options)
    for _ in range(6):
        params.grad = torch.tensor(MATRIX) @ params.detach()
        optimizer.step()
        found.append(params.detach().numpy().copy())
    return np.stack(found)


def test_cosine_falls_with_every_step():
    schedule = optim.warmup_cosine(0.4, steps_per_epoch=10, epochs=5, warmup_epochs=2)
    count = np.arange(70)
    after = 0.2 * (1 + np.cos(np.pi * (count[20:] - 20) / 50))
    expected = np.concatenate([0.4 * count[:20] / 20, after])
    np.testing.assert_allclose(
        jax.vmap(schedule)(count), expected, rtol=1e-5, atol=1e-7
    )
    assert schedule(20) == np.float32(0.4)
    assert schedule(70) == schedule(10**6) == 0
    steady = optim.warmup_cosine(0.4, steps_per_epoch=1, epochs=1, warmup_epochs=0)
    assert steady(0) == np.float32(0.4)


RECIPE = {
    **{"schedule": "multistep", "optimizer": "sgd", "momentum": 0.9, "epochs": 4},
    **{
        "weight_decay": 5e-4,
        "nesterov": False,
        "learning_rate": 0.1,
        "batch_size": 256,
    },
    **{"learning_rate_batch": None, "train_samples": 1, "warmup_epochs": 1},
    **{"milestones": (2,), "factor": 0.2},
}


@pytest.mark.parametrize(
    ("fields", "rate"),
    [
        ({}, 0.1),
        ({"learning_rate_batch": 128}, 0.2),
        # Copies of an example are no other examples.
        ({"learning_rate_batch": 128, "train_samples": 4}, 0.05),
        ({"learning_rate_batch": 128, "schedule": "cosine"}, 0.2),
    ],
)
def test_the_learning_rate_is_scaled_by_the_batch(fields, rate):
    config = {**RECIPE, **fields}
    optimizer, schedule = optim.of_config(config, steps_per_epoch=10)
    assert schedule(10) == pytest.approx(rate)
    assert schedule(5) == pytest.approx(rate / 2)
    late = 0.5 * (1 + np.cos(np.pi * 0.75)) if "schedule" in fields else 0.2
    assert schedule(40) == pytest.approx(rate * late)
    state = optimizer.init({"w": jnp.ones(2)})
    assert optimizer.update({"w": jnp.ones(2)}, state, {"w": jnp.ones(2)})


def test_configs_choose_the_optimizer():
    for fields, expected in (
        ({"nesterov": True}, optim.sgd(0.1, nesterov=True)),
        ({"optimizer": "adam"}, optim.adam(0.1, weight_decay=5e-4)),
        ({"optimizer": "adamw"}, optim.adamw(0.1)),
    ):
        config = {**RECIPE, **fields, "warmup_epochs": 0, "milestones": ()}
        optimizer, _ = optim.of_config(config, steps_per_epoch=10)
        np.testing.assert_allclose(
            trajectory(optimizer), trajectory(expected), rtol=1e-6
        )
    with pytest.raises(ValueError, match="unknown optimizer 'adan'; did you mean"):
        optim.of_config({**RECIPE, "optimizer": "adan"}, steps_per_epoch=1)
