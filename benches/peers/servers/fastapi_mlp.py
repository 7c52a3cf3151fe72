"""FastAPI as its users write it for a tiny model: checked by pydantic, run in the handler, answered through orjson."""

import os

import numpy as np
import onnxruntime as ort
import orjson
from fastapi import FastAPI, Response
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = 1  # more threads only cost time on a model this small
session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Request(BaseModel):
    data: list[float]


@app.post("/predict")
async def predict(request: Request):
    y = session.run(None, {"x": np.asarray(request.data, np.float32)[None]})[0]
    return Response(orjson.dumps({"output": y[0].tolist()}), media_type="application/json")
