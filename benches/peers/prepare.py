"""`run.py setup`: virtual environments, models, request bodies and Caudal itself. Does nothing twice."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
PHOTO = REPO / "fixtures/double_decker_bus.jpg"
STACKS = ("fastapi", "litserve", "make", "openvino")
BUILDS = (("-p", "caudal"), ("-p", "caudal-testkit", "--example", "constant"))


def run(*command):
    print("+", *command, file=sys.stderr)
    subprocess.run(command, check=True)


def once(stamp, source, work):
    """Calls work() unless `stamp`, a copy of `source`, says that it was done for just this source."""
    if stamp.is_file() and stamp.read_bytes() == source.read_bytes():
        return
    work()
    shutil.copyfile(source, stamp)


def environment(folder, requirements):
    python = folder / "bin/python"
    run(sys.executable, "-m", "venv", folder)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements)


def need_wrk():
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: apt-get install wrk")


def setup(options):
    for stack in STACKS:
        folder, requirements = options.home / "v" / stack, HERE / "requirements" / f"{stack}.txt"
        once(folder / "installed.txt", requirements, lambda: environment(folder, requirements))
    assets, script = options.home / "assets", HERE / "make_assets.py"
    once(assets / "made_by.txt", script, lambda: run(options.home / "v/make/bin/python", script, PHOTO, assets))
    if not options.no_build:
        for build in BUILDS:
            run("cargo", "build", "--release", "--manifest-path", REPO / "Cargo.toml", *build)
    need_wrk()
