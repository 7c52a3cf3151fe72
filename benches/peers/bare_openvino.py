"""Bare OpenVINO in a loop, as bare.py does it with ONNX Runtime.

    python bare_openvino.py MODEL STREAMS THREADS PRECISION

Compiles the model once, for STREAMS runs at a time of THREADS threads each, in PRECISION (f32 or bf16; bf16 is what OpenVINO
chooses by itself where the processor has it), and calls it from as many loops.
"""

import json
import sys

import numpy as np
import openvino as ov

from bare import loop


class Request:
    """What bare.py calls a session."""

    def __init__(self, compiled):
        self.request = compiled.create_infer_request()

    def run(self, _outputs, feed):
        self.request.infer(feed)


def main():
    model, streams, threads, precision = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    core = ov.Core()
    read = core.read_model(model)
    read.reshape([size.get_length() if size.is_static else 1 for size in read.input(0).partial_shape])
    compiled = core.compile_model(read, "CPU", {
        "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams * threads, "INFERENCE_PRECISION_HINT": precision})
    feed = {0: np.random.default_rng(0).random(read.input(0).shape, np.float32)}
    requests = [Request(compiled) for _ in range(streams)]
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(loop(requests, streams, feed, float(line))), flush=True)


if __name__ == "__main__":
    main()
