"""`benchmarks.compiled`: rows, resumption, verdicts, and the plainly written peer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkout import ROOT

from benchmarks import (
    compiled,
    compiled_figures,
    compiled_rows,
    compiled_tables,
    compiled_targets,
    flax_peer,
)
from benchmarks.compiled_rows import CHIP, GPU, SLICE, TPU, Row
from spatial_smoothing import models
from spatial_smoothing.runtime import hlo, topologies
from spatial_smoothing.training import optim, steps

RESULT = ROOT / "results" / "benchmarks" / "compiled.json"
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 32, 32, 3)).astype(np.float32)
    return {
        "image": jnp.asarray(images),
        "label": jnp.arange(4, dtype=jnp.int32),
        "mask": jnp.ones(4, bool),
    }


def peer_of(name, variables, **fields):
    """Returns the peer of a network, and our variables under its names."""
    params = dict(variables["params"])
    params["dense"] = params.pop("head")["dense"]
    return flax_peer.network(name, num_classes=10, **fields), {
        **variables,
        "params": params,
    }


def test_the_peer_predicts_what_our_network_does(batch):
    """The next test has basic blocks and smoothing; this one has bottlenecks."""
    name, fields = "resnet_dnn_50", {"width": 4, "stages": (1, 1)}
    model = models.build(name, num_classes=10, stem="imagenet", **fields)
    variables = jax.jit(model.init)(KEY, batch["image"][:1])
    # Other statistics than 0 and 1, and other scales, as after training.
    draws = iter(np.random.default_rng(1).uniform(0.5, 2, (200,)))
    variables = jax.tree.map(lambda leaf: leaf * next(draws), variables)
    peer, same = peer_of(name, variables, imagenet=True, **fields)
    ours = jax.jit(model.apply)(variables, batch["image"])
    theirs = jax.jit(lambda v, x: peer.apply(v, x, train=False))(same, batch["image"])
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_a_step_of_the_peer_is_ours(batch):
    name, fields = "resnet_dnn_smoothing_18", {"width": 4, "stages": (1,)}
    model = models.build(name, num_classes=10, **fields)
    optimizer = optim.sgd(0.1, momentum=0.9, weight_decay=5e-4)
    init = lambda: steps.init_state(model, optimizer, (32, 32, 3), seed=0)
    state = jax.jit(init)()
    peer, variables = peer_of(name, state.variables, **fields)
    opt_state = flax_peer.optimizer(0.1).init(variables["params"])
    new, _, loss = jax.jit(flax_peer.training_step(peer, lambda key, images: images))(
        variables, opt_state, KEY, batch["image"], batch["label"]
    )
    ours = jax.jit(
        lambda state: steps.train_step(
            state, batch, model=model, optimizer=optimizer, dropout_key=KEY
        )
    )(state)
    _, expected = peer_of(name, ours.variables, **fields)
    np.testing.assert_allclose(loss * 4, ours.sums.loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        new["params"],
        expected["params"],
    )


def test_rows_have_one_key_each_and_those_with_a_target_come_first():
    order = compiled_targets.in_order()
    keys = [row.key for row in order]
    assert len(set(keys)) == len(keys)
    assert set(compiled_rows.every_row()) <= set(order)
    targets = [row for target in compiled_targets.TARGETS for row in target.rows]
    assert order[: len(set(targets))] == list(dict.fromkeys(targets))
    assert set(targets) <= set(compiled_rows.every_row()), "a target without a row"
    pairs = {row for row in order if row.topology in (CHIP, GPU)}
    pairs = {row for row in pairs if row.program != "corruption"}
    assert all(row.peer in pairs for row in pairs)
    example = Row(CHIP, "step", "resnet_dnn_18", 128, "bfloat16")
    assert example.key == "v5e:1x1 step resnet_dnn_18 128 bfloat16 ours"
    assert (example.platform, compiled.chosen(["h200"], "")[0].platform) == (TPU, GPU)


def record(row, **figures):
    return {"key": row.key, "libraries": {"jax": "1"}, "figures": figures}


def test_rows_in_the_file_are_not_compiled_again(tmp_path):
    path = tmp_path / "results" / "compiled.json"
    first, second, third = compiled_targets.in_order()[:3]
    for row in (second, first):  # in another order than the file has them
        compiled.put(path, record(row, bytes=1))
    compiled.put(path, record(second, bytes=2))
    compiled.put(path, {**record(first), "key": "a row of another version"})
    found = compiled.read(path)
    assert [each["key"] for each in found][:2] == [first.key, second.key]
    assert [each["figures"] for each in found] == [{"bytes": 1}, {"bytes": 2}, {}]
    assert json.loads(path.read_text())["provenance"]["libraries"]["jax"]
    everything = [first, second, third]
    same = lambda platform: {"jax": "1"}
    assert compiled.missing(everything, found, same) == [third]
    newer = lambda platform: {"jax": "2"}
    assert compiled.missing(everything, found, newer) == everything


@pytest.mark.parametrize(
    ("platforms", "pattern", "message"),
    [
        (["gpu"], "", r"unknown platform 'gpu'; .*h200"),
        (["tpu"], "h200", "--rows=h200 matches no row"),
        (["tpu"], "(", r"--rows=\( is no regular expression"),
    ],
)
def test_rows_that_there_are_not(platforms, pattern, message):
    with pytest.raises(ValueError, match=message):
        compiled.chosen(platforms, pattern)


def test_other_json_is_not_overwritten(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="is no result of this command"):
        compiled.put(path, record(compiled_targets.in_order()[0]))
    assert path.read_text() == '{"a": 1}'


def test_a_compiler_that_is_missing_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(topologies, "is_available", lambda name: name == "cuda")
    assert compiled._available(["tpu", "h200"]) == ["h200"]
    (line,) = capsys.readouterr().out.splitlines()
    assert "tpu" in line
    assert "pip install 'spatial-smoothing[tpu]'" in line


def by_what(text):
    (found,) = (t for t in compiled_targets.TARGETS if t.what.startswith(text))
    return found


def judged(text, *figures):
    """Returns the verdict of a target whose rows have these figures, in turns."""
    target = by_what(text)
    rows = {row.key: figures[i % len(figures)] for i, row in enumerate(target.rows)}
    return target.verdict(rows)


@pytest.mark.parametrize(
    ("target", "good", "bad", "now"),
    [
        (
            "smoothing op, v5e, forward",
            [{"bytes": 10.5, "ideal_bytes": 10}, {"bytes": 10, "ideal_bytes": 10}],
            [{"bytes": 10, "ideal_bytes": 10}, {"bytes": 11, "ideal_bytes": 10}],
            "1.00-1.05 x",
        ),
        (
            "smoothing op, H200",
            [
                {"bytes": 20.5, "ideal_bytes": 10, "kernels": 2},
                {"bytes": 11, "ideal_bytes": 10, "kernels": 1},
            ],
            [{"bytes": 12, "ideal_bytes": 10, "kernels": 1}],
            "1.10-2.05 x, 1-2 kernels",
        ),
        (
            "smoothing's share",
            [{"bytes": 114}, {"bytes": 100}],
            [{"bytes": 115}, {"bytes": 100}],
            "+14.0%",
        ),
        (
            "resnet_dnn_18 step, one v5e",
            [{"bytes": 3.1e9}, {"bytes": 3.44e9}],
            [{"bytes": 3.11e9}, {"bytes": 3.44e9}],
            "3.10 GB (peer 3.44)",
        ),
        (
            "the same on 16 chips",
            [{"bytes": 4.08e9, "parameters": 10**7}, {"bytes": 4e9}],
            [{"bytes": 4.09e9, "parameters": 10**7}, {"bytes": 4e9}],
            "4.08 GB, +0.08 (0.08 allowed)",
        ),
        (
            "resnet_dnn_18 step, H200",
            [
                {"bytes": 10.9e9, "fusions": 280, "copies": 20},
                {"bytes": 11.76e9, "fusions": 306, "copies": 40},
            ],
            [{"bytes": 10.9e9, "fusions": 281, "copies": 20}],
            "10.90 GB, 300 kernels (peer 11.76, 346)",
        ),
        (
            "MC-dropout pass",
            [{"loop_fusions": 40}, {"loop_fusions": 38}],
            [{"loop_fusions": 41}],
            "38-40 fusions",
        ),
    ],
)
def test_targets_are_judged_at_their_limits(target, good, bad, now):
    verdict = judged(target, *good)
    assert (verdict.met, verdict.now) == (True, now)
    assert judged(target, *bad).met is False


def test_a_pod_reduces_gradients_once():
    figures = {
        "memory": 15e9,
        "chip_memory": 16e9,
        "parameters": 25 * 10**6,
        "collectives": [{"kind": "all-reduce", "count": 40, "bytes": 100.5e6}],
    }
    gather = {"kind": "all-gather", "count": 1, "bytes": 8}
    assert judged("resnet_dnn_50", figures).met
    for change in (
        {"memory": 17e9},
        {"collectives": []},
        {"collectives": [{"kind": "all-reduce", "count": 2, "bytes": 200e6}]},
        {"collectives": [*figures["collectives"], gather]},
    ):
        assert judged("resnet_dnn_50", {**figures, **change}).met is False


def test_a_target_without_its_rows_has_no_verdict():
    target = by_what("the same on 16 chips")
    verdict = target.verdict({target.rows[1].key: {"bytes": 1}})
    assert (verdict.met, verdict.missing) == (None, (target.rows[0].key,))
    assert target.rows[0].topology == SLICE


FIGURES = {
    "bytes": 15.2e9,
    "ideal_bytes": 13.9e9,
    "fusions": 482,
    "copies": 50,
    "kernels": 573,
    "temporaries": 1.78e9,
    "flops": 1.5e12,
    "compile_seconds": 301.2,
    "loop_fusions": 67,
    "memory": 2e9,
    "chip_memory": 16e9,
    "parameters": 10**7,
    "collectives": [],
}


def test_tables_fit_a_terminal_and_show_peers():
    order = compiled_targets.in_order()
    figures = {row.key: FIGURES for row in order}
    figures[Row(GPU, "step", "resnet_mcdo_smoothing_18", 512, "bfloat16").key] = {
        **FIGURES,
        "bytes": 7.6e9,
    }
    found = compiled_tables.all_verdicts(figures)
    text = compiled_tables.rows(order, figures)
    assert max(map(len, text.splitlines())) <= 80
    assert max(map(len, compiled_tables.verdicts(found).splitlines())) <= 80
    index = text.splitlines().index("h200, step, bfloat16")
    group = text.splitlines()[index + 1 :]
    ours = next(line for line in group if "resnet_mcdo_smoothing_18 512" in line)
    shown = " ".join(ours.split()[2:])
    assert shown == "7.6 GB 0.55 0.50 532 1.78 GB 1.5 T 301"
    assert group[group.index(ours) + 1].split()[:2] == ["the", "peer"]


PROGRAM = """\
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} copy(%p)
}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %f1 = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused
  %c1 = f32[8]{0} custom-call(%f1), custom_call_target="__cudnn$convForward"
  %f2 = f32[8]{0} fusion(%c1), kind=kLoop, calls=%fused
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %r = (s32[], f32[8]{0}) tuple(%i, %f2)
}

%condition (t: (s32[], f32[8])) -> pred[] {
  %t = (s32[], f32[8]{0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (x: f32[8], n: s32[]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %n = s32[] parameter(1)
  %copy = f32[8]{0} copy(%x)
  %t = (s32[], f32[8]{0}) tuple(%n, %copy)
  %w = (s32[], f32[8]{0}) while(%t), condition=%condition, body=%body
  %y = f32[8]{0} get-tuple-element(%w), index=1
  ROOT %out = f32[8]{0} fusion(%y), kind=kLoop, calls=%fused
}
"""


def test_kernels_of_loops_count_once():
    program = hlo.Program(PROGRAM)
    assert compiled_figures.counts(program) == (3, 1, 1)
    assert compiled_figures.counts(program, loops_only=True) == (2, 0, 1)
    assert compiled_figures.largest_loop(program) == (2, 0, 1)
    without = hlo.Program(PROGRAM.replace("__cudnn$conv", "__cublas$gemm"))
    assert compiled_figures.largest_loop(without) is None


def test_the_page_names_the_rows_that_are_absent():
    order = compiled_targets.in_order()
    figures = {row.key: FIGURES for row in order}
    assert compiled_tables.absent(order, figures) == ["All rows are compiled."]
    step = Row(GPU, "step", "resnet_dnn_18", 512, "bfloat16")
    for row in (step, step.peer, Row(GPU, "smooth", "5x5x512", 128, "float32")):
        del figures[row.key]
    first, blank, *groups = compiled_tables.absent(order, figures)
    assert first.startswith(f"3 of {len(order)} rows are not compiled yet")
    assert (blank, *groups) == (
        "",
        "- h200, smooth, float32: 5x5x512 128",
        "- h200, step, bfloat16: resnet_dnn_18 512, resnet_dnn_18 512 (peer)",
    )


def test_the_page_has_the_tables_of_the_file():
    """Made by `python -m benchmarks.compiled --page=docs/performance.md`."""
    page = (ROOT / "docs" / "performance.md").read_text()
    figures = {each["key"]: each["figures"] for each in compiled.read(RESULT)}
    found = compiled_tables.all_verdicts(figures)
    order = compiled_targets.in_order()
    tables = compiled_tables.markdown(order, figures, found)
    assert compiled_tables.filled(page, tables) == page
    with pytest.raises(ValueError, match="add them"):
        compiled_tables.filled("no comments", tables)


@pytest.mark.compilers
@pytest.mark.parametrize(("topology", "platform"), [(CHIP, "tpu"), (GPU, "cuda")])
def test_an_op_is_compiled(topology, platform):
    if not topologies.is_available(platform):
        pytest.skip(f"no compiler for {platform}")
    row = Row(topology, "smooth", "5x5x512", 8, "bfloat16", "peer")
    found = compiled.measured(row)
    assert found["key"] == row.key
    figures = found["figures"]
    assert figures["ideal_bytes"] == 2 * 8 * 512 * (5 * 5 + 6 * 6)
    assert 1 <= figures["bytes"] / figures["ideal_bytes"] < 4
    assert figures["fusions"] >= 1
