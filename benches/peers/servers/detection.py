"""What the Python detection servers share: picture to tensor, and the model's output to boxes.

Both decoders letterbox to 640x640 with grey edges. `Detector` takes its settings from the environment: MODEL, DECODER
(`opencv` or `pillow`) and ORT_THREADS (0 leaves ONNX Runtime its default).
"""

import io
import os

import numpy as np
import onnxruntime as ort

SIZE, CONFIDENCE, OVERLAP = 640, 0.25, 0.45


def placement(width, height):
    """Scale, new size and left and top edge of a picture in the square."""
    scale = min(SIZE / width, SIZE / height)
    w, h = round(width * scale), round(height * scale)
    return scale, w, h, (SIZE - w) // 2, (SIZE - h) // 2


def prepare_pillow(data):
    from PIL import Image

    picture = Image.open(io.BytesIO(data)).convert("RGB")
    scale, w, h, left, top = placement(*picture.size)
    size = picture.size
    if (w, h) != size:
        picture = picture.resize((w, h), Image.BILINEAR)
    square = Image.new("RGB", (SIZE, SIZE), (114, 114, 114))
    square.paste(picture, (left, top))
    tensor = np.asarray(square, np.float32).transpose(2, 0, 1)[None] / 255.0
    return np.ascontiguousarray(tensor), (scale, left, top, *size)


def prepare_opencv(data):
    import cv2

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width = picture.shape[:2]
    scale, w, h, left, top = placement(width, height)
    if (w, h) != (width, height):
        picture = cv2.resize(picture, (w, h), interpolation=cv2.INTER_LINEAR)
    square = cv2.copyMakeBorder(
        picture, top, SIZE - h - top, left, SIZE - w - left, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    return cv2.dnn.blobFromImage(square, 1 / 255.0, swapRB=True), (scale, left, top, width, height)


def candidates(output):
    scores = output[4:].max(0)
    chosen = np.nonzero(scores > CONFIDENCE)[0]
    classes = output[4:, chosen].argmax(0)
    centre, half = output[:2, chosen].T, output[2:4, chosen].T / 2
    return np.concatenate([centre - half, centre + half], 1), scores[chosen], classes


def suppress_numpy(output):
    boxes, scores, classes = candidates(output)
    apart = boxes + classes[:, None] * 4096.0  # boxes of different classes never meet
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rest, kept = scores.argsort()[::-1], []
    while rest.size:
        first, rest = rest[0], rest[1:]
        kept.append(first)
        w = np.minimum(apart[first, 2], apart[rest, 2]) - np.maximum(apart[first, 0], apart[rest, 0])
        h = np.minimum(apart[first, 3], apart[rest, 3]) - np.maximum(apart[first, 1], apart[rest, 1])
        shared = w.clip(0) * h.clip(0)
        rest = rest[shared / (area[first] + area[rest] - shared) <= OVERLAP]
    return boxes[kept], scores[kept], classes[kept]


def suppress_opencv(output):
    import cv2

    boxes, scores, classes = candidates(output)
    apart = np.concatenate([boxes[:, :2] + classes[:, None] * 4096.0, boxes[:, 2:] - boxes[:, :2]], 1)
    kept = np.asarray(cv2.dnn.NMSBoxes(apart.tolist(), scores.tolist(), CONFIDENCE, OVERLAP), int).reshape(-1)
    return boxes[kept], scores[kept], classes[kept]


class Detector:
    def __init__(self):
        opencv = os.environ.get("DECODER", "opencv") == "opencv"
        self.prepare = prepare_opencv if opencv else prepare_pillow
        self.suppress = suppress_opencv if opencv else suppress_numpy
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("ORT_THREADS", "0"))
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def run(self, tensor):
        return self.session.run(None, {"images": tensor})[0]

    def finish(self, output, placed):
        """The answer: boxes in the picture's own pixels."""
        boxes, scores, classes = self.suppress(output)
        scale, left, top, width, height = placed
        boxes = ((boxes - [left, top, left, top]) / scale).clip(0, [width, height, width, height]).round(1).tolist()
        found = zip(boxes, scores.tolist(), classes.tolist())
        return {"detections": [{"box": box, "score": score, "class": name} for box, score, name in found]}
