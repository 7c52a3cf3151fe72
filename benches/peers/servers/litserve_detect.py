"""LitServe for detection, without batching: litserve_detect.py PORT. The steps are those of detection.py."""

import sys

import litserve as ls
from detection import Detector


class Detect(ls.LitAPI):
    def setup(self, device):
        self.detector = Detector()

    def decode_request(self, request):
        return self.detector.prepare(request["file"].file.read())

    def predict(self, prepared):
        tensor, placed = prepared
        return self.detector.run(tensor)[0], placed

    def encode_response(self, output):
        return self.detector.finish(*output)


if __name__ == "__main__":
    server = ls.LitServer(Detect(max_batch_size=1), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
