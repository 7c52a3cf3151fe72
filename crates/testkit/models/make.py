"""Makes the small models of the test suite. The files are committed; this shows where they come from.

    pip install onnx==1.23.2 && python make.py

double  x float32 [n, 4] -> y float32 [n, 4] = 2x
triple  the same with 3x
slow    the same, after n rounds of multiplying large matrices: some tenths of a second a row
fixed   the same with a first dimension of 1 that cannot grow
yolox, yolov5, ssd, end2end   detectors that always find the same, in the layouts of these families
free    two inputs of any length, a float32 [length] and b float32 [length] -> sum
"""

import os

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model

HERE = os.path.dirname(os.path.abspath(__file__))
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

ROUNDS = 50
body = helper.make_graph(
    [
        helper.make_node("Identity", ["going_on"], ["still_going_on"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("Tanh", ["product"], ["next"]),
    ],
    "round",
    [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
        info("matrix", [1024, 1024]),
    ],
    [helper.make_tensor_value_info("still_going_on", TensorProto.BOOL, []), info("next", [1024, 1024])],
)
write(
    "slow",
    [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Mul", ["rows", "rounds"], ["trips_vector"]),
        helper.make_node("Squeeze", ["trips_vector"], ["trips"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=1),
        helper.make_node("Expand", ["mean", "side"], ["seed"]),
        helper.make_node("Loop", ["trips", "", "seed"], ["end"], body=body),
        helper.make_node("ReduceMean", ["end"], ["end_mean"], keepdims=0),
        helper.make_node("Mul", ["end_mean", "zero"], ["nothing"]),
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Add", ["doubled", "nothing"], ["y"]),
    ],
    [info("x", ["n", 4])],
    [info("y", ["n", 4])],
    [
        two,
        numpy_helper.from_array(np.array([ROUNDS], np.int64), "rounds"),
        numpy_helper.from_array(np.array([1024, 1024], np.int64), "side"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
    ],
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
