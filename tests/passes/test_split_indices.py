from __future__ import annotations

from tqt_onnx.passes.split_indices import SplitIndices

POOL = "MaxPool<kernel_shape = [2, 2], strides = [2, 2]>"
IO = "g (float[n,3,4,6] x) => (float[b,c,h,w] y)"
AND_POSITIONS = "g (float[n,3,4,6] x) => (float[b,c,h,w] y, int64[b,c,h,w] i)"


def test_positions_that_nobody_reads_go(golden):
    golden(SplitIndices(), f"{IO} {{ y, i = {POOL}(x) }}", f"{IO} {{ y = {POOL}(x) }}")


def test_positions_that_somebody_reads_come_from_a_pool_of_their_own(golden):
    before = f"{IO} {{ m, i = {POOL}(x) r = Relu(m) y = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(r, i) }}"
    after = f"""{IO} {{ m = {POOL}(x) m__unread, i = {POOL}(x) r = Relu(m)
        y = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(r, i) }}"""
    golden(SplitIndices(), before, after)


def test_positions_that_leave_the_graph_keep_their_name(golden):
    before = f"{AND_POSITIONS} {{ m, i = {POOL}(x) y = Relu(m) }}"
    golden(SplitIndices(), before, f"{AND_POSITIONS} {{ m = {POOL}(x) m__unread, i = {POOL}(x) y = Relu(m) }}")


def test_maxima_alone_and_positions_alone_stay(untouched):
    untouched(SplitIndices(), f"{IO} {{ y = {POOL}(x) }}")
    untouched(SplitIndices(), f"g (float[n,3,4,6] x) => (int64[b,c,h,w] i) {{ y, i = {POOL}(x) }}")
