"""What computes with shapes alone is told apart from what computes with a tensor's numbers."""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir

from planner.model.shape_arithmetic import shape_arithmetic

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x, int64[1] outside) => (float[M, K] y, int64[2] z, float[A, B] sum)
<int64[1] zero = {0}, int64[1] four = {4}>
{
    shape = Shape(x)
    rows = Gather(shape, zero)
    size = Concat<axis = 0>(rows, four)
    y = Reshape(x, size)
    z = Concat<axis = 0>(rows, outside)
    mean = ReduceMean<axes = [0], keepdims = 0>(x)
    at = Gather(mean, rows)
    sum = Add(at, x)
}
"""


def found(text: str) -> list[str | None]:
    graph = ir.from_proto(onnx.parser.parse_model(text)).graph
    nodes = shape_arithmetic(graph)
    return [node.outputs[0].name for node in graph if node in nodes]


def test_only_what_shapes_inputs_and_small_constants_make_is_shape_arithmetic() -> None:
    # Shape itself stays, Reshape moves the tensor's numbers, and so does the last Gather.
    assert found(MODEL) == ["rows", "size", "z"]


def test_what_a_gpu_makes_of_a_shape_that_it_reads_on_the_processor_is_none() -> None:
    """As DirectML places them: positions, causal masks and slices of tables by a length are made on the GPU."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4] x) => (bool[A, B] mask, float[C] part, float[D] ones, float[E] half, float[F] scaled)
    <int64[1] zero = {0}, int64[1] one = {1}, int64 nought = {0}, int64 unit = {1}, int64 first = {0},
     float[4] table = {1, 2, 3, 4}, float16[1] two = {2}>
    {
        shape = Shape(x)
        length = Gather(shape, first)
        rows = Gather(shape, zero)
        at = Range(nought, length, unit)
        across = Unsqueeze(at, zero)
        down = Unsqueeze(at, one)
        mask = LessOrEqual(across, down)
        part = Slice(table, zero, rows)
        ones = ConstantOfShape(rows)
        number = Cast<to = 10>(rows)
        half = Mul(number, two)
        float = Cast<to = 1>(rows)
        scaled = Sqrt(float)
    }
    """
    assert found(text) == ["length", "rows", "number", "float", "scaled"]
