"""The same work as one writes it with Flax and optax, without this library.

Contract of this file: nothing here imports the library. Networks are the paper's
ResNets, of `nn.Conv`, `nn.BatchNorm` and `nn.Dropout` with Flax's defaults; parameters
have the names of ours, but for the dense layer. The blur is a depthwise convolution.
Programs are functions of arrays for `jax.jit`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

Tree = Any


def smooth(x: jax.Array) -> jax.Array:
    """Computes smoothing with the blur of other libraries.

    Args:
      x: Feature map, f[B, H, W, C].

    Returns:
      f[B, H+1, W+1, C], in the type of `x`.
    """
    y = jax.nn.relu(10 * jnp.tanh(x / 10))
    return jax.lax.conv_general_dilated(
        y,
        jnp.full((2, 2, 1, x.shape[-1]), 0.25, x.dtype),
        (1, 1),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


class Block(nn.Module):
    """A residual block.

    Attributes:
      features: Channels C of the stage; a bottleneck returns 4C.
      stride: Stride of the first 3x3 convolution.
      bottleneck: Whether it is 1x1, 3x3, 1x1 convolutions in place of 3x3, 3x3.
      rate: Probability of dropout to drop a value, in [0, 1).
      dtype: Compute type.
    """

    features: int
    stride: int
    bottleneck: bool
    rate: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, H, W, C']` to `[B, H/stride, W/stride, C or 4C]`."""
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype
        )
        strides = (self.stride, self.stride)
        if self.bottleneck:
            y = nn.relu(
                norm(name="norm1")(conv(self.features, (1, 1), name="conv1")(x))
            )
            y = conv(self.features, (3, 3), strides, padding=1, name="conv2")(y)
            y = nn.relu(norm(name="norm2")(y))
            last = conv(4 * self.features, (1, 1), name="conv3")
            last_norm = norm(name="norm3")
        else:
            y = conv(self.features, (3, 3), strides, padding=1, name="conv1")(x)
            y = nn.relu(norm(name="norm1")(y))
            last = conv(self.features, (3, 3), padding=1, name="conv2")
            last_norm = norm(name="norm2")
        # Dropout is active in training and in evaluation, as Monte Carlo dropout needs.
        y = nn.Dropout(self.rate, deterministic=not self.has_rng("dropout"))(y)
        y = last_norm(last(y))
        if x.shape != y.shape:
            x = conv(y.shape[-1], (1, 1), strides, name="shortcut_conv")(x)
            x = norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A ResNet of the paper.

    Attributes:
      num_classes: Number of classes K.
      stages: Number of blocks of each stage.
      bottleneck: Whether blocks are bottlenecks.
      imagenet: Whether the stem is ImageNet's, a 7x7 convolution and a max pool.
      rate: Probability of dropout to drop a value, in [0, 1).
      smoothing: Whether each stage ends with smoothing.
      width: Channels of the first stage.
      dtype: Compute type.
    """

    num_classes: int
    stages: Sequence[int] = (2, 2, 2, 2)
    bottleneck: bool = False
    imagenet: bool = False
    rate: float = 0.0
    smoothing: bool = False
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps images f32[B, H, W, 3] to logits f32[B, K]."""
        conv = functools.partial(
            nn.Conv, self.width, use_bias=False, dtype=self.dtype, name="stem_conv"
        )
        x = images.astype(self.dtype)
        if self.imagenet:
            x = conv(kernel_size=(7, 7), strides=(2, 2), padding=3)(x)
        else:
            x = conv(kernel_size=(3, 3), padding=1)(x)
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            dtype=self.dtype,
            name="stem_norm",
        )
        x = nn.relu(norm(x))
        if self.imagenet:
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for stage, depth in enumerate(self.stages):
            for block in range(depth):
                x = Block(
                    self.width * 2**stage,
                    stride=2 if stage and not block else 1,
                    bottleneck=self.bottleneck,
                    rate=self.rate,
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block}",
                )(x, train=train)
            if self.smoothing:
                x = smooth(x)
        x = x.mean((1, 2)).astype(jnp.float32)
        return nn.Dense(self.num_classes, name="dense")(x)


def network(name: str, **fields: Any) -> ResNet:
    """Returns the plain network for one of the library's names.

    Args:
      name: "resnet_dnn_18", "resnet_mcdo_smoothing_50" and the like.
      **fields: Fields of `ResNet`, among them `num_classes`.
    """
    deep = name.endswith("_50")
    given = {
        "stages": (3, 4, 6, 3) if deep else (2, 2, 2, 2),
        "bottleneck": deep,
        "smoothing": "smoothing" in name,
    }
    return ResNet(**{**given, **fields})


def cross_entropy(
    model: ResNet,
    variables: Tree,
    images: jax.Array,
    labels: jax.Array,
    *,
    train: bool,
    key: jax.Array,
) -> tuple[jax.Array, Tree]:
    """Returns the mean cross-entropy of a batch, f32[], and new `batch_stats`."""
    logits, updates = model.apply(
        variables,
        images,
        train=train,
        rngs={"dropout": key} if model.rate else {},
        mutable=["batch_stats"] if train else [],
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), updates.get("batch_stats", variables["batch_stats"])


def optimizer(learning_rate: float = 0.1) -> optax.GradientTransformation:
    """Returns SGD with momentum and coupled weight decay."""
    return optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(learning_rate, momentum=0.9)
    )


def init(model: ResNet, shape: Sequence[int]) -> tuple[Tree, optax.OptState]:
    """Returns variables and the state of the optimiser.

    Args:
      model: The network.
      shape: (H, W, 3) of an image.
    """
    images = jnp.zeros((1, *shape))
    variables = model.init(jax.random.key(0), images, train=False)
    return variables, optimizer().init(variables["params"])


def training_step(
    model: ResNet, prepare: Callable[[jax.Array, jax.Array], jax.Array]
) -> Callable[..., tuple[Tree, optax.OptState, jax.Array]]:
    """Returns a step of SGD.

    Args:
      model: The network.
      prepare: `prepare(key, images)` turns u8[B, H, W, 3] into what the network takes.

    Returns:
      `(variables, opt_state, key, images u8[B, H, W, 3], labels i32[B]) -> (variables,
      opt_state, loss)`.
    """

    def step(variables, opt_state, key, images, labels):
        prepare_key, dropout_key = jax.random.split(key)
        images = prepare(prepare_key, images)

        def loss(params):
            return cross_entropy(
                model,
                {**variables, "params": params},
                images,
                labels,
                train=True,
                key=dropout_key,
            )

        params = variables["params"]
        (mean, batch_stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        changes, opt_state = optimizer().update(grads, opt_state, params)
        params = optax.apply_updates(params, changes)
        return {"params": params, "batch_stats": batch_stats}, opt_state, mean

    return step


def mc_dropout(
    model: ResNet,
    normalize: Callable[[jax.Array], jax.Array],
    *,
    num_samples: int,
    chunk: int,
) -> Callable[..., jax.Array]:
    """Returns a pass that predicts by every number of samples up to `num_samples`.

    Args:
      model: The network.
      normalize: Turns images u8[B, H, W, 3] into what the network takes.
      num_samples: Number of dropout samples S.
      chunk: Number of samples computed at once.

    Returns:
      `(variables, key, images) -> f32[S, B, K]`, mean probabilities of the first 1 to S
      samples.
    """

    def predict(variables, key, images):
        x = normalize(images)

        def sample(key):
            logits = model.apply(variables, x, train=False, rngs={"dropout": key})
            return jax.nn.softmax(logits)

        keys = jax.random.split(key, num_samples)
        probs = jax.lax.map(sample, keys, batch_size=chunk)
        return probs.cumsum(0) / jnp.arange(1, num_samples + 1)[:, None, None]

    return predict


def landscape_point(
    model: ResNet, prepare: Callable[[jax.Array, jax.Array], jax.Array]
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Returns the loss and the accuracy at shifted weights.

    Args:
      model: The network.
      prepare: `prepare(key, images)` turns u8[B, H, W, 3] into what the network takes.

    Returns:
      `(variables, directions, coordinates f32[2], key, images, labels) -> (loss,
      accuracy)`, where `directions` are two pytrees like the parameters.
    """

    def point(variables, directions, coordinates, key, images, labels):
        prepare_key, dropout_key = jax.random.split(key)
        params = jax.tree.map(
            lambda p, a, b: p + coordinates[0] * a + coordinates[1] * b,
            variables["params"],
            *directions,
        )
        logits = model.apply(
            {**variables, "params": params},
            prepare(prepare_key, images),
            train=False,
            rngs={"dropout": dropout_key},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits.argmax(-1) == labels).mean()

    return point


def hessian_product(
    model: ResNet, prepare: Callable[[jax.Array, jax.Array], jax.Array]
) -> Callable[..., jax.Array]:
    """Returns the product of the Hessian of a batch's loss and a vector.

    Args:
      model: The network.
      prepare: `prepare(key, images)` turns u8[B, H, W, 3] into what the network takes.

    Returns:
      `(variables, key, images, labels, vector f32[n]) -> f32[n]`.
    """

    def product(variables, key, images, labels, vector):
        prepare_key, dropout_key = jax.random.split(key)
        images = prepare(prepare_key, images)
        flat, unravel = ravel_pytree(variables["params"])

        def loss(flat):
            params = unravel(flat)
            mean, _ = cross_entropy(
                model,
                {**variables, "params": params},
                images,
                labels,
                train=False,
                key=dropout_key,
            )
            decay = 5e-4 / 2 * sum(jnp.vdot(p, p) for p in jax.tree.leaves(params))
            return mean + decay

        return jax.jvp(jax.grad(loss), (flat,), (vector,))[1]

    return product
