"""Makes the models and the request bodies: make_assets.py PHOTO FOLDER.

mlp.onnx             float32 [n, 64] -> [n, 10], input `x`, output `y`
yolov8n_random.onnx  YOLOv8n's layers with random weights (same work, no meaning), output [n, 84, 8400]
mlp_simple.json      {"data": [64 numbers]}
mlp_v2.json          the same numbers as a KServe v2 request
photo_*.multipart    a form with the photo as JPEG in the field `file`, 640x480 and 1920x1080
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageOps

BOUNDARY = "peersboundary7MA4YWxk"
PICTURES = [(640, 480), (1920, 1080)]
CANDIDATES = 300  # boxes above the threshold in the first photo, so that removing duplicates has real work


def model(name, nodes, weights, inputs, outputs):
    def values(named):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in named.items()]

    graph = helper.make_graph(nodes, name, values(inputs), values(outputs), weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def mlp(rng):
    w1 = (rng.standard_normal((64, 32)) / 8).astype(np.float32)
    w2 = (rng.standard_normal((32, 10)) / 6).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["y"]),
    ]
    weights = [numpy_helper.from_array(w1, "w1"), numpy_helper.from_array(w2, "w2")]
    return model("mlp", nodes, weights, {"x": ["n", 64]}, {"y": ["n", 10]})


class Yolo:
    """YOLOv8n's plan of layers: 3.2 million weights, 8.7 GFLOP a picture of 640x640."""

    def __init__(self):
        self.nodes, self.weights, self.rng = [], [], np.random.default_rng(11)

    def op(self, kind, inputs, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def const(self, value, kind):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def ints(self, *values):
        return self.const(values, np.int64)

    def floats(self, values):
        return self.const(values, np.float32)

    def concat(self, *parts, axis=1):
        return self.op("Concat", parts, axis=axis)

    def plain_conv(self, x, ins, outs, kernel=1, stride=1, bias=0.0):
        # 2.4 over the fan-in keeps the signal's size through SiLU, so that scores differ from place to place
        weight = self.rng.standard_normal((outs, ins, kernel, kernel)) * (2.4 / (ins * kernel * kernel)) ** 0.5
        inputs = [x, self.floats(weight), self.floats(np.full(outs, bias))]
        return self.op("Conv", inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)

    def conv(self, *args):
        y = self.plain_conv(*args)
        return self.op("Mul", [y, self.op("Sigmoid", [y])])

    def c2f(self, x, ins, outs, depth, shortcut):
        half = outs // 2
        parts = self.op("Split", [self.conv(x, ins, outs), self.ints(half, half)], 2, axis=1)
        for _ in range(depth):
            y = self.conv(self.conv(parts[-1], half, half, 3), half, half, 3)
            parts.append(self.op("Add", [parts[-1], y]) if shortcut else y)
        return self.conv(self.concat(*parts), half * len(parts), outs)

    def up(self, x):
        return self.op("Resize", [x, "", self.floats([1, 1, 2, 2])], mode="nearest",
                       coordinate_transformation_mode="asymmetric", nearest_mode="floor")

    def pyramid(self, x):
        """Backbone and neck: features at strides 8, 16 and 32."""
        x = self.conv(self.conv(x, 3, 16, 3, 2), 16, 32, 3, 2)
        p3 = self.c2f(self.conv(self.c2f(x, 32, 32, 1, True), 32, 64, 3, 2), 64, 64, 2, True)
        p4 = self.c2f(self.conv(p3, 64, 128, 3, 2), 128, 128, 2, True)
        x = self.c2f(self.conv(p4, 128, 256, 3, 2), 256, 256, 1, True)
        pools = [self.conv(x, 256, 128)]
        for _ in range(3):
            pools.append(self.op("MaxPool", pools[-1:], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4))
        p5 = self.conv(self.concat(*pools), 512, 256)
        n4 = self.c2f(self.concat(self.up(p5), p4), 384, 128, 1, False)
        n3 = self.c2f(self.concat(self.up(n4), p3), 192, 64, 1, False)
        m4 = self.c2f(self.concat(self.conv(n3, 64, 64, 3, 2), n4), 192, 128, 1, False)
        m5 = self.c2f(self.concat(self.conv(m4, 128, 128, 3, 2), p5), 384, 256, 1, False)
        return [(n3, 64), (m4, 128), (m5, 256)]

    def head(self, features, channels, outs, bias):
        y = self.conv(self.conv(features, channels, outs, 3), outs, outs, 3)
        return self.op("Reshape", [self.plain_conv(y, outs, outs, 1, 1, bias), self.ints(0, outs, -1)])

    def boxes(self, sides):
        """From 16 bins a side to the expected distance, from there to centre and size in pixels."""
        bins = self.op("Reshape", [sides, self.ints(0, 4, 16, -1)])
        odds = self.op("Softmax", [self.op("Transpose", [bins], perm=[0, 2, 1, 3])], axis=1)
        distance = self.op("Conv", [odds, self.floats(np.arange(16).reshape(1, 16, 1, 1))], kernel_shape=[1, 1])
        near, far = self.op(
            "Split", [self.op("Reshape", [distance, self.ints(0, 4, -1)]), self.ints(2, 2)], 2, axis=1)
        grids = [(np.indices((n, n))[::-1].reshape(2, -1) + 0.5, np.full(n * n, 640 // n)) for n in (80, 40, 20)]
        anchors = self.floats(np.concatenate([grid for grid, _ in grids], 1)[None])
        strides = self.floats(np.concatenate([stride for _, stride in grids])[None, None])
        low, high = self.op("Sub", [anchors, near]), self.op("Add", [anchors, far])
        centre = self.op("Mul", [self.op("Add", [low, high]), self.floats([0.5])])
        return self.op("Mul", [self.concat(centre, self.op("Sub", [high, low])), strides])

    def build(self, bias):
        """The model; `bias` moves all scores up or down."""
        features = self.pyramid("images")
        sides = self.concat(*[self.head(x, channels, 64, 0.0) for x, channels in features], axis=2)
        scores = self.concat(*[self.head(x, channels, 80, bias) for x, channels in features], axis=2)
        parts = [self.boxes(sides), self.op("Sigmoid", [scores])]
        self.nodes.append(helper.make_node("Concat", parts, ["output0"], axis=1))
        shapes = {"images": ["n", 3, 640, 640]}, {"output0": ["n", 84, 8400]}
        return model("yolov8n_random", self.nodes, self.weights, *shapes)


def best_scores(made, picture):
    """The best score of each place of a 640x480 picture, highest first."""
    square = ImageOps.pad(picture, (640, 640), color=(114, 114, 114))
    tensor = np.asarray(square, np.float32).transpose(2, 0, 1)[None] / 255
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.sort(session.run(None, {"images": tensor})[0][0][4:].max(0))[::-1]


def yolo(picture):
    """Built twice: the first one shows which bias lets CANDIDATES places pass the threshold of 0.25."""
    scores = best_scores(Yolo().build(0.0), picture).astype(np.float64)
    logits = np.log(scores / (1 - scores))
    bias = np.log(0.25 / 0.75) - (logits[CANDIDATES - 1] + logits[CANDIDATES]) / 2
    made = Yolo().build(bias)
    print("places that pass:", int((best_scores(made, picture) > 0.25).sum()))
    return made


def photo(source, size):
    """The photo cut and scaled to `size`, with a camera's noise, without which an enlarged JPEG is too small."""
    pixels = np.asarray(ImageOps.fit(Image.open(source).convert("RGB"), size, Image.LANCZOS), np.float32)
    pixels = pixels + np.random.default_rng(3).standard_normal(pixels.shape) * 4
    jpeg = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()


def form(jpeg):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\n'
    return head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + jpeg + f"\r\n--{BOUNDARY}--\r\n".encode()


def main():
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    onnx.save(mlp(rng), folder / "mlp.onnx")
    numbers = rng.standard_normal(64).round(4).tolist()
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": numbers}
    (folder / "mlp_simple.json").write_text(json.dumps({"data": numbers}))
    (folder / "mlp_v2.json").write_text(json.dumps({"inputs": [tensor]}))
    photos = [photo(source, size) for size in PICTURES]
    for (width, height), jpeg in zip(PICTURES, photos):
        (folder / f"photo_{width}x{height}.multipart").write_bytes(form(jpeg))
    onnx.save(yolo(Image.open(io.BytesIO(photos[0]))), folder / "yolov8n_random.onnx")


if __name__ == "__main__":
    main()
