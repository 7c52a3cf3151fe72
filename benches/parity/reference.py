"""What a plain Python program finds in the fixtures: the reference that Caudal's boxes are held against.

OpenCV decodes, resizes (INTER_LINEAR) and pads; onnxruntime runs the model on one thread; candidates are picked and
duplicates removed class by class with numpy. Nothing here knows Caudal.

    pip install -r requirements.txt && python reference.py > ../../fixtures/reference.json
"""

import json
import os

import cv2
import numpy as np
import onnxruntime as ort

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
PICTURES = [
    "double_decker_bus.jpg", "astronaut.png", "chelsea.png", "coffee.png", "walkers_frame0.png",
    "odd/progressive.jpg", "odd/cmyk.jpg", "odd/grey.jpg", "odd/rgb16.png", "odd/palette.png", "odd/plain.webp",
    "odd/plain.bmp", "odd/orientation_3.jpg", "odd/orientation_6.jpg", "odd/orientation_8.jpg",
]
THRESHOLDS = [(0.25, 0.45), (0.35, 0.6)]

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(
    os.path.join(ROOT, "models/nanodet/1/model.onnx"), options, providers=["CPUExecutionProvider"])
SIZE = session.get_inputs()[0].shape[2]
NAMES = list(eval(session.get_modelmeta().custom_metadata_map["names"]).values())


def letterbox(picture):
    height, width = picture.shape[:2]
    r = min(SIZE / width, SIZE / height)
    w, h = round(width * r), round(height * r)
    if (w, h) != (width, height):
        picture = cv2.resize(picture, (w, h), interpolation=cv2.INTER_LINEAR)
    left, top = (SIZE - w) // 2, (SIZE - h) // 2
    padded = cv2.copyMakeBorder(
        picture, top, SIZE - h - top, left, SIZE - w - left, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    return padded, r, left, top


def overlap(a, b):
    w = np.minimum(a[2], b[:, 2]) - np.maximum(a[0], b[:, 0])
    h = np.minimum(a[3], b[:, 3]) - np.maximum(a[1], b[:, 1])
    shared = w.clip(0) * h.clip(0)
    area = lambda box: (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
    return shared / (area(a) + area(b) - shared)


def detect(output, conf, iou):
    scores = output[4:].max(0)
    chosen = np.nonzero(scores >= conf)[0]
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    cx, cy, w, h = output[:4, chosen]
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)
    classes, scores = output[4:, chosen].argmax(0), scores[chosen]
    kept = []
    for i in range(len(chosen)):
        same = [k for k in kept if classes[k] == classes[i]]
        if not same or overlap(boxes[i], boxes[same]).max() <= iou:
            kept.append(i)
    return boxes[kept], scores[kept], classes[kept]


answers = []
for name in PICTURES:
    picture = cv2.imread(os.path.join(ROOT, "fixtures", name), cv2.IMREAD_COLOR)
    height, width = picture.shape[:2]
    padded, r, left, top = letterbox(picture)
    tensor = np.ascontiguousarray(padded[:, :, ::-1].transpose(2, 0, 1)[None], np.float32) / 255
    output = session.run(None, {session.get_inputs()[0].name: tensor})[0][0]
    for conf, iou in THRESHOLDS:
        boxes, scores, classes = detect(output, conf, iou)
        boxes = ((boxes - [left, top, left, top]) / r).clip(0, [width, height, width, height])
        answers.append({
            "picture": name, "size": [width, height], "scale": round(r, 6), "conf": conf, "iou": iou,
            "detections": [
                {"class": NAMES[c], "confidence": round(float(s), 4), "box": [round(float(v), 2) for v in b]}
                for b, s, c in zip(boxes, scores, classes)
            ],
        })

print(json.dumps({
    "how": "benches/parity/reference.py", "opencv": cv2.__version__, "onnxruntime": ort.__version__,
    "numpy": np.__version__, "answers": answers,
}, indent=1))
