"""What a plain Python program makes of some texts with all-MiniLM-L6-v2: tokenizers, onnxruntime on one thread, numpy.

    python embeddings.py FOLDER

makes the model at FOLDER/repository (minilm.py) and writes texts and vectors to FOLDER/embeddings.json. Each text runs
by itself, without padding.
"""

import json
import os
import sys

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

import minilm

OUT = os.path.abspath(sys.argv[1])
TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A cheetah is running behind its prey.",
    "How do I reset my password?",
    "Steps to change a forgotten passphrase",
    "a",
    "Ærøskøbing, naïve façade — 東京 und Straße; emoji 🦀!",
    "UPPER lower 1234567890 antidisestablishmentarianism #hash @at http://127.0.0.1:8000/docs",
    " ".join(f"Sentence {i} of a long paragraph about rivers." for i in range(12)),
    "word " * 300,
]

folder = minilm.make(os.path.join(OUT, "repository"))
tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(256)
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(os.path.join(folder, "1", "model.onnx"), options, providers=["CPUExecutionProvider"])


def embed(text):
    ids = np.array([tokenizer.encode(text).ids], np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    mean = session.run(None, inputs)[0][0].astype(np.float64).mean(0)
    return {"text": text, "tokens": ids.shape[1], "vector": (mean / np.linalg.norm(mean)).tolist()}


with open(os.path.join(OUT, "embeddings.json"), "w") as file:
    json.dump([embed(text) for text in TEXTS], file)
