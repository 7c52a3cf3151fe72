"""How far the demo detector's boxes drift when large JPEGs are decoded at a fraction of their sides.

    python3 reduced.py CAUDAL FOLDER

runs the program CAUDAL over the six photographs, 1920 pixels wide, in npm's @vladmandic/face-api 1.7.15 (fetched to
FOLDER), with `preprocessing: {decode: full}` and `reduced`, and compares each box above 0.5 with its nearest of the same
class.
"""

import glob
import json
import os
import shutil
import subprocess
import sys

CAUDAL, FOLDER = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
os.makedirs(FOLDER, exist_ok=True)
if not os.path.exists(os.path.join(FOLDER, "package")):
    subprocess.run(["npm", "pack", "--silent", "@vladmandic/face-api@1.7.15"], cwd=FOLDER, check=True)
    subprocess.run(["tar", "xzf", "vladmandic-face-api-1.7.15.tgz"], cwd=FOLDER, check=True)
PICTURES = sorted(glob.glob(os.path.join(FOLDER, "package/demo/sample*.jpg")))


def find(decode):
    repository = os.path.join(FOLDER, decode)
    os.makedirs(os.path.join(repository, "nanodet/1"), exist_ok=True)
    shutil.copy(os.path.join(ROOT, "models/nanodet/1/model.onnx"), os.path.join(repository, "nanodet/1/model.onnx"))
    with open(os.path.join(repository, "nanodet/model.yaml"), "w") as yaml:
        yaml.write("preprocessing: {decode: %s}\n" % decode)
    command = [CAUDAL, "detect", *PICTURES, "--json", "--conf", "0.3", "--model-repository", repository]
    output = subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def drift(a, b):
    return max(abs(a[side] - b[side]) for side in ("x1", "y1", "x2", "y2"))


full, reduced = find("full"), find("reduced")
print("| picture | size | decode, ms | class | confidence | drift, px of the picture | of confidence |")
print("|---|---|---|---|---|---|---|")
for before, after in zip(full, reduced):
    size = "%(width)dx%(height)d" % before["image_size"]
    ms = "%.1f, %.1f" % (before["timings_ms"]["decode"], after["timings_ms"]["decode"])
    for box in before["detections"]:
        if box["confidence"] >= 0.5:
            same = [other for other in after["detections"] if other["class"] == box["class"]]
            near = min(same, key=lambda other: drift(box, other), default=None)
            told = "lost | " if near is None else "%.1f | %+.3f" % (drift(box, near), near["confidence"] - box["confidence"])
            name = os.path.basename(before["file"])
            print(f"| {name} | {size} | {ms} | {box['class']} | {box['confidence']:.2f} | {told} |")
