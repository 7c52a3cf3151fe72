"""The report: a line on the machine and a Markdown table of the measured rows."""

import os
import platform
import re
import subprocess
import time
from pathlib import Path
from statistics import median

CAUDAL = "caudal"
FLAGS = ("avx2", "avx512f", "avx512_vnni")
PACKAGES = ("onnxruntime", "fastapi", "uvicorn", "litserve", "opencv-python-headless", "pillow")
COLUMNS = {"rps": "req/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms", "cpu_us": "CPU µs/req", "rss_mib": "RSS MiB"}


def output(*command):
    """What a command prints, empty when it is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except OSError:
        return ""


def versions(options):
    """Caudal and its commit, wrk, Python and the packages as they are installed."""
    here = Path(__file__).parent
    tools = {
        "Caudal": output(options.caudal, "--version").removeprefix("caudal "),
        "commit": output("git", "-C", here, "describe", "--always", "--dirty"),
        "wrk": (re.findall(r"^wrk (\S+)", output("wrk", "-v")) or [""])[0],
        "Python": platform.python_version(),
    }
    script = "import importlib.metadata as m; [print(d.name.lower(), d.version) for d in m.distributions()]"
    installed = {}
    for stack in ("fastapi", "litserve"):
        lines = output(options.home / "v" / stack / "bin/python", "-c", script).splitlines()
        installed |= dict(line.split() for line in lines)
    found = tools | {name: installed.get(name) for name in PACKAGES}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version)


def machine(options, rows):
    cpu = Path("/proc/cpuinfo").read_text()
    model = (re.findall(r"model name\s*: (.*)", cpu) or [platform.machine()])[0]
    flags = set((re.findall(r"flags\s*: (.*)", cpu) or [""])[0].split())
    instructions = ", ".join(f"{flag} {'yes' if flag in flags else 'no'}" for flag in FLAGS)
    loads = [row["load_before"] for row in rows]
    return (
        f"{model} ({instructions}), {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, "
        f"{time.strftime('%Y-%m-%d')}. {versions(options)}. "
        f"Load average before the measurements: {min(loads):.2f}–{max(loads):.2f}."
    )


def short(value):
    """A number with as many digits as matter."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:,.{digits}f}"


def spread(values):
    """Median (min–max)."""
    if len(values) < 2:
        return "".join(map(short, values))
    return f"{short(median(values))} ({short(min(values))}–{short(max(values))})"


def ratio(caudal, other):
    """Caudal ÷ the other: the median of the ratios within each repetition, where the machine's load was most alike."""
    pairs = [(caudal[r]["rps"], other[r]["rps"]) for r in caudal if r in other and other[r]["rps"]]
    return f"{median(ours / theirs for ours, theirs in pairs):.2f}" if pairs else ""


def table(rows):
    """One line per setting and server, in the order in which they were first measured."""
    cells = {}
    for row in rows:
        if "rps" in row:
            cells.setdefault((row["setting"], row["server"]), {})[row["repetition"]] = row
    idle = {row["server"]: row["idle_cpu_percent"] for row in rows if "idle_cpu_percent" in row}
    order = {key: i for i, key in enumerate(cells)}
    settings = list(dict.fromkeys(setting for setting, _ in cells))
    titles = ["setting", "server", *COLUMNS.values(), "idle CPU %", "errors", "Caudal ÷ it"]
    lines = [titles, ["---"] * 2 + ["---:"] * (len(titles) - 2)]
    for setting, server in sorted(cells, key=lambda key: (settings.index(key[0]), order[key])):
        measured = cells[setting, server]
        numbers = [spread([row[column] for row in measured.values()]) for column in COLUMNS]
        errors = sum(row["errors"] for row in measured.values())
        against = ratio(cells.get((setting, CAUDAL), {}), measured)
        lines.append([setting, server, *numbers, f"{idle[server]:.0f}", str(errors), against])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(options, rows):
    measured = [row for row in rows if "rps" in row]
    if not measured:
        return "nothing was measured"
    parts = [machine(options, measured), table(rows)]
    calls = [row["p50_ms"] * 1e3 for row in measured if row["server"] == "bare-mlp"]
    if calls:
        parts.append(f"Bare ONNX Runtime call on the tiny model, median: {spread(calls)} µs.")
    found = [row for row in rows if row.get("found")]
    if found:
        counts = [f"{row['server']} {' and '.join(map(str, row['found'].values()))}" for row in found]
        parts.append(f"Objects found in {' and '.join(found[0]['found'])}: {', '.join(counts)}.")
    return "\n\n".join(parts)
