"""The EP's verbose log, as it came from onnxruntime-qnn 2.7, read for who was refused and why."""

from __future__ import annotations

from planner.runtime.refusals import clean, read_refusals, single_node_partition

WHERE = "qnn_execution_provider.cc:1713 LogNodeSupport"
FAILED = (
    0,
    WHERE,
    "Validation FAILED for 3 nodes in OrtNodeUnit (MatMul) :\n"
    "\tOperator type: DequantizeLinear Node name: dq Node index: 1\n"
    "\tOperator type: MatMul Node name: /layer 1/MatMul Node index: 3\n"
    "\tOperator type: QuantizeLinear Node name: q2 Node index: 4\n"
    "\tREASON : Failed to add fused Matmul node.\n",
)
PASSED = (0, WHERE, "Validation PASSED for 1 nodes in OrtNodeUnit (QuantizeLinear) :\n")
VALIDATOR = (
    2,
    "qnn_model_wrapper.cc:565 CreateQnnNode",
    "QNN.backendValidateOpConfig() failed for node `m` of type `FullyConnected` with error code 3110\n",
)


def test_every_node_of_a_refused_unit_gets_the_reason() -> None:
    refusals = read_refusals([PASSED, FAILED])
    assert [(r.op_type, r.name) for r in refusals] == [
        ("DequantizeLinear", "dq"),
        ("MatMul", "/layer 1/MatMul"),
        ("QuantizeLinear", "q2"),
    ]
    assert {r.reason for r in refusals} == {"Failed to add fused Matmul node."}


def test_the_backends_own_validator_is_part_of_the_reason_of_the_unit_that_it_refused() -> None:
    expected = "Failed to add fused Matmul node.; the backend's validator refused FullyConnected (error 3110)"
    assert read_refusals([VALIDATOR, FAILED])[1].reason == expected
    assert read_refusals([VALIDATOR, PASSED, FAILED])[1].reason == "Failed to add fused Matmul node."


def test_the_last_word_on_a_node_counts() -> None:
    later = (0, WHERE, FAILED[2].replace("Failed to add fused Matmul node.", "another reason"))
    assert {r.reason for r in read_refusals([FAILED, later])} == {"another reason"}


def test_a_log_without_refusals_gives_none() -> None:
    assert read_refusals([PASSED, (0, "x", "anything")]) == ()
    assert single_node_partition([PASSED]) is None


def test_messages_lose_status_prefix_and_package_folders_but_keep_node_names() -> None:
    message = "[ONNXRuntimeError] : 1 : FAIL : Node '/a/b/Conv' \n in '/x/lib/site-packages/pkg/lib.so'\nmore\nand more"
    assert clean(message) == "Node '/a/b/Conv' in 'pkg/lib.so' more"


def test_nodes_without_a_name_are_told_apart_by_their_operators() -> None:
    said = "Validation FAILED for 1 nodes in OrtNodeUnit ({op}) :\n\tOperator type: {op} Node name:  Node index: 1\n\tREASON : no {op}\n"
    refusals = read_refusals([(0, WHERE, said.format(op=op)) for op in ("Erf", "Scan")])
    assert [(r.op_type, r.name, r.reason) for r in refusals] == [("Erf", "", "no Erf"), ("Scan", "", "no Scan")]
