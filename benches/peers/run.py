#!/usr/bin/env python3
"""Compares Caudal with what people would write in Python instead, on this machine, in one interleaved run.

    run.py setup      virtual environments, models, request bodies, and Caudal's own build
    run.py tiny       a tiny model, where the server's own cost is nearly everything
    run.py detect     object detection in pictures, where the model's run is nearly everything
    run.py ceiling    the detection model in bare ONNX Runtime loops, without any server

README.md tells how to read the result. Standard library only; `setup` says what is missing.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

from entrants import PORT, Bare, Body, Server, Setting, rotate
from prepare import HERE, REPO, need_wrk, setup
from report import CAUDAL, report

SERVERS = HERE / "servers"
CAUDAL_PROGRAM = REPO / "target/release/caudal"
CONSTANT = REPO / "target/release/examples/constant"
PICTURES = ("640x480", "1920x1080")
FORM = "multipart/form-data; boundary=peersboundary7MA4YWxk"  # the boundary that make_assets.py writes
CORES = 2  # workers and threads of the entrants that use all cores: raise it on a machine that has more


def python(options, stack):
    return options.home / "v" / stack / "bin/python"


def uvicorn(options, app, workers):
    return [python(options, "fastapi"), "-m", "uvicorn", f"{app}:app", "--app-dir", SERVERS, "--host", "127.0.0.1",
            "--port", PORT, "--workers", workers, "--loop", "uvloop", "--http", "httptools", "--no-access-log",
            "--log-level", "warning"]


def caudal(options, name, model, into="repository", settings="", library=None):
    """Caudal's command, with a repository of this one model: a copy, as Caudal follows no links out of a repository."""
    repository = options.home / "work" / options.command / into
    (repository / name / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, repository / name / "1/model.onnx")
    (repository / name / "model.yaml").write_text(settings)
    more = ["--onnxruntime-library", library] if library else []
    return [options.caudal, "serve", "--model-repository", repository, "--http-port", PORT, "--log-level", "warn", *more]


def openvino_library():
    """Where `cargo xtask setup openvino` puts it; None if it has not."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("CAUDAL_CACHE_DIR") or Path(cache) / "caudal")
    return next(folder.glob("onnxruntime-openvino-*/libonnxruntime.so"), None)


def bare(options, name, model, sessions, callers, threads):
    return Bare(name, [python(options, "fastapi"), HERE / "bare.py", model, sessions, callers, threads])


def tiny(options):
    model = options.assets / "mlp.onnx"
    simple = {"": Body(options.assets / "mlp_simple.json", "application/json")}
    v2 = {"": Body(options.assets / "mlp_v2.json", "application/json")}
    server = partial(Server, env={"MODEL": str(model)})
    lit = [python(options, "litserve"), SERVERS / "litserve_mlp.py", PORT]
    infer = "/v2/models/mlp/infer"
    return [
        server(CAUDAL, caudal(options, "mlp", model), infer, v2),
        server("fastapi-1w", uvicorn(options, "fastapi_mlp", 1), "/predict", simple),
        server(f"fastapi-{CORES}w", uvicorn(options, "fastapi_mlp", CORES), "/predict", simple),
        server("asgi-1w", uvicorn(options, "asgi_mlp", 1), "/predict", simple),
        server(f"asgi-{CORES}w", uvicorn(options, "asgi_mlp", CORES), "/predict", simple),
        server("litserve-b1", [*lit, 1], "/predict", simple),
        server("litserve-b8", [*lit, 8], "/predict", simple, spins=True),  # LitServe polls while it waits for a batch
        server("constant", [CONSTANT, PORT], infer, v2),
        bare(options, "bare-mlp", model, 1, 1, 1),
    ]


def ceiling(options):
    model = options.assets / "yolov8n_random.onnx"
    return [
        bare(options, f"bare-{CORES}-sessions", model, CORES, CORES, 1),
        bare(options, "bare-shared-session", model, 1, CORES, 1),
        bare(options, f"bare-{CORES}-threads", model, 1, 1, CORES),
        *(Bare(f"bare-openvino-{precision}",
               [python(options, "openvino"), HERE / "bare_openvino.py", model, CORES, 1, precision])
          for precision in ("f32", "bf16")),
    ]


def on_openvino(options, model, server):
    """Caudal on OpenVINO, in both precisions, where its library is there."""
    library = openvino_library()
    if library is None:
        print("caudal-openvino is left out: `cargo xtask setup openvino` brings its library", file=sys.stderr)
        return []
    return [
        server(f"caudal-openvino-{precision}", caudal(
            options, "yolo", model, f"repository-{precision}", f"providers: [openvino]\nprecision: {precision}", library),
            "/predict/yolo")
        for precision in ("f32", "bf16")
    ]


def detect(options):
    model = options.assets / "yolov8n_random.onnx"
    bodies = {size: Body(options.assets / f"photo_{size}.multipart", FORM) for size in PICTURES}

    def server(name, command, path="/predict", **env):
        return Server(name, command, path, bodies, env={"MODEL": str(model)} | env)

    lit = [python(options, "litserve"), SERVERS / "litserve_detect.py", PORT]
    return [
        server(CAUDAL, caudal(options, "yolo", model), "/predict/yolo"),
        *on_openvino(options, model, server),
        server("fastapi-opencv", uvicorn(options, "fastapi_detect", 1)),
        server(f"fastapi-opencv-{CORES}w", uvicorn(options, "fastapi_detect", CORES), ORT_THREADS="1"),
        server("fastapi-pillow", uvicorn(options, "fastapi_detect", 1), DECODER="pillow"),
        server("litserve", lit),
        *ceiling(options),
    ]


def settings(options):
    if options.command == "ceiling":
        return [Setting("in process", "", 1)]
    if options.command == "tiny":
        return [Setting(f"{conns} conn", "", conns) for conns in options.conns]
    return [Setting(f"{size}, {conns} conn", size, conns) for conns in options.conns for size in PICTURES]


def chosen(entrants, options):
    """Those that --only names, all without it; the constant server only when it was built."""
    names = options.only or [entrant.name for entrant in entrants]
    if unknown := set(names) - {entrant.name for entrant in entrants}:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(entrant.name for entrant in entrants)}")
    if "constant" in names and not CONSTANT.exists():
        print(f"constant is left out: {CONSTANT} was not built; `run.py setup` builds it", file=sys.stderr)
        names = [name for name in names if name != "constant"]
    picked = [entrant for entrant in entrants if entrant.name in names]
    for entrant in picked:
        if not Path(entrant.command[0]).exists():
            sys.exit(f"{entrant.command[0]} is missing: run `run.py setup` first")
    return picked


def measure(options, entrants):
    """Measures and prints the table, also of what there is when a run is broken off."""
    out = REPO / "out/bench" / f"{options.command}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    started, rows = time.strftime("%Y-%m-%dT%H:%M:%S"), []

    def record(**row):
        rows.append(row)
        line = json.dumps({"run": started, "command": options.command} | row)
        print(line, file=sys.stderr)
        with open(out, "a") as file:
            file.write(line + "\n")

    try:
        rotate(entrants, settings(options), options, record)
    finally:
        print(report(options, rows))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("setup")
    command.add_argument("--no-build", action="store_true", help="leave out cargo")
    for name, conns, secs, reps in (("tiny", "1,50", 4, 5), ("detect", "1,4", 8, 3), ("ceiling", "1", 8, 3)):
        command = commands.add_parser(name, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        command.add_argument("--only", type=lambda names: names.split(","), help="entrants to measure, a,b,c; else all")
        command.add_argument("--caudal", type=lambda path: Path(path).resolve(), default=str(CAUDAL_PROGRAM),
                             help="Caudal's program")
        command.add_argument("--secs", type=int, default=secs, help="length of a measurement")
        command.add_argument("--reps", type=int, default=reps, help="repetitions")
        if name != "ceiling":
            command.add_argument("--conns", type=lambda text: [int(n) for n in text.split(",")], default=conns,
                                 help="connections, a,b,c")
    options = parser.parse_args()
    options.home = Path(os.environ.get("PEERS_HOME") or REPO / "target/peers").resolve()
    options.assets = options.home / "assets"
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: everything is stopped
    if options.command == "setup":
        return setup(options)
    need_wrk()
    if not options.assets.is_dir():
        sys.exit(f"{options.home} is not prepared: run `run.py setup` first")
    entrants = {"tiny": tiny, "detect": detect, "ceiling": ceiling}[options.command](options)
    measure(options, chosen(entrants, options))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:  # an entrant that failed; the message says where its log is
        sys.exit(str(error))
