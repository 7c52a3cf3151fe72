"""Makes the small models of the test suite. The files are committed; this shows where they come from.

    pip install onnx==1.23.2 && python make.py

double  x float32 [n, 4] -> y float32 [n, 4] = 2x
slow    the same, after n rounds of multiplying large matrices: some tenths of a second a row
fixed   the same with a first dimension of 1 that cannot grow
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
