"""Texts in the form of the HTP compiler's schedule, small enough to add up by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """A scheduled operator: the QNN operator it comes from, its kind and flag, and the bytes it moves."""

    origin: int
    kind: str
    flag: str
    dram_read: int = 0
    dram_write: int = 0
    vtcm_read: int = 0
    vtcm_write: int = 0


# Operator 0x11 is a convolution of a 1x8x8x4 input with a 3x3 kernel to 16 channels; 0x12 adds its bias and is scheduled.
GRAPH = """graph_before_optimization = { # :::BEGIN:graph_before_optimization:::
\t0x0000000000000002: {
\t\t'operation':'q::Input',
\t\t'inputs' : [],
\t\t'outputs' : [\t{
\t\t\t'dtype': 'QUInt8', 'rank': 4,
\t\t\t\t'dims': [1,8,8,4],
\t\t\t},
\t\t],
\t},
\t0x0000000000000010: {
\t\t'operation':'$Const',
\t\t'inputs' : [],
\t\t'outputs' : [\t{
\t\t\t'dtype': 'QUInt8', 'rank': 4,
\t\t\t\t'dims': [3,3,4,16],
\t\t\t},
\t\t],
\t},
\t0x0000000000000011: {
\t\t'operation':'q::QNN_Conv2d',
\t\t'inputs' : [
\t\t\t(0x2,0),
\t\t\t(0x10,0),
\t\t],
\t\t'outputs' : [\t{
\t\t\t'dtype': 'QUInt8', 'rank': 4,
\t\t\t\t'dims': [1,8,8,16],
\t\t\t},
\t\t],
\t},
}
# :::END:graph_before_optimization:::
"""
ROWS = (
    Row(0x2, "q::*InputSlice", "FOR_DMA", dram_read=1024, vtcm_write=1024),
    Row(0x12, "q::ConvLayer.opt.weights_to_vtcm", "FOR_DMA", dram_read=1152, vtcm_write=1152),
    Row(0x12, "q::ConvLayer.fp16.s1.tcm", "RESOURCE_HMX", vtcm_read=1664, vtcm_write=2048),
    Row(0x13, "q::Softmax", "FOR_HVX", vtcm_read=2048, vtcm_write=2048),
    Row(0x13, "@Spill", "FOR_DMA", dram_write=4096, vtcm_read=4096),
    Row(0x3, "q::*OutputSlice", "FOR_DMA", dram_write=4096, vtcm_read=2048),
)
NAMES = {0x11: "conv_token_1", 0x12: "add", 0x13: "softmax"}


def text(rows: Sequence[Row] = ROWS, *, names: dict[int, str] = NAMES, graph: str = GRAPH, ending: bool = True) -> str:
    """A schedule of so many operators, with the sections and the order of the compiler's own."""
    ids = [(i + 1) << 32 | row.origin for i, row in enumerate(rows)]
    lines = [graph, "concrete_ops_info = { # :::BEGIN:concrete_ops_info:::atomic"]
    lines += [f"\t0x{id:x}: 0," for id in ids[:1]]
    lines += ["}", "concrete_ops_info_key = [ # key for concrete_ops_info"]
    lines += ['\t"N4hnnx9TypicalOpIXadL_Z15Swish_fp16_implI14ConcreteTensorEEE",', "]", "bandwidth_information = ["]
    lines += [
        f'{{"opid" : 0x{id:016x} , "dram_read": {r.dram_read} , "dram_write": {r.dram_write} , "vtcm_read": {r.vtcm_read} , '
        f'"vtcm_write": {r.vtcm_write}, "is_dma": {int(r.flag == "FOR_DMA")}}},'
        for id, r in zip(ids, rows, strict=True)
    ]
    lines += [
        "]",
        "runlist2 = [",
        *(f"\t0x{id:x}," for id in ids[:2]),
        "]",
        "runlist_vec = [",
        f"\t0x{ids[-1]:x},",
        "]",
    ]
    lines += ["qnn_name_translations = {", *(f"0x{id:016x}: '{name}'," for id, name in names.items()), "}"]
    lines += ["opdesc_map ={"]
    for i, (id, row) in enumerate(zip(ids, rows, strict=True)):
        lines += [f"""  '#{i}': opdesc( 0x{id:x}, "{row.kind}", ptr=0x5600, runlist_pos = {i},"""]
        lines += [f"      flags=('any_tcm',), op_flags=('{row.flag}','MOVE_EARLY',), n_out=1,", "  ),"]
    lines += [
        "} # end of opdesc",
        "tcm_block_info = {",
        "    14: (0x1000, 0x800),",
        "    15: (0x400, 0x100),",
        "} # end of block_info",
    ]
    return "\n".join([*lines, "#####  End of OpInfoRegisry dump" if ending else ""])


def stream(value: str) -> io.BytesIO:
    return io.BytesIO(value.encode())
