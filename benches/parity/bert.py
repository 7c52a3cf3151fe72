"""Writes a BERT encoder as an ONNX graph, from its weights alone: no torch is needed.

The graph is laid out as exporters lay it out, so that ONNX Runtime fuses it as it fuses theirs.
"""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model


def write(file, weights, heads, epsilon=1e-12):
    """Writes the encoder with `weights`, named as Hugging Face names them, to `file`.

    input_ids, attention_mask, token_type_ids int64 [batch_size, sequence_length]
    -> last_hidden_state float32 [batch_size, sequence_length, width]
    """
    width = weights["embeddings.word_embeddings.weight"].shape[1]
    nodes, constants = [], []

    def node(kind, *inputs, **attributes):
        output = f"{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(values, kind=np.int64):
        name = f"constant_{len(constants)}"
        constants.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def weight(name, transposed=False):
        values = np.ascontiguousarray(weights[name].T if transposed else weights[name], np.float32)
        constants.append(numpy_helper.from_array(values, name))
        return name

    def linear(x, name):
        return node("Add", node("MatMul", x, weight(name + ".weight", True)), weight(name + ".bias"))

    def norm(x, name):
        return node("LayerNormalization", x, weight(name + ".weight"), weight(name + ".bias"), epsilon=epsilon)

    def split(x, perm):
        return node("Transpose", node("Reshape", x, into_heads), perm=perm)

    first, last, second = constant([0]), constant([2]), constant([1])
    into_heads, whole = constant([0, 0, heads, width // heads]), constant([0, 0, width])
    length = node("Shape", "input_ids", start=1, end=2)
    words = node("Gather", weight("embeddings.word_embeddings.weight"), "input_ids")
    kinds = node("Gather", weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    places = node("Slice", weight("embeddings.position_embeddings.weight"), first, length, first)
    x = norm(node("Add", node("Add", words, kinds), places), "embeddings.LayerNorm")

    mask = node("Cast", node("Unsqueeze", node("Unsqueeze", "attention_mask", second), last), to=TensorProto.FLOAT)
    hidden = node("Mul", node("Sub", constant(1, np.float32), mask), constant(-10000, np.float32))

    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    for layer in range(layers):
        of = f"encoder.layer.{layer}."
        query = split(linear(x, of + "attention.self.query"), [0, 2, 1, 3])
        key = split(linear(x, of + "attention.self.key"), [0, 2, 3, 1])
        value = split(linear(x, of + "attention.self.value"), [0, 2, 1, 3])
        scores = node("Div", node("MatMul", query, key), constant((width / heads) ** 0.5, np.float32))
        seen = node("MatMul", node("Softmax", node("Add", scores, hidden), axis=-1), value)
        seen = node("Reshape", node("Transpose", seen, perm=[0, 2, 1, 3]), whole)
        x = norm(node("Add", linear(seen, of + "attention.output.dense"), x), of + "attention.output.LayerNorm")
        # GELU, in the terms in which exporters write it.
        wide = linear(x, of + "intermediate.dense")
        erf = node("Erf", node("Div", wide, constant(2**0.5, np.float32)))
        wide = node("Mul", node("Mul", wide, node("Add", erf, constant(1, np.float32))), constant(0.5, np.float32))
        x = norm(node("Add", linear(wide, of + "output.dense"), x), of + "output.LayerNorm")
    nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))

    rows = ["batch_size", "sequence_length"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, rows)
              for name in ("input_ids", "attention_mask", "token_type_ids")]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*rows, width])
    graph = helper.make_graph(nodes, "bert", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="caudal")
    checker.check_model(model)
    save_model(model, file)
