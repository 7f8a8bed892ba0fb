"""What a compiled program costs a device, by its compiler's arithmetic.

Contract of this file: nothing runs. Numbers are of one device and of one execution; a
loop whose length the compiler does not know counts once. They bound the time of a
device from below, and are no measured times.
"""

import math
from collections import defaultdict
from typing import Any, NamedTuple

import jax

from spatial_smoothing.runtime import hlo


class Collective(NamedTuple):
    """The operations of one kind by which devices exchange numbers.

    Attributes:
      kind: What they do, such as "all-reduce".
      count: How many there are.
      bytes: Sum of the bytes that a device gives or gets in each, whichever is more.
    """

    kind: str
    count: float
    bytes: float


class Costs(NamedTuple):
    """What one execution of a program costs one device.

    Attributes:
      flops: Floating-point operations; None where nobody has counted them.
      bytes_accessed: Bytes that its kernels read and write.
      kernels: Number of kernels that it starts.
      arguments: Bytes of its arguments.
      outputs: Bytes of its results.
      aliased: Bytes of the results that take the place of arguments.
      temporaries: Bytes of memory for results on the way, at most.
      code: Bytes of the program itself.
      collectives: Exchanges between devices, one entry for each kind.
      compile_seconds: Seconds that compiling took; None where nobody has measured.
      once: The part of `bytes_accessed` that is outside of all loops.
    """

    flops: float | None
    bytes_accessed: float
    kernels: float
    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    collectives: tuple[Collective, ...]
    compile_seconds: float | None = None
    once: float = 0.0

    @property
    def memory(self) -> int:
        """Bytes of memory that an execution needs, its arguments included."""
        held = self.arguments + self.outputs - self.aliased
        return held + self.temporaries + self.code


def costs(
    compiled: jax.stages.Compiled,
    *,
    flops: float | None = None,
    compile_seconds: float | None = None,
) -> Costs:
    """Returns the costs of a compiled program.

    Args:
      compiled: A function that is compiled for devices, which need not be here.
      flops: FLOPs of one device, in place of those that the compiler counts. It counts
        each loop once, and for GPUs nothing; see `matrix_flops`.
      compile_seconds: Seconds that compiling took.

    Returns:
      The costs. The bytes of TPUs are those that the compiler counts. Those of GPUs are
      the operands and results of every kernel in the text of the program.
    """
    program = hlo.Program(compiled.as_text())
    traffic = program.traffic()
    counted = _counted(compiled)
    moved = counted.get("bytes accessed", traffic.bytes)
    if "bytes accessed" in counted and traffic.bytes:
        # The compiler counts a round of each loop. What further rounds add is known
        # from the text, which counts a little differently: as a share of it.
        moved *= traffic.bytes / program.traffic(most_rounds=1).bytes
    memory = compiled.memory_analysis()
    return Costs(
        flops=counted.get("flops") if flops is None else flops,
        bytes_accessed=moved,
        kernels=traffic.kernels,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        collectives=_collectives(program),
        compile_seconds=compile_seconds,
        once=program.traffic(most_rounds=0).bytes,
    )


def _counted(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Returns what the compiler counts; nothing where it does not."""
    counted = compiled.cost_analysis()
    # Some versions of JAX return a list with one entry for each program.
    if isinstance(counted, list):
        counted = counted[0] if counted else None
    return dict(counted or {})


def _collectives(program: hlo.Program) -> tuple[Collective, ...]:
    counts: dict[str, float] = defaultdict(float)
    sizes: dict[str, float] = defaultdict(float)
    for exchange in program.exchanges():
        counts[exchange.kind] += exchange.times
        sizes[exchange.kind] += exchange.times * exchange.bytes
    return tuple(Collective(kind, counts[kind], sizes[kind]) for kind in sorted(counts))


def matrix_flops(jaxpr: Any) -> float:
    """Returns the FLOPs of the matrix products and convolutions of a traced function.

    Products with padding, and with the zeros that a strided convolution's gradient puts
    between the numbers, are not counted. The body of `while_loop` counts once.

    Args:
      jaxpr: `jitted.trace(...).jaxpr`. Its shapes are those of the whole batch: divide
        the result by the number of devices that share the work.
    """
    # A jaxpr with constants has the jaxpr without them as an attribute.
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_flops_of(equation) for equation in jaxpr.eqns)


def _flops_of(equation: Any) -> float:
    parameters = equation.params
    name = equation.primitive.name
    if name == "dot_general":
        return _flops_of_product(equation)
    if name == "conv_general_dilated":
        return _flops_of_convolution(equation)
    inner = [
        matrix_flops(value)
        for parameter in parameters.values()
        for value in (parameter if isinstance(parameter, tuple | list) else [parameter])
        if hasattr(value, "eqns") or hasattr(value, "jaxpr")
    ]
    if name == "cond":
        return max(inner, default=0.0)
    times = 1.0
    if name == "scan":
        times = parameters["length"]
    elif name == "shard_map":
        # Inside are the shapes of one device along the axes that it names.
        mesh = parameters["mesh"]
        # Versions of JAX name them differently; without a name, they are all axes.
        axes = parameters.get("newly_manual_axes", parameters.get("manual_axes"))
        axes = mesh.axis_names if axes is None else axes
        times = math.prod(mesh.shape[axis] for axis in axes)
    return times * sum(inner)


def _flops_of_product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    terms = math.prod(shape[axis] for axis in contracted)
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * terms


def _flops_of_convolution(equation: Any) -> float:
    parameters = equation.params
    numbers = parameters["dimension_numbers"]
    image, kernel = (variable.aval.shape for variable in equation.invars[:2])
    result = equation.outvars[0].aval.shape
    examples, features = (result[axis] for axis in numbers.out_spec[:2])
    terms = kernel[numbers.rhs_spec[1]]  # input features of one group
    for place in range(len(image) - 2):
        terms *= _products(
            image[numbers.lhs_spec[2 + place]],
            kernel[numbers.rhs_spec[2 + place]],
            result[numbers.out_spec[2 + place]],
            stride=parameters["window_strides"][place],
            before=parameters["padding"][place][0],
            spread=parameters["lhs_dilation"][place],
            reach=parameters["rhs_dilation"][place],
        )
    return 2.0 * examples * features * terms


def _products(
    size: int,
    taps: int,
    positions: int,
    *,
    stride: int,
    before: int,
    spread: int,
    reach: int,
) -> int:
    """Returns how many products of a convolution along one axis have an input.

    Args:
      size: Numbers of the input along the axis.
      taps: Those of the kernel.
      positions: Those of the result.
      stride: Distance between two positions of the kernel.
      before: Padding before the input.
      spread: Distance between two numbers of the input.
      reach: Distance between two taps of the kernel.
    """
    last = (size - 1) * spread
    places = (
        position * stride + tap * reach - before
        for position in range(positions)
        for tap in range(taps)
    )
    return sum(0 <= place <= last and place % spread == 0 for place in places)
