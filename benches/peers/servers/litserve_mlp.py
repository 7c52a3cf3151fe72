"""LitServe for the tiny model: litserve_mlp.py PORT MAX_BATCH_SIZE; the rest as LitServe sets it."""

import os
import sys

import litserve as ls
import numpy as np
import onnxruntime as ort


class Mlp(ls.LitAPI):
    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        return np.asarray(request["data"], np.float32)[None]

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, x):
        return self.session.run(None, {"x": x})[0]

    def unbatch(self, output):
        return [output[i : i + 1] for i in range(len(output))]

    def encode_response(self, output):
        return {"output": output[0].tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Mlp(max_batch_size=int(sys.argv[2])), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
