"""FastAPI for detection: a multipart picture in, boxes out. Settings come from the environment, see detection.py."""

import orjson
from detection import Detector
from fastapi import FastAPI, File, Response, UploadFile

detector = Detector()
app = FastAPI()


@app.post("/predict")
def predict(file: UploadFile = File(...)):  # a plain def: FastAPI runs it on its thread pool, as its manual advises
    tensor, placed = detector.prepare(file.file.read())
    answer = detector.finish(detector.run(tensor)[0], placed)
    return Response(orjson.dumps(answer), media_type="application/json")
