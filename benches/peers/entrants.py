"""What is measured: servers that wrk asks, and loops of bare.py. Starts, holds, measures and stops them.

Each leads a session of its own (setsid), so that all processes it ever forked are found by the session's number.
"""

import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
PORT = "<port>"  # stands for the server's port in its command
START_SECS = 120  # the longest that a server may take until it answers
SPARE_SECS = 60  # what a measurement may take on top of its length


class Body(NamedTuple):
    file: Path
    type: str


class Setting(NamedTuple):
    """One kind of work: which body is sent, over how many connections."""

    label: str
    body: str
    conns: int


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stat(pid):
    """The fields of /proc/PID/stat from the state on, None when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None


class Entrant:
    """A process with its children. `start` is called once, `stop` always."""

    def __init__(self, name, command, env=None, spins=False):
        self.name, self.command, self.env, self.spins = name, [str(part) for part in command], env or {}, spins
        self.child = None

    def spawn(self, folder, **streams):
        # in a folder of its own, where no settings file of the caller's lies
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{self.name}.log"
        with open(self.log, "wb") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | streams
            self.child = subprocess.Popen(
                self.command, cwd=folder, env=os.environ | self.env, start_new_session=True, **streams)

    def pids(self):
        found = []
        for entry in os.listdir("/proc"):
            fields = stat(entry) if entry.isdigit() else None
            if fields and fields[0] != "Z" and int(fields[3]) == self.child.pid:
                found.append(int(entry))
        return found

    def cpu_secs(self):
        """User and system time of all processes, children that have ended included."""
        return sum(sum(map(int, fields[11:15])) for pid in self.pids() if (fields := stat(pid))) / TICKS

    def rss_mib(self):
        return sum(int(fields[21]) for pid in self.pids() if (fields := stat(pid))) * PAGE / 2**20

    def signal(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def hold(self):
        """Stops a server that spins while idle, so that it takes no time from the others."""
        if self.spins:
            self.signal(signal.SIGSTOP)

    def resume(self):
        if self.spins:
            self.signal(signal.SIGCONT)

    def stop(self):
        if self.child is None:
            return
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            self.signal(number)
            self.signal(signal.SIGCONT)  # one that is held would not see the signal
            end = time.monotonic() + patience
            while self.pids() and time.monotonic() < end:
                self.child.poll()
                time.sleep(0.05)
        self.child.poll()

    def warm_up(self, settings):
        """A second of each kind of work, then what the idle entrant costs; held afterwards."""
        for setting in settings:
            self.load(setting, 1)
        time.sleep(1)
        before = self.cpu_secs()
        time.sleep(2)
        row = {"idle_cpu_percent": round((self.cpu_secs() - before) / 2 * 100, 1), "processes": len(self.pids())}
        self.hold()
        return row

    def measure(self, setting, secs):
        load_before = os.getloadavg()[0]
        self.resume()
        before = self.cpu_secs()
        row = self.load(setting, secs)
        row["cpu_us"] = round((self.cpu_secs() - before) * 1e6 / max(1, row["requests"]), 2)
        row["rss_mib"] = round(self.rss_mib(), 1)
        row["load_before"] = load_before
        time.sleep(0.5)  # requests that wrk gave up on end here, not in the next measurement
        self.hold()
        return row


class Server(Entrant):
    """A server on 127.0.0.1; `bodies` maps a setting's body to the Body this server is sent."""

    def __init__(self, name, command, path, bodies, **more):
        super().__init__(name, command, **more)
        self.path, self.bodies, self.answers = path, bodies, {}

    def start(self, folder):
        self.port = free_port()
        self.command = [str(self.port) if part == PORT else part for part in self.command]
        self.spawn(folder)
        end = time.monotonic() + START_SECS
        for name, body in self.bodies.items():
            while (answer := self.post(body)) is None:
                if self.child.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{self.name} does not answer; see {self.log}")
                time.sleep(0.05)
            self.answers[name] = answer

    def post(self, body):
        """The answer to one request, None while there is no good one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", self.path, body.file.read_bytes(), {"Content-Type": body.type})
            answer = connection.getresponse()
            text = answer.read()
            return json.loads(text) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def load(self, setting, secs):
        body = self.bodies[setting.body]
        command = ["wrk", "-t1", f"-c{setting.conns}", f"-d{secs}s", "--timeout", "30s", "-s", HERE / "post.lua",
                   f"http://127.0.0.1:{self.port}{self.path}"]
        env = os.environ | {"WRK_BODY": str(body.file), "WRK_TYPE": body.type}
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=secs + SPARE_SECS)
        summary = re.search(r"^JSON (.*)$", run.stdout, re.MULTILINE)
        if not summary:
            raise RuntimeError(f"wrk on {self.name}: {run.stdout}{run.stderr}")
        return json.loads(summary[1])


class Bare(Entrant):
    """Loops of bare.py; the same whatever the setting."""

    def start(self, folder):
        self.spawn(folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.line(START_SECS)

    def line(self, secs):
        ready, _, _ = select.select([self.child.stdout], [], [], secs)
        line = self.child.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"{self.name} does not answer; see {self.log}")
        return line

    def load(self, setting, secs):
        self.child.stdin.write(f"{secs}\n".encode())
        self.child.stdin.flush()
        return json.loads(self.line(secs + SPARE_SECS))


@contextmanager
def stopped_at_the_end(entrants):
    """Whatever happens inside, all entrants are stopped; a second Ctrl-C does not cut that short."""
    try:
        yield
    finally:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        for entrant in entrants:
            entrant.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def rotate(entrants, settings, options, record):
    """Starts all, then measures each in turn: every repetition, every setting, another one first each repetition."""
    folder = options.home / "work" / options.command
    with stopped_at_the_end(entrants):
        for entrant in entrants:  # one after the other: Caudal times its models while it starts
            print(f"starting {entrant.name}", file=sys.stderr)
            entrant.start(folder)
            record(server=entrant.name, found=found(entrant), **entrant.warm_up(settings))
        for repetition in range(options.reps):
            first = repetition % len(entrants)
            for setting in settings:
                for entrant in entrants[first:] + entrants[:first]:
                    row = entrant.measure(setting, options.secs)
                    record(server=entrant.name, setting=setting.label, repetition=repetition, **row)


def found(entrant):
    """How many objects a detection server found in each picture: all should do about the same work."""
    answers = getattr(entrant, "answers", {})
    return {name: len(answer["detections"]) for name, answer in answers.items() if "detections" in answer}
