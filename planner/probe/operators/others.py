"""What models for training, text and tables are made of, and the newest operators."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, helper

from planner.probe.forms import Form, Forms, act, given, ints, sequence, weight


def losses() -> Forms:
    """Losses, as models for training have them."""
    labels = given(3, dtype="int64", high=5)
    for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
        base = Form(op, (act(3, 5), labels), {"reduction": "mean"})
        yield base
        yield base.attrs(reduction="sum")
        yield base.attrs(reduction="none")
        yield base.attrs(ignore_index=1)
        yield base.but("reduction=none,ignore_index=-1", attributes={"reduction": "none", "ignore_index": -1})
        yield base.but("weight", act(3, 5), labels, act(5, low=0.1))
        yield base.but("labels=int32", act(3, 5), given(3, dtype="int32", high=5))
        for dims in ((2,), (2, 2), (2, 2, 2)):
            rank = 2 + len(dims)
            yield base.but(f"rank={rank}", act(3, 5, *dims), given(3, *dims, dtype="int64", high=5))


def sequences() -> Forms:
    """Operators on sequences and optional values."""
    x = given(2, 3, dtype="float32")
    several = sequence(2, 3)
    yield Form("SequenceConstruct", (x, x))
    yield Form("SequenceEmpty", ())
    yield Form("SequenceInsert", (several, x))
    yield Form("SequenceErase", (several, ints(0, shape=())))
    yield Form("SequenceAt", (several, ints(0, shape=())))
    yield Form("SequenceLength", (several,))
    yield Form("SplitToSequence", (given(4, 3, dtype="float32"), ints(2, shape=())))
    yield Form("ConcatFromSequence", (several,), {"axis": 0})
    yield Form("Identity", (several,), condition="sequence").as_rule({"static_outputs": False})
    yield Form("Optional", (x,))
    yield Form("OptionalHasElement", (x,), opset=18)
    yield Form("OptionalGetElement", (x,), opset=18)


def strings() -> Forms:
    """Operators on text and coded images."""
    words = given(3, dtype="object")
    yield Form("StringConcat", (words, words))
    yield Form("StringSplit", (words,), {"delimiter": "."}, outputs=2)
    yield Form("StringNormalizer", (words,), {"case_change_action": "LOWER"})
    yield Form("RegexFullMatch", (words,), {"pattern": "a.*"})
    yield Form("Identity", (words,), condition="string")
    yield Form(
        "TfIdfVectorizer",
        (given(2, 6, dtype="int32", high=9),),
        {
            "max_gram_length": 2, "max_skip_count": 0, "min_gram_length": 2, "mode": "TF", "ngram_counts": [0, 4],
            "ngram_indexes": [0, 1, 2, 3, 4, 5, 6], "pool_int64s": [2, 3, 5, 4, 5, 6, 7, 8, 6, 7],
        },
    )  # fmt: skip
    yield Form("ImageDecoder", (given(64, dtype="uint8", high=255),), {"pixel_format": "RGB"})


def newest() -> Forms:
    """Operators that came with opset 24 or later, before runtimes had kernels for them."""
    yield Form("TensorScatter", (act(2, 1, 4, 8), act(2, 1, 1, 8), ints(1, 2)), {"mode": "linear"}, opset=24)
    yield Form("BitCast", (given(2, 4, dtype="float32"),), {"to": int(TensorProto.INT32)}, opset=26)
    yield Form("CumProd", (act(4, 8), ints(1, dtype="int32", shape=())), opset=26)
    x = act(2, 1, 32)
    yield Form(
        "LinearAttention",
        (x, x, x, act(2, 4, 8, 8)),
        {"q_num_heads": 4, "kv_num_heads": 4, "update_rule": "linear"},
        opset=27,
        outputs=2,
    )
    yield Form("CausalConvWithState", (act(1, 4, 6), weight(4, 1, 3, axis=0)), opset=27, outputs=2)
    yield Form("SwiGLU", (act(2, 8), act(2, 8)), opset=28)


def machine_learning() -> Forms:
    """Tables and trees, as scikit-learn's converters write them."""
    ml: dict[str, Any] = {"domain": "ai.onnx.ml"}
    x = given(3, 4, dtype="float32", low=-1, high=2)
    yield Form("ArrayFeatureExtractor", (x, ints(0, 2)), **ml)
    yield Form("ArrayFeatureExtractor", (x, given(2, dtype="int64", high=4)), condition="indices=dynamic", **ml)
    yield Form("Binarizer", (x,), {"threshold": 0.5}, **ml)
    yield Form("Normalizer", (x,), {"norm": "L2"}, **ml)
    yield Form("Scaler", (x,), {"offset": [0.1] * 4, "scale": [2.0] * 4}, **ml)
    yield Form("Imputer", (x,), {"imputed_value_floats": [0.0], "replaced_value_float": 1.0}, **ml)
    yield Form("FeatureVectorizer", (x, x), {"inputdimensions": [4, 4]}, **ml)
    yield Form("LinearRegressor", (x,), {"coefficients": [0.1, 0.2, 0.3, 0.4], "intercepts": [0.5], "targets": 1}, **ml)
    yield Form(
        "LabelEncoder", (given(5, dtype="int64", high=3),), {"keys_int64s": [0, 1], "values_int64s": [1, 0]}, **ml
    )
    yield Form("OneHotEncoder", (given(5, dtype="int64", high=3),), {"cats_int64s": [0, 1, 2]}, **ml)
    yield Form(
        "TreeEnsembleRegressor",
        (x,),
        {
            "n_targets": 1, "nodes_falsenodeids": [2, 0, 0], "nodes_featureids": [0, 0, 0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
            "nodes_nodeids": [0, 1, 2], "nodes_treeids": [0, 0, 0], "nodes_truenodeids": [1, 0, 0], "nodes_values": [0.5, 0.0, 0.0],
            "target_ids": [0, 0], "target_nodeids": [1, 2], "target_treeids": [0, 0], "target_weights": [1.0, -1.0],
        },
        **ml,
    )  # fmt: skip
    yield Form(
        "TreeEnsemble",
        (x,),
        {
            "leaf_targetids": [0, 0], "leaf_weights": helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, -1.0]), "n_targets": 1,
            "nodes_falseleafs": [1], "nodes_falsenodeids": [1], "nodes_featureids": [0],
            "nodes_modes": helper.make_tensor("m", TensorProto.UINT8, [1], [0]),
            "nodes_splits": helper.make_tensor("s", TensorProto.FLOAT, [1], [0.5]), "nodes_trueleafs": [1],
            "nodes_truenodeids": [0], "tree_roots": [0],
        },
        **ml,
    )  # fmt: skip
