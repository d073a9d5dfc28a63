"""What computes with shapes alone is told apart from what computes with a tensor's numbers."""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir

from planner.model.shape_arithmetic import shape_arithmetic

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x, int64[1] outside) => (float[M, K] y, int64[2] z)
<int64[1] zero = {0}, int64[1] four = {4}>
{
    shape = Shape(x)
    rows = Gather(shape, zero)
    size = Concat<axis = 0>(rows, four)
    y = Reshape(x, size)
    z = Concat<axis = 0>(rows, outside)
}
"""


def test_only_what_shapes_and_small_constants_make_is_shape_arithmetic() -> None:
    graph = ir.from_proto(onnx.parser.parse_model(MODEL)).graph
    found = shape_arithmetic(graph)
    # Shape itself stays, Reshape moves the tensor's numbers, and the last Concat takes an input of the model.
    assert [node.outputs[0].name for node in graph if node in found] == ["rows", "size"]
