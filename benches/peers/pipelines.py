"""Pipelines: steps a second of Caudal beside Flujo, LangGraph, and loops without an engine; and steps that are kept.

    python3 benches/peers/pipelines.py [--secs 2] [--reps 3] [--only caudal,flujo] [--pace PROGRAM] [--folder DIR]

Entrants: caudal, durable (Caudal with each step on disk, beside the disk and the store), flujo, langgraph, asyncio, uvloop.
They take turns; told are medians, lowest and highest, and of Caudal to each the ratios within the repetitions. The Python
entrants get environments of their own below $PEERS_HOME, `target/peers` otherwise; Flujo needs Python 3.13.
"""

import argparse, json, os, pathlib, platform, shutil, statistics, subprocess, sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CASES = {
    "chain": "1 run of 1,000 steps, steps/s",
    "runs": "runs of 1 step, runs/s",
    "cached": "1,000 remembered steps of 1 KB, steps/s",
    "mixed": "4 at once and a remembered one, steps/s",
}
ALL_CORES = [f"{case}-all" for case in CASES]
DURABLE = {
    "disk": "the disk: appends of 250 bytes, each flushed, 1/s",
    "durable-one": "Caudal, one run, steps/s",
    "store": "the store: records of 250 bytes, 256 writers, 1/s",
    "durable-many": "Caudal, 256 runs, steps/s",
    "idle": "a run that waits, bytes",
}
# What is to be reached in each repetition: of what, by which part.
PARTS = {"durable-one": "disk", "durable-many": "store"}
PYTHON = {"flujo": "flujo", "langgraph": "langgraph", "asyncio": "uvloop", "uvloop": "uvloop"}


def environment(home, stack):
    """The interpreter of a stack's environment, made if it is not there."""
    folder, requirements = home / "pipelines" / stack, HERE / "requirements" / f"{stack}.txt"
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if not done.exists() or done.read_text() != requirements.read_text():
        base = shutil.which("python3.13") if stack == "flujo" else sys.executable
        if not base or subprocess.run([base, "--version"], capture_output=True).returncode:
            return None
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([base, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements], check=True)
        done.write_text(requirements.read_text())
    return python


def lines(command):
    """The rates that a program says, by case."""
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=900).stdout
    return {line["case"]: line for line in map(json.loads, said.splitlines())}


def spread(values, form=",.0f"):
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def processor():
    models = (line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    return next(models, platform.machine())


def table(found):
    """What each entrant did, and Caudal divided by it."""
    print(f"\n{processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n")
    ours = found.get("caudal", [])
    for case, label in CASES.items():
        print(label)
        for name in (name for name in found if name != "durable"):
            for shown, of in ((name, case), (f"{name}, all cores", f"{case}-all")):
                rates = [row[of]["median"] for row in found[name] if of in row]
                if not rates:
                    continue
                busy = [row[of]["per_cpu_s"] for row in found[name] if of in row]
                line = f"  {shown:18} {spread(rates):36} {statistics.median(busy):12,.0f} a second of the processor"
                if name != "caudal" and ours:
                    line += f"   Caudal / it {spread([mine[case]['median'] / its for mine, its in zip(ours, rates)], ',.1f')}"
                print(line)
    rows = found.get("durable", [])
    for case, label in DURABLE.items() if rows else ():
        line = f"{label:52} {spread([row[case]['median'] for row in rows])}"
        if case in PARTS:
            parts = [row[case]["median"] / row[PARTS[case]]["median"] for row in rows]
            line += f"   of {PARTS[case]} {spread(parts, '.2f')}"
        print(line)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--secs", type=float, default=2)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--only", help="some of caudal, durable, flujo, langgraph, asyncio, uvloop")
    parser.add_argument("--pace", help="the program of `cargo build --release -p caudal-flow --example pace`, which is built otherwise")
    parser.add_argument("--folder", default=".", help="where durable runs are kept")
    options = parser.parse_args()
    known = ["caudal", "durable", *PYTHON]
    wanted = options.only.split(",") if options.only else known
    if unknown := set(wanted) - set(known):
        sys.exit(f"there is no entrant {', '.join(unknown)}")
    pace = pathlib.Path(options.pace or ROOT / "target/release/examples/pace").resolve()
    if not options.pace and {"caudal", "durable"} & set(wanted):
        subprocess.run(["cargo", "build", "--release", "-p", "caudal-flow", "--example", "pace"], cwd=ROOT, check=True)
    home = pathlib.Path(os.environ.get("PEERS_HOME", ROOT / "target/peers"))
    ours = [pace, "--json", "--reps", "1", "--secs", str(options.secs), "--folder", options.folder, "--only"]
    commands = {"caudal": [*ours, ",".join([*CASES, *ALL_CORES])], "durable": [*ours, ",".join(DURABLE)]}
    for name in (name for name in wanted if name in PYTHON):
        if python := environment(home, PYTHON[name]):
            commands[name] = [python, HERE / "pipelines_python.py", name, str(options.secs)]
        else:
            print(f"{name} is left out: python3.13 is not there", file=sys.stderr)
    found = {name: [] for name in wanted if name in commands}
    for repetition in range(options.reps):
        for name in found:
            os.sync()
            found[name].append(lines(commands[name]))
            rates = "  ".join(f"{case} {row['median']:,.0f}" for case, row in found[name][-1].items())
            print(f"{repetition + 1} {name:10} {rates}", file=sys.stderr, flush=True)
    table(found)


main()
