"""Bare ONNX Runtime in a loop, without any server: the ceiling of every server on this machine.

    python bare.py MODEL SESSIONS CALLERS THREADS

Opens SESSIONS sessions of THREADS intra-op threads each and makes an input once. For each line with a number of seconds
on stdin, CALLERS threads run the model for so long; the answer is one line of JSON with the same keys as post.lua's.
"""

import array
import json
import sys
import threading
import time

import numpy as np


def open_session(model, threads):
    import onnxruntime as ort  # bare_openvino.py takes the loops and has no ONNX Runtime

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ready_input(session):
    first = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in first.shape]
    return {first.name: np.random.default_rng(0).random(shape, np.float32)}


def call(session, feed, end, times):
    while (start := time.perf_counter()) < end:
        session.run(None, feed)
        times.append(time.perf_counter() - start)


def loop(sessions, callers, feed, secs):
    start = time.perf_counter()
    times = [array.array("d") for _ in range(callers)]
    threads = [
        threading.Thread(target=call, args=(sessions[i % len(sessions)], feed, start + secs, times[i]))
        for i in range(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    ms = np.concatenate([np.frombuffer(part) for part in times]) * 1e3
    p50, p95, p99 = np.percentile(ms, [50, 95, 99]).round(4)
    rate = round(len(ms) / took, 2)
    return {"rps": rate, "requests": len(ms), "errors": 0, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def main():
    model, (count, callers, threads) = sys.argv[1], map(int, sys.argv[2:5])
    sessions = [open_session(model, threads) for _ in range(count)]
    feed = ready_input(sessions[0])
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(loop(sessions, callers, feed, float(line))), flush=True)


if __name__ == "__main__":
    main()
