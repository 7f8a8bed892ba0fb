import pytest

from spatial_smoothing.runtime.hlo import Exchange, Program, Traffic, sizes_of

# What compilers print, shortened: a loop of seven rounds, whose body gathers two images
# of a hundred, convolves them and adds up gradients of two devices.
TEXT = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

FileNames
1 "/home/me/f.py"

%fused_gather (param_0: u8[100,32,32,3], param_1: s32[2]) -> f32[2,32,32,3] {
  %param_0 = u8[100,32,32,3]{3,2,1,0:T(8,128)(4,1)} parameter(0)
  %param_1 = s32[2]{0} parameter(1)
  %gather.1 = u8[2,32,32,3]{3,2,1,0} gather(%param_0, %param_1), offset_dims={1,2,3}, \
collapsed_slice_dims={0}, slice_sizes={1,32,32,3}
  ROOT %convert.1 = f32[2,32,32,3]{3,2,1,0} convert(%gather.1)
}

%fused_update (param_0.1: f32[9,8], param_1.1: f32[1,8]) -> f32[9,8] {
  %param_1.1 = f32[1,8]{1,0} parameter(1)
  %param_0.1 = f32[9,8]{1,0} parameter(0)
  %constant.9 = s32[] constant(0)
  %negate.1 = f32[1,8]{1,0} negate(%param_1.1)
  ROOT %dus.1 = f32[9,8]{1,0} dynamic-update-slice(%param_0.1, %negate.1, %constant.9, \
%constant.9)
}

%add.clone (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add.0 = f32[] add(%x, %y)
}

%body (param: (s32[], f32[9,8], u8[100,32,32,3])) -> (s32[], f32[9,8], \
/*index=2*/u8[100,32,32,3]) {
  %param = (s32[], f32[9,8]{1,0}, /*index=2*/u8[100,32,32,3]{3,2,1,0}) parameter(0)
  %gte.0 = s32[] get-tuple-element(%param), index=0
  %gte.1 = f32[9,8]{1,0} get-tuple-element(%param), index=1
  %gte.2 = u8[100,32,32,3]{3,2,1,0} get-tuple-element(%param), index=2
  %rows = s32[2]{0} constant({3, 5})
  %gathered = f32[2,32,32,3]{3,2,1,0} fusion(%gte.2, %rows), kind=kLoop, \
calls=%fused_gather
  %kernel = f32[1,8]{1,0} constant({...})
  %conv.1 = (f32[1,8]{1,0}, u8[16]{0}) custom-call(%gathered, %kernel), \
custom_call_target="__cudnn$convForward", metadata={op_name="jit(f)/conv (3x3)"}
  %gte.3 = f32[1,8]{1,0} get-tuple-element(%conv.1), index=0
  %start = f32[1,8]{1,0} all-reduce-start(%gte.3), channel_id=1, to_apply=%add.clone
  %done = f32[1,8]{1,0} all-reduce-done(%start)
  %updated = f32[9,8]{1,0} fusion(%gte.1, %done), kind=kLoop, calls=%fused_update
  %one = s32[] constant(1)
  %next = s32[] add(%gte.0, %one)
  ROOT %tuple.1 = (s32[], f32[9,8]{1,0}, u8[100,32,32,3]{3,2,1,0}) tuple(%next, \
%updated, /*index=2*/%gte.2)
}

%condition (param.1: (s32[], f32[9,8], u8[100,32,32,3])) -> pred[] {
  %param.1 = (s32[], f32[9,8]{1,0}, u8[100,32,32,3]{3,2,1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(LIMIT)
  %gte.4 = s32[]{:T(128)} get-tuple-element(%param.1), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%gte.4, %limit), direction=LT
}

ENTRY %main (state: f32[9,8], data: u8[100,32,32,3]) -> (f32[9,8], bf16[4,9,8]) {
  %state = f32[9,8]{1,0} parameter(0), sharding={replicated}
  %data = u8[100,32,32,3]{3,2,1,0} parameter(1)
  %zero = s32[] constant(0)
  %tuple.2 = (s32[], f32[9,8]{1,0}, u8[100,32,32,3]{3,2,1,0}) tuple(%zero, %state, \
%data)
  %while.1 = (s32[], f32[9,8]{1,0}, u8[100,32,32,3]{3,2,1,0}) while(%tuple.2), \
condition=%condition, body=%body KNOWN
  %gte.5 = f32[9,8]{1,0} get-tuple-element(%while.1), index=1
  %rounded = bf16[9,8]{1,0} convert(%gte.5)
  %bits = bf16[1,9,8]{2,1,0} bitcast(%rounded)
  %gather-start = (bf16[1,9,8]{2,1,0}, bf16[4,9,8]{2,1,0}) all-gather-start(%bits), \
dimensions={0}
  %gather-done = bf16[4,9,8]{2,1,0} all-gather-done(%gather-start)
  ROOT %tuple.3 = (f32[9,8]{1,0}, bf16[4,9,8]{2,1,0}) tuple(%gte.5, %gather-done)
}
"""
IMAGE = 32 * 32 * 3
# Of the kernels of the body, in their order; the counter is none. The gather reads two
# images in place of the hundred, and their numbers; the update writes a row in place of
# nine.
BODY = (
    (2 * IMAGE + 2 * 4 + 2 * IMAGE * 4)
    + (2 * IMAGE * 4 + 8 * 4 + 8 * 4 + 16)
    + 2 * 8 * 4  # the all-reduce
    + 2 * 8 * 4
    + 3 * 4  # of the counter
)
# The conversion, and the gather of a quarter to the whole.
OUTSIDE = (9 * 8 * 4 + 9 * 8 * 2) + (9 * 8 * 2 + 5 * 9 * 8 * 2)


def text(limit="7", known=""):
    return TEXT.replace("LIMIT", limit).replace("KNOWN", known)


def test_sizes():
    assert sizes_of("(bf16[8,4]{1,0:T(8,128)(2,1)S(1)}, s32[], pred[3])") == [64, 4, 3]
    assert sizes_of("f8e4m3fn[5]") == sizes_of("s4[10]{0}") == [5]
    assert sizes_of("f32[<=2,3]") == [24]
    assert sizes_of("token[]") == [0]


def test_a_loop_counts_as_often_as_it_runs():
    found = Program(text()).traffic()
    assert found == Traffic(7 * BODY + OUTSIDE, 7 * 4 + 2)
    # As the compiler of GPUs tells it.
    known = ', backend_config={"known_trip_count":{"n":"3"},"x":["y"]}'
    found = Program(text("{...}", known)).traffic()
    assert found == Traffic(3 * BODY + OUTSIDE, 3 * 4 + 2)


def test_a_loop_of_unknown_length_counts_once():
    unknown = text().replace("constant(7)", "get-tuple-element(%param.1), index=0")
    assert Program(unknown).traffic() == Traffic(BODY + OUTSIDE, 4 + 2)


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_rounds_of_loops_can_be_limited(rounds):
    found = Program(text()).traffic(most_rounds=rounds)
    assert found == Traffic(rounds * BODY + OUTSIDE, rounds * 4 + 2)


def test_exchanges():
    assert list(Program(text()).exchanges()) == [
        Exchange("all-reduce", 8 * 4, 7),
        Exchange("all-gather", 4 * 9 * 8 * 2, 1),
    ]


def test_an_exchange_within_a_fusion_or_another_thread_is_found():
    """As TPUs have them."""
    fused = """\
%scatter (param_0.5: f32[64]) -> f32[16] {
  %param_0.5 = f32[64]{0} parameter(0)
  ROOT %reduce-scatter.1 = f32[16]{0} reduce-scatter(%param_0.5), to_apply=%add.clone
}

ENTRY %main (p: f32[64]) -> f32[16] {
  %p = f32[64]{0} parameter(0)
  %fusion.1 = f32[16]{0} fusion(%p), kind=kCustom, calls=%scatter
  %begun = ((f32[64]{0}), f32[16]{0}, u32[]) async-start(%p), calls=%scatter
  ROOT %ended = f32[16]{0} async-done(%begun), calls=%scatter
}
"""
    assert list(Program(fused).exchanges()) == 2 * [Exchange("reduce-scatter", 256, 1)]
