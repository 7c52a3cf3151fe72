"""Sentences a second: MiniLM served, beside a plain loop over onnxruntime in this process, in one interleaved run.

    python embed.py CAUDAL REPOSITORY [--reps N]

CAUDAL is the binary, REPOSITORY where benches/parity/minilm.py has put the model. The sentences are those of this
repository's own documents. The loop tokenizes, pads each batch to its longest, runs it on all cores, pools and
normalises; sorted means that it has sorted all sentences by length first.
"""

import argparse
import concurrent.futures
import glob
import http.client
import json
import os
import re
import socket
import subprocess
import time

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
SENTENCES = 512

arguments = argparse.ArgumentParser()
arguments.add_argument("caudal")
arguments.add_argument("repository")
arguments.add_argument("--reps", type=int, default=5)
arguments = arguments.parse_args()


def sentences():
    text = ""
    for file in sorted(glob.glob(os.path.join(ROOT, "*.md")) + glob.glob(os.path.join(ROOT, "docs", "*.md"))):
        with open(file) as read:
            text += "\n\n".join(block for block in read.read().split("\n\n") if not block.startswith(("|", "```", "#")))
    found = [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.:;])\s", text)]
    found = [sentence for sentence in found if 10 <= len(sentence) <= 600]
    return (found * SENTENCES)[:SENTENCES]


TEXTS = sentences()
folder = os.path.join(arguments.repository, "minilm")
tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
tokenizer.enable_truncation(256)
tokenizer.enable_padding()
session = ort.InferenceSession(os.path.join(folder, "1", "model.onnx"), providers=["CPUExecutionProvider"])


def loop(texts, batch):
    vectors = []
    for i in range(0, len(texts), batch):
        encoded = tokenizer.encode_batch(texts[i:i + batch])
        ids = np.array([one.ids for one in encoded], np.int64)
        mask = np.array([one.attention_mask for one in encoded], np.int64)
        hidden = session.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})[0]
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        vectors.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    return np.concatenate(vectors)


def post(texts):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    vectors = []
    for batch in texts:
        body = json.dumps({"model": "minilm", "input": batch, "encoding_format": "base64"})
        connection.request("POST", "/v1/embeddings", body)
        answer = connection.getresponse()
        read = answer.read()
        assert answer.status == 200, read
        vectors += json.loads(read)["data"]
    return vectors


def serve(batch, clients):
    batches = [TEXTS[i:i + batch] for i in range(0, len(TEXTS), batch)]
    if clients == 1:
        return post(batches)
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return list(pool.map(post, [batches[i::clients] for i in range(clients)]))


with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = subprocess.Popen(
    [arguments.caudal, "serve", "--http-port", str(port), "--model-repository", arguments.repository, "--log-level", "error"])
try:
    for _ in range(300):
        try:
            post([["ready"]])
            break
        except OSError:
            time.sleep(0.05)
    by_length = sorted(TEXTS, key=len)
    entrants = {
        "caudal, one request of all": lambda: serve(len(TEXTS), 1),
        "caudal, 32 a request, 1 client": lambda: serve(32, 1),
        "caudal, 32 a request, 4 clients": lambda: serve(32, 4),
        "caudal, 1 a request, 1 client": lambda: serve(1, 1),
        "caudal, 1 a request, 16 clients": lambda: serve(1, 16),
        "loop, batches of 32": lambda: loop(TEXTS, 32),
        "loop, batches of 32, sorted": lambda: loop(by_length, 32),
        "loop, one by one": lambda: loop(TEXTS, 1),
    }
    rates = {name: [] for name in entrants}
    for _ in range(arguments.reps):
        for name, run in entrants.items():
            began = time.perf_counter()
            run()
            rates[name].append(len(TEXTS) / (time.perf_counter() - began))
    lengths = sorted(len(one.ids) for one in map(tokenizer.encode, TEXTS))
    print(f"{len(TEXTS)} sentences of {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}\n")
    print("| | sentences/s |\n|---|---|")
    for name, each in rates.items():
        print(f"| {name} | {np.median(each):.0f} ({min(each):.0f}–{max(each):.0f}) |")
finally:
    server.terminate()
    server.wait()
