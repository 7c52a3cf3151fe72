"""Makes the small models of the test suite. The files are committed; this shows where they come from.

    pip install onnx==1.23.2 && python make.py

double  x float32 [n, 4] -> y float32 [n, 4] = 2x
triple  the same with 3x
heavy   y float32 [n, 1], the sum of a row of x, by way of weights of 8 MiB in a file beside it, all 1: `weights.bin` is
        written by the test
slow    double, after n rounds of multiplying large matrices: some tenths of a second a row
steady  the same with smaller ones: some hundredths of a second a row, however many rows share a run
dense   double, after some rounds of multiplying by large weights: two rows take little longer than one
fixed   the same with a first dimension of 1 that cannot grow
yolox, yolov5, ssd, end2end   detectors that always find the same, in the layouts of these families
encoder a BERT of random weights: input_ids, attention_mask, token_type_ids int64 [n, length] -> [n, length, 16];
        encoder.tokenizer.json has its words, letters and digits, encoder.expected.json what it says of some texts
vector  the same inputs without the last -> sentence_embedding [n, 2]: how many tokens, and the sum of their ids
towers  pictures and texts float32 [batch, 2] -> scores [batch, batch], of each picture against each text
centred x float32 [n, 4] -> y, x without the mean of all rows
running x float32 [n, 4] -> y, each row with those before it added
sorted  x float32 [n, 4] -> y, the rows in falling order of what their first two numbers come to
int8    x float32 [n, 4] -> y float32 [n, 4], by weights of 8 bits: one scale for all that a run is given
half    double in float16
halfbox a detector of float16 that always finds the same box, in the layout of end2end
careless a text encoder that counts padding: input_ids, attention_mask -> sentence_embedding [n, 2]
loop    trips int64 [1] -> y float32 [1, 1]: as many rounds of a loop as the number says
forever x float32 [1, 1] -> y float32 [1, 1], at the end of a loop that has none
free    two inputs of any length, a float32 [length] and b float32 [length] -> sum
"""

import json
import os
import sys

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model
from onnx.reference import ReferenceEvaluator

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../benches/parity"))
import bert
FLOAT = TensorProto.FLOAT


def info(name, dims):
    return helper.make_tensor_value_info(name, FLOAT, dims)


def write(name, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="caudal")
    checker.check_model(model)
    save_model(model, os.path.join(HERE, name + ".onnx"))


two = numpy_helper.from_array(np.array(2, np.float32), "two")
double = helper.make_node("Mul", ["x", "two"], ["y"])
write("double", [double], [info("x", ["n", 4])], [info("y", ["n", 4])], [two])
three = numpy_helper.from_array(np.array(3, np.float32), "two")
write("triple", [double], [info("x", ["n", 4])], [info("y", ["n", 4])], [three])
write("fixed", [double], [info("x", [1, 4])], [info("y", [1, 4])], [two])
write("free", [helper.make_node("Add", ["a", "b"], ["sum"])],
      [info("a", ["length"]), info("b", ["length"])], [info("sum", ["length"])])

# Models whose answer to a row depends on the rows beside it, or is of both.
write("towers", [helper.make_node("Transpose", ["texts"], ["columns"]),
                 helper.make_node("MatMul", ["pictures", "columns"], ["scores"])],
      [info("pictures", ["batch", 2]), info("texts", ["batch", 2])], [info("scores", ["batch", "batch"])])
write("centred", [helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
                  helper.make_node("Sub", ["x", "mean"], ["y"])], [info("x", ["n", 4])], [info("y", ["n", 4])])
write("running", [helper.make_node("CumSum", ["x", "rows"], ["y"])], [info("x", ["n", 4])], [info("y", ["n", 4])],
      [numpy_helper.from_array(np.array(0, np.int64), "rows")])
write("sorted", [helper.make_node("Split", ["x"], ["first", "rest"], axis=1),
                 helper.make_node("Shape", ["x"], ["count"], start=0, end=1),
                 helper.make_node("ReduceSum", ["first", "columns"], ["keys"], keepdims=0),
                 helper.make_node("TopK", ["keys", "count"], ["values", "order"]),
                 helper.make_node("Gather", ["x", "order"], ["y"])], [info("x", ["n", 4])], [info("y", ["n", 4])],
      [numpy_helper.from_array(np.array([1], np.int64), "columns")])
write("int8", [helper.make_node("DynamicQuantizeLinear", ["x"], ["bytes", "scale", "zero"]),
               helper.make_node("MatMulInteger", ["bytes", "w", "zero"], ["product"]),
               helper.make_node("Cast", ["product"], ["floats"], to=FLOAT),
               helper.make_node("Mul", ["floats", "scale"], ["y"])], [info("x", ["n", 4])], [info("y", ["n", 4])],
      [numpy_helper.from_array((2 * np.eye(4)).astype(np.uint8), "w")])
halves = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", 4])
write("half", [double], [halves("x")], [halves("y")], [numpy_helper.from_array(np.array(2, np.float16), "two")])

ROWS = 1 << 19
weights = TensorProto(name="w", data_type=FLOAT, dims=[ROWS, 4], data_location=TensorProto.EXTERNAL)
for key, value in {"location": "weights.bin", "offset": "0", "length": str(4 * 4 * ROWS)}.items():
    weights.external_data.add(key=key, value=value)
model = helper.make_model(
    helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], axes=[1], keepdims=0),
            helper.make_node("Cast", ["largest"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["w", "row"], ["ones"]),
            helper.make_node("Mul", ["x", "ones"], ["same"]),
            helper.make_node("ReduceSum", ["same", "axis"], ["y"], keepdims=1),
        ],
        "heavy",
        [info("x", ["n", 4])],
        [info("y", ["n", 1])],
        [weights, numpy_helper.from_array(np.array([1]), "axis")],
    ),
    opset_imports=[helper.make_opsetid("", 17)],
    ir_version=8,
    producer_name="caudal",
)
with open(os.path.join(HERE, "heavy.onnx"), "wb") as file:
    file.write(model.SerializeToString())


def laps(rows, factor, shape):
    """The body of a loop that multiplies `factor` by a matrix of `shape` again and again."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["going_on"], ["still_going_on"]),
            helper.make_node("MatMul", ["matrix", factor], ["product"]),
            helper.make_node("Tanh", ["product"], ["next"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            info("matrix", shape),
        ],
        [helper.make_tensor_value_info("still_going_on", TensorProto.BOOL, []), info("next", shape)],
    )


def doubled_after(name, nodes, rounds, side, constants=()):
    """y = 2x, once a loop over `seed` has ended."""
    write(
        name,
        [
            *nodes,
            helper.make_node("ReduceMean", ["end"], ["end_mean"], keepdims=0),
            helper.make_node("Mul", ["end_mean", "zero"], ["nothing"]),
            helper.make_node("Mul", ["x", "two"], ["doubled"]),
            helper.make_node("Add", ["doubled", "nothing"], ["y"]),
        ],
        [info("x", ["n", 4])],
        [info("y", ["n", 4])],
        [
            two,
            numpy_helper.from_array(np.array(rounds, np.int64), "rounds"),
            numpy_helper.from_array(np.array(side, np.int64), "side"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            *constants,
        ],
    )


def by_the_row(name, rounds, side):
    doubled_after(
        name,
        [
            helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
            helper.make_node("Mul", ["rows", "rounds"], ["trips_vector"]),
            helper.make_node("Squeeze", ["trips_vector"], ["trips"]),
            helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=1),
            helper.make_node("Expand", ["mean", "side"], ["seed"]),
            helper.make_node("Loop", ["trips", "", "seed"], ["end"], body=laps("", "matrix", [side, side])),
        ],
        [rounds],
        [side, side],
    )


by_the_row("slow", 50, 1024)
by_the_row("steady", 4, 384)

DENSE = 1024
doubled_after(
    "dense",
    [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Expand", ["mean", "side"], ["seed"]),
        helper.make_node(
            "ConstantOfShape", ["square"], ["w"], value=numpy_helper.from_array(np.array([1e-4], np.float32))
        ),
        helper.make_node("Loop", ["rounds", "", "seed"], ["end"], body=laps("n", "w", ["n", DENSE])),
    ],
    16,
    [1, DENSE],
    [numpy_helper.from_array(np.array([DENSE, DENSE], np.int64), "square")],
)

# Detectors that see nothing: whatever the picture, their outputs are constants, in the layouts of several families.
# What they say is found again by tests with the numbers written here.


def blind(name, image, outputs):
    nodes, constants, shown = [], [], []
    # The picture is looked at and left aside, so that it is an input all the same.
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    cast = helper.make_node("Cast", [image.name], ["floats"], to=FLOAT)
    mean = helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0)
    nothing = helper.make_node("Mul", ["mean", "zero"], ["nothing"])
    for output, values in outputs.items():
        constants.append(numpy_helper.from_array(values, "the_" + output))
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        shown.append(helper.make_tensor_value_info(output, kind, values.shape))
        nodes.append(helper.make_node("Cast", ["nothing"], ["none_" + output], to=kind))
        nodes.append(helper.make_node("Add", ["the_" + output, "none_" + output], [output]))
    graph = helper.make_graph([cast, mean, nothing, *nodes], name, [image], shown, [zero, *constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="caudal")
    checker.check_model(model)
    save_model(model, os.path.join(HERE, name + ".onnx"))


planar = info("images", [1, 3, 64, 64])

# One box in the grid of stride 16 (4 x 4 cells behind the 64 of stride 8), row 1, column 2: centre (40, 24), 16 x 32.
cells = np.zeros((1, 64 + 16 + 4, 7), np.float32)
cells[0, 64 + 4 + 2] = [0.5, 0.5, 0, np.log(2), 1, 0.1, 0.9]
blind("yolox", planar, {"output": cells})

# Three anchors a cell of the same grids. Of two boxes of one class at one place the weaker must go; one of another class
# there stays, and one elsewhere.
anchors = np.zeros((1, 3 * (64 + 16 + 4), 7), np.float32)
anchors[0, 10] = [20, 20, 16, 16, 0.9, 1, 0.2]
anchors[0, 11] = [21, 21, 16, 16, 0.8, 1, 0.3]
anchors[0, 90] = [20, 20, 16, 16, 0.7, 0.1, 1]
anchors[0, 251] = [50, 40, 8, 20, 1, 0.6, 0.5]
blind("yolov5", planar, {"output": anchors})

# Bytes of any size; one box in the right half of the picture, of the second of two classes beside "nothing".
bytes_of_any_size = helper.make_tensor_value_info("image_tensor", TensorProto.UINT8, [1, "height", "width", 3])
boxes = np.zeros((1, 3, 1, 4), np.float32)
boxes[0, 1, 0] = [0.25, 0.5, 0.75, 1]
scores = np.zeros((1, 3, 3), np.float32)
scores[0, :, 0], scores[0, 1] = 0.99, [0.1, 0.2, 0.8]
blind("ssd", bytes_of_any_size, {"boxes": boxes, "scores": scores})

# Two boxes that overlap and were both kept by the network, a third that does not count.
found = np.array([[[8, 8, 40, 40], [10, 10, 42, 42], [0, 0, 64, 64], [0, 0, 0, 0]]], np.float32)
blind("end2end", planar, {
    "num_dets": np.array([[2]], np.int32), "det_boxes": found,
    "det_scores": np.array([[0.9, 0.8, 0.7, 0]], np.float32), "det_classes": np.array([[1, 1, 1, 0]], np.int32),
})

half_boxes = np.array([[[8, 8, 40, 40, 0.9, 1], [0, 0, 0, 0, 0, 0]]], np.float16)
blind("halfbox", helper.make_tensor_value_info("images", TensorProto.FLOAT16, [1, 3, 64, 64]), {"output0": half_boxes})

# A text encoder small enough to be committed, of the shape of those that are not.
random = np.random.default_rng(7)
WIDTH, WIDE, LAYERS, HEADS, PLACES = 16, 32, 2, 2, 64
letters = "abcdefghijklmnopqrstuvwxyz0123456789"
words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *letters, *("##" + letter for letter in letters)]
weights = {}


def linear(name, outputs, inputs):
    weights[name + ".weight"] = random.normal(0, inputs**-0.5, (outputs, inputs))
    weights[name + ".bias"] = random.normal(0, 0.1, outputs)


def norm(name):
    weights[name + ".weight"], weights[name + ".bias"] = random.normal(1, 0.1, WIDTH), random.normal(0, 0.1, WIDTH)


for name, rows in {"word": len(words), "position": PLACES, "token_type": 2}.items():
    weights[f"embeddings.{name}_embeddings.weight"] = random.normal(0, 1, (rows, WIDTH))
norm("embeddings.LayerNorm")
for layer in range(LAYERS):
    of = f"encoder.layer.{layer}."
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        linear(of + name, WIDTH, WIDTH)
    linear(of + "intermediate.dense", WIDE, WIDTH)
    linear(of + "output.dense", WIDTH, WIDE)
    norm(of + "attention.output.LayerNorm")
    norm(of + "output.LayerNorm")
bert.write(os.path.join(HERE, "encoder.onnx"), weights, HEADS)

tokenizer = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                   "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": None,
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "vocab": {word: i for i, word in enumerate(words)}},
}
with open(os.path.join(HERE, "encoder.tokenizer.json"), "w") as file:
    json.dump(tokenizer, file, indent=1)
    file.write("\n")

# What numpy says of some texts: the mean of their tokens' vectors, brought to length 1.
evaluator = ReferenceEvaluator(os.path.join(HERE, "encoder.onnx"))
expected = []
for text, tokens in {"Cat 7": ["c", "##a", "##t", "7"], "a": ["a"], "abcabcabc é!": [
        "a", "##b", "##c", "##a", "##b", "##c", "##a", "##b", "##c", "e", "[UNK]"]}.items():
    ids = np.array([[words.index(token) for token in ["[CLS]", *tokens, "[SEP]"]]])
    vectors = evaluator.run(None, {
        "input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})[0][0]
    mean = vectors.mean(0)
    expected.append({"text": text, "ids": ids[0].tolist(), "cls": [round(float(v), 5) for v in vectors[0]],
                     "mean": [round(float(v), 6) for v in mean / np.linalg.norm(mean)]})
with open(os.path.join(HERE, "encoder.expected.json"), "w") as file:
    json.dump(expected, file, indent=1, ensure_ascii=False)
    file.write("\n")

tokens = lambda name: helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"])
write(
    "vector",
    [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["ids"]),
        helper.make_node("ReduceSum", ["attention_mask", "one"], ["count"]),
        helper.make_node("ReduceSum", ["ids", "one"], ["sum"]),
        helper.make_node("Concat", ["count", "sum"], ["both"], axis=1),
        helper.make_node("Cast", ["both"], ["sentence_embedding"], to=FLOAT),
    ],
    [tokens("input_ids"), tokens("attention_mask")],
    [info("sentence_embedding", ["n", 2])],
    [numpy_helper.from_array(np.array([1], np.int64), "one")],
)

write(
    "careless",
    [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=FLOAT),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=FLOAT),
        helper.make_node("ReduceMean", ["ids"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("ReduceMean", ["mask"], ["share"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["mean", "share"], ["sentence_embedding"], axis=1),
    ],
    [tokens("input_ids"), tokens("attention_mask")],
    [info("sentence_embedding", ["n", 2])],
)
write(
    "loop",
    [
        helper.make_node("Squeeze", ["trips"], ["count"]),
        helper.make_node("Loop", ["count", "", "seed"], ["y"], body=laps("", "matrix", [1, 1])),
    ],
    [helper.make_tensor_value_info("trips", TensorProto.INT64, [1])],
    [info("y", [1, 1])],
    [numpy_helper.from_array(np.array([[0.5]], np.float32), "seed")],
)
write(
    "forever",
    [helper.make_node("Loop", ["rounds", "", "x"], ["y"], body=laps("", "matrix", [1, 1]))],
    [info("x", [1, 1])],
    [info("y", [1, 1])],
    [numpy_helper.from_array(np.array(1 << 62, np.int64), "rounds")],
)
