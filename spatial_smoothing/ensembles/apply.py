"""A network as a pure function, whatever library it was written with.

Contract of this file: a network is `apply(variables, images, key) -> logits`, a pure
function. Images are f[B, ...] as the network takes them; logits are f[B, ..., K]. With
a key, the network draws its dropout masks from it; with None it has no dropout. Batch
normalisation uses its running averages in both cases. Everything in this package that
predicts goes through such a function.

A network may make M predictions in one pass: its logits are f[M, B, ..., K], and
`ApplyFunction.has_members` says so. Everything here takes them as M samples of one
pass.
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.errors
import flax.linen as nn
import jax

from spatial_smoothing import layers, ops
from spatial_smoothing.models.network import Network
from spatial_smoothing.runtime import random_bits

if TYPE_CHECKING:
    from flax import nnx

Variables = Any  # a pytree of arrays: Linen's `{"params", ...}`, or an `nnx.State`
Key = jax.Array | None

# Arguments by which modules are told that they do not train, and what to pass for them.
_MODES: dict[str, Callable[[Key], bool]] = {
    "train": lambda key: False,
    "training": lambda key: False,
    "is_training": lambda key: False,
    "deterministic": lambda key: key is None,
}


@dataclasses.dataclass(frozen=True)
class ApplyFunction:
    """A network as a pure function; `as_apply` makes one.

    Attributes:
      apply: `(variables, images, key) -> logits`; see the module.
      name: What error messages call the network.
      deterministic_part: `(variables, images) -> features`, what comes before the first
        dropout layer. All samples share it. None where the network is not divided.
      stochastic_part: `(variables, features, key) -> logits`, the rest. None where the
        network is not divided.
      stochastic: Whether the logits depend on the key; None where that has to be found
        out.
      has_members: Whether one pass makes several predictions: the logits have a leading
        axis of M.
      dropout_rates: `(variables, images, key) -> rates` of the dropout layers that one
        pass meets, for error messages; None where they cannot be known.
      precomputed: `(variables, images) -> variables`, with which many passes have the
        same results as with those given, and do not compute again what follows from
        variables alone. None where nothing does.
    """

    apply: Callable[[Variables, jax.Array, Key], jax.Array]
    name: str
    deterministic_part: Callable[[Variables, jax.Array], jax.Array] | None = None
    stochastic_part: Callable[[Variables, jax.Array, Key], jax.Array] | None = None
    stochastic: bool | None = None
    has_members: bool = False
    dropout_rates: Callable[[Variables, jax.Array, Key], list[float]] | None = None
    precomputed: Callable[[Variables, jax.Array], Variables] | None = None

    def __call__(
        self, variables: Variables, images: jax.Array, key: Key = None
    ) -> jax.Array:
        """Returns the logits of one pass, f[B, ..., K] or f[M, B, ..., K]."""
        return self.apply(variables, images, key)

    def predictions(
        self, variables: Variables, images: jax.Array, key: Key
    ) -> jax.Array:
        """Returns the logits of all predictions of one pass, f[M, B, ..., K].

        Args:
          variables: Variables of the network.
          images: f[B, ...], as the network takes them.
          key: Key of the dropout masks; None for no dropout.

        Returns:
          The logits; of a network that makes one prediction in a pass, M is 1.
        """
        logits = self.apply(variables, images, key)
        return logits if self.has_members else logits[None]


def as_apply(
    model: Any, *, apply_kwargs: Mapping[str, Any] | None = None
) -> ApplyFunction:
    """Makes a pure function of a network of any kind.

    Args:
      model: A Linen module, an NNX module, a function `(variables, images, key) ->
        logits` (or `(variables, images) -> logits`, without dropout), or an
        `ApplyFunction`, which is returned as it is.
      apply_kwargs: Further arguments of each call of a module, such as `{"train":
        True}`; None for those that `from_linen` and `from_nnx` choose.

    Raises:
      ValueError: if `model` is something else, or `apply_kwargs` are given for what is
        no module.
    """
    if isinstance(model, nn.Module):
        return from_linen(model, apply_kwargs=apply_kwargs)
    if _is_nnx(model):
        return from_nnx(model, apply_kwargs=apply_kwargs)
    if apply_kwargs:
        raise ValueError(
            "apply_kwargs are for Linen and NNX modules; bind the arguments of "
            f"{_name(model)} by functools.partial"
        )
    if isinstance(model, ApplyFunction):
        return model
    if callable(model):
        return from_function(model)
    raise ValueError(
        "model must be a Linen module, an NNX module or a function (variables, images, "
        f"key) -> logits, got {type(model).__name__}"
    )


def variables_of(model: Any, variables: Variables | None) -> Variables:
    """Returns the variables to apply a network with.

    Args:
      model: A network of any kind that `as_apply` takes.
      variables: Those given. None is for an NNX module, which carries its own; a
        function may take None as well.

    Raises:
      ValueError: if a Linen module comes without variables.
    """
    if variables is None and _is_nnx(model):
        from flax import nnx

        return nnx.state(model)
    if variables is None and isinstance(model, nn.Module):
        raise ValueError(
            f"{_name(model)} is a Linen module; pass its variables, such as those that "
            "model.init(key, images) returns"
        )
    return variables


def from_linen(
    module: nn.Module,
    *,
    apply_kwargs: Mapping[str, Any] | None = None,
    force_dropout: bool = False,
) -> ApplyFunction:
    """Makes a pure function of a Linen module.

    The function passes the key as the rng "dropout". Where the module's `__call__` has
    an argument `train`, `training` or `is_training`, the function passes False for it;
    for `deterministic` it passes whether there is no key.

    Args:
      module: A module that takes images as its first argument and returns logits.
      apply_kwargs: Further arguments of each call; they come before the above.
      force_dropout: Whether every `nn.Dropout` of the module drops whenever there is a
        key, even if it was built with `deterministic=True`, as that of most models is
        outside training: `nn.Dropout(rate, deterministic=not train)`.

    Example:
      >>> apply = from_linen(model, force_dropout=True)
      >>> probs = ss.mc_dropout(key, apply, variables, images)
    """
    if isinstance(module, Network):
        return _from_network(module, dict(apply_kwargs or {}))
    given = dict(apply_kwargs or {})
    # A model with insertions passes all arguments on to the model that it wraps.
    inner = getattr(module, "wrapped_model", module)
    modes = _modes(type(inner).__call__, given)

    def call(variables: Variables, images: jax.Array, key: Key) -> jax.Array:
        rngs = {} if key is None else {"dropout": random_bits.fused(key)}
        arguments = {name: mode(key) for name, mode in modes.items()} | given
        try:
            return module.apply(variables, images, rngs=rngs, **arguments)
        except flax.errors.ModifyScopeVariableError as error:
            remedy = (
                f"leave out what makes it train from apply_kwargs={given}, and for "
                "live dropout pass from_linen(model, force_dropout=True) as the model"
            )
            if "deterministic" in modes:  # for some it switches normalisation, too
                remedy = (
                    "deterministic=False makes it train; pass from_linen(model, "
                    "force_dropout=True, apply_kwargs={'deterministic': True}) as the "
                    "model"
                )
            raise ValueError(
                f"{_name(module)} updates variables while it predicts; {remedy}"
            ) from error
        except TypeError as error:
            raise _explained(error, module, arguments) from error

    def apply(variables: Variables, images: jax.Array, key: Key) -> jax.Array:
        if key is None or not force_dropout:
            return call(variables, images, key)
        with nn.intercept_methods(_drop_always):
            return call(variables, images, key)

    def dropout_rates(variables, images, key) -> list[float]:
        rates = []

        def note(method, args, kwargs, context):
            if isinstance(context.module, nn.Dropout):
                rates.append(context.module.rate)
            return method(*args, **kwargs)

        # A function of its own each time: JAX would not trace `call` a second time.
        with nn.intercept_methods(note):
            jax.eval_shape(lambda *inputs: call(*inputs), variables, images, key)
        return rates

    return ApplyFunction(apply, _name(module), dropout_rates=dropout_rates)


def _from_network(network: Network, given: dict[str, Any]) -> ApplyFunction:
    """A network of `models`, which is divided where its dropout begins."""

    def run(variables: Variables, x: jax.Array, key: Key, **part: str) -> jax.Array:
        rngs = {} if key is None else {"dropout": random_bits.fused(key)}
        arguments = {"train": False, **part, **given}
        return network.apply(variables, x, rngs=rngs, **arguments)

    return ApplyFunction(
        run,
        _name(network),
        deterministic_part=lambda variables, images: run(
            variables, images, None, half="deterministic"
        ),
        stochastic_part=lambda variables, features, key: run(
            variables, features, key, half="stochastic"
        ),
        # A rate of 0 is said by name: its samples are equal, and that is no mistake.
        stochastic=network.has_dropout,
        precomputed=lambda variables, images: layers.precomputed(
            variables,
            dtype=network.dtype,
            compute_dtype=ops.at_least_float32(network.dtype or images.dtype),
        ),
        has_members=network.ensemble is not None,
    )


def from_nnx(
    module: "nnx.Module", *, apply_kwargs: Mapping[str, Any] | None = None
) -> ApplyFunction:
    """Makes a pure function of an NNX module, whose variables are `nnx.state(module)`.

    The module itself never changes. In each call, every layer that has an attribute
    `use_running_average` uses its running averages, every layer that has an attribute
    `deterministic` drops exactly when there is a key, and every stream of random bits
    starts from a key of its own that follows from the given one. Arguments named
    `train`, `training`, `is_training` or `deterministic` are passed as by `from_linen`.

    Args:
      module: A module that takes images as its first argument and returns logits.
      apply_kwargs: Further arguments of each call.
    """
    from flax import nnx

    graph, _ = nnx.split(module)
    given = dict(apply_kwargs or {})
    modes = _modes(type(module).__call__, given)

    def apply(variables: Variables, images: jax.Array, key: Key) -> jax.Array:
        copy = nnx.merge(graph, variables, copy=True)
        copy.set_attributes(
            raise_if_not_found=False,
            deterministic=key is None,
            use_running_average=True,
        )
        if key is not None:
            _reseed(copy, key)
        arguments = {name: mode(key) for name, mode in modes.items()} | given
        try:
            return copy(images, **arguments)
        except TypeError as error:
            raise _explained(error, module, arguments) from error

    def dropout_rates(*_) -> list[float]:
        modules = (each for _, each in nnx.iter_modules(module))
        return [each.rate for each in modules if isinstance(each, nnx.Dropout)]

    return ApplyFunction(apply, _name(module), dropout_rates=dropout_rates)


def _reseed(module: "nnx.Module", key: jax.Array) -> None:
    """Gives each stream of random bits a key of its own, which follows from `key`.

    `nnx.reseed` gives one key to all streams of a name, so that two dropout layers of
    one shape would have the same mask.
    """
    from flax import nnx

    nodes = (node for _, node in nnx.iter_graph(module))
    streams = [node for node in nodes if isinstance(node, nnx.RngStream)]
    for index, stream in enumerate(streams):
        stream.key.set_value(jax.random.fold_in(key, index))
        stream.count.set_value(jax.numpy.zeros((), jax.numpy.uint32))


def from_function(function: Callable[..., jax.Array]) -> ApplyFunction:
    """Makes an `ApplyFunction` of a function of variables, images and perhaps a key.

    Args:
      function: `(variables, images, key) -> logits`, or `(variables, images) -> logits`
        of a network without dropout. It is pure, and can be traced by JAX.

    Raises:
      ValueError: if it takes other arguments.
    """
    name = _name(function)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin, or compiled
        return ApplyFunction(function, name)
    if _takes(signature, 3):
        return ApplyFunction(function, name)
    if _takes(signature, 2):
        return ApplyFunction(
            lambda variables, images, key: function(variables, images), name
        )
    raise ValueError(
        f"{name} must take (variables, images, key) or (variables, images), got "
        f"{signature}"
    )


def is_stochastic(
    network: ApplyFunction, variables: Variables, images: jax.Array, key: jax.Array
) -> bool:
    """Whether the logits of a network depend on the key of its dropout masks.

    Nothing is computed: the network is traced.

    Args:
      network: The network.
      variables: Variables of the network.
      images: f[B, ...], or their shape and type.
      key: Any key of dropout masks.

    Raises:
      ValueError: if they do not although the network has dropout layers, because these
        are switched off; it says how to switch them on.
    """
    if network.stochastic is not None:
        return network.stochastic
    if _depends_on_key(network, variables, images, key):
        return True
    if any(_dropout_rates(network, variables, images, key)):
        raise ValueError(
            f"all samples of {network.name} are equal: its dropout layers are switched "
            "off outside training; pass spatial_smoothing.ensembles.from_linen(model, "
            "force_dropout=True) as the model, or apply_kwargs= with the argument that "
            "switches them on, such as apply_kwargs={'deterministic': False}"
        )
    return False


def check_stochastic(
    network: ApplyFunction, variables: Variables, images: jax.Array, key: jax.Array
) -> None:
    """Raises an error if samples of a network would all be equal by mistake.

    A network whose dropout layers all have the rate 0 passes: its samples are equal,
    and that is what it says.

    Args:
      network: The network to be sampled.
      variables: Variables of the network.
      images: f[B, ...], or their shape and type.
      key: Any key of dropout masks.

    Raises:
      ValueError: if the logits do not depend on the key; it says what to do.
    """
    if network.stochastic is not None:
        return
    if is_stochastic(network, variables, images, key):
        return
    if _dropout_rates(network, variables, images, key):
        return
    if network.dropout_rates is None:
        remedy = "a function draws its dropout masks from its third argument, the key"
    else:
        remedy = "add dropout layers to it by add_mc_dropout(model, rate)"
    raise ValueError(
        f"all samples of {network.name} are equal, because its logits do not depend on "
        f"the key; {remedy}"
    )


def _dropout_rates(network: ApplyFunction, *inputs: Any) -> list[float]:
    """The rates of the dropout layers of a network; none where they are not known."""
    return network.dropout_rates(*inputs) if network.dropout_rates else []


def _depends_on_key(
    network: ApplyFunction, variables: Variables, images: jax.Array, key: jax.Array
) -> bool:
    """Whether the logits are others for another key, as far as tracing can tell."""
    keys = jax.eval_shape(lambda key: jax.random.split(key, 2), key)
    # An output without a mapped axis is refused where it depends on the mapped key.
    of_keys = jax.vmap(network.apply, in_axes=(None, None, 0), out_axes=None)
    try:
        jax.eval_shape(of_keys, variables, images, keys)
    except ValueError as error:
        if "out_axes" in str(error):
            return True
        raise
    return False


def _drop_always(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    """Makes an `nn.Dropout` drop; see `nn.intercept_methods`."""
    layer = context.module
    is_dropout = isinstance(layer, nn.Dropout) and context.method_name == "__call__"
    if not is_dropout or layer.deterministic is False or layer.rate == 0:
        return method(*args, **kwargs)
    x = args[0] if args else kwargs["inputs"]
    # Applied as a function of its own, because the layer holds `deterministic` already.
    live = nn.Dropout(
        layer.rate, broadcast_dims=layer.broadcast_dims, deterministic=False
    )
    return live.apply({}, x, rng=layer.make_rng(layer.rng_collection))


def _modes(
    call: Callable[..., Any], given: Mapping[str, Any]
) -> dict[str, Callable[[Key], bool]]:
    """The arguments that tell a module that it does not train, if it has any."""
    parameters = inspect.signature(call).parameters
    return {
        name: mode
        for name, mode in _MODES.items()
        if name in parameters and name not in given
    }


def _takes(signature: inspect.Signature, count: int) -> bool:
    """Whether a function can be called with so many arguments by position."""
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _explained(
    error: TypeError, module: Any, arguments: Mapping[str, Any]
) -> Exception:
    """The error to raise where a module does not take the arguments of a call."""
    text = str(error)
    if "argument" not in text or "__call__" not in text:
        return error  # raised by the body of the module
    shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return ValueError(
        f"{_name(module)} was called as model(images{', ' if shown else ''}{shown}): "
        f"{text}; pass what it needs as apply_kwargs={{'name': value}}"
    )


def _is_nnx(model: Any) -> bool:
    """Returns whether a model is an NNX module.

    A process that has such a module has imported NNX. Others do not import it, because
    it takes a quarter of a second of the start of every command.
    """
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(model, nnx.Module)


def _name(model: Any) -> str:
    """What messages call a network."""
    if isinstance(model, nn.Module) or _is_nnx(model):
        return type(model).__name__
    if isinstance(model, ApplyFunction):
        return model.name
    return getattr(model, "__name__", type(model).__name__)
