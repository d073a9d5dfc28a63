"""BatchNormalization into the Conv, ConvTranspose or Gemm before it."""

from __future__ import annotations

import contextlib

import onnx_ir as ir
from onnx_ir.passes import common

from planner.model.passes.fold import lift_constants


def fuse_batch_normalization(model: ir.Model) -> None:
    """Fold each BatchNormalization into the node before it, in place."""
    if all(node.op_type != "BatchNormalization" for node in model.graph.all_nodes()):
        return
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.common import (
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    )

    rules = [fuse_batchnorm_into_conv_rule, fuse_batchnorm_into_conv_transpose_rule, fuse_batchnorm_into_gemm_rule]
    with contextlib.suppress(Exception):
        rewrite(model, pattern_rewrite_rules=rules)
    common.RemoveUnusedNodesPass()(model)
    lift_constants(model)
