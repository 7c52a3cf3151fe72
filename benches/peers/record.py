"""Durable appends of consultation events: Caudal over HTTP beside what people would write.

    python3 benches/peers/record.py [--caudal target/release/caudal] [--secs 4] [--reps 3] [--only stream,disk] [--folder DIR]

Needs wrk and, for that part, PostgreSQL's programs. All entrants write the same event of about 1 KB to the same disk,
turn by turn. Told are medians, lowest and highest, and of Caudal to each the ratios within the repetitions.
"""

import argparse, atexit, glob, json, os, re, shutil, socket, sqlite3, statistics, subprocess, sys, tempfile, time, urllib.request

WORDS = "el paciente refiere dolor abdominal de tres días con fiebre sin alivio tras paracetamol y niega vómito".split()


def event(number, size=1000):
    text = " ".join(WORDS[(number * 7 + i * i) % len(WORDS)] for i in range(200))[: size - 150]
    return json.dumps({"event_type": "MESSAGE_RECEIVED", "payload": {"message": text, "n": number}, "user_id": "dr"},
                      ensure_ascii=False)


class Server:
    def __init__(self, program, folder, *more):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [program, "serve", "--data-dir", folder, "--http-port", str(self.port), "--log-level", "warn", *more]
        self.child = subprocess.Popen(command, cwd=folder)
        atexit.register(self.stop)
        for _ in range(200):
            try:
                self.ask("GET", "/readyz")
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("the server does not start")

    def ask(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method, data=body and body.encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def consultation(self):
        return json.loads(self.ask("POST", "/consultations", '{"user_id": "bench"}'))["consultation_id"]

    def stop(self):
        self.child.terminate()
        self.child.wait()


def wrk(server, name, secs, connections=16):
    """Events a second, and latency at p50, p95 and p99 in ms."""
    script = tempfile.NamedTemporaryFile("w", suffix=".lua", delete=False)
    script.write(f"""
wrk.method = "POST"
wrk.path = "/consultations/{name}/events"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[{event(1)}]==]
done = function(summary, latency, requests)
  io.write(string.format("RESULT %f %f %f %f %d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, summary.errors.status))
end
""")
    script.close()
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{secs}s", "-s", script.name, f"http://127.0.0.1:{server.port}"],
                         check=True, capture_output=True, text=True).stdout
    os.unlink(script.name)
    numbers = re.search(r"RESULT (\S+) (\S+) (\S+) (\S+) (\d+)", out)
    assert numbers, out
    assert numbers[5] == "0", f"answers that were no success: {out}"
    return [float(number) for number in numbers.groups()[:4]]


def stream(server, name, file, events):
    """Durable events a second of an NDJSON stream."""
    size = os.path.getsize(file)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", server.port)) as link, open(file, "rb") as lines:
        link.sendall(f"POST /consultations/{name}/events/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
                     f"Content-Length: {size}\r\nConnection: close\r\n\r\n".encode())
        link.sendfile(lines)
        answer = b""
        while piece := link.recv(65536):
            answer += piece
    took = time.perf_counter() - began
    told = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert told.get("appended") == events, answer
    return events / took


def sqlite_alone(folder, secs):
    """One writer that commits each event, as a service without group commit does."""
    path = os.path.join(folder, "peer.db")
    for old in glob.glob(path + "*"):
        os.remove(old)
    link = sqlite3.connect(path, isolation_level=None)
    link.execute("pragma journal_mode=wal"); link.execute("pragma synchronous=full")
    link.execute("create table events(seq integer primary key, stream text not null, ver int not null, body text not null, unique(stream, ver))")
    body, count, began = event(1), 0, time.perf_counter()
    while time.perf_counter() - began < secs:
        link.execute("insert into events(stream, ver, body) values (?, ?, ?)", ("s", count, body))
        count += 1
    link.close()
    return count / (time.perf_counter() - began)


def flushes(folder, secs):
    """What the disk does: appends of 1.1 KB, and of 1 MB, each flushed."""
    def appends(size):
        file = os.open(os.path.join(folder, "flush.bin"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        block, times, began = os.urandom(size), [], time.perf_counter()
        while time.perf_counter() - began < secs:
            start = time.perf_counter()
            os.write(file, block); os.fdatasync(file)
            times.append(time.perf_counter() - start)
        os.close(file)
        return len(times) / (time.perf_counter() - began), statistics.median(times) * 1e3
    small, large = appends(1100), appends(1 << 20)
    return *small, large[0] * 1.048576


class Postgres:
    def __init__(self, folder):
        self.bin = max(glob.glob("/usr/lib/postgresql/*/bin"))
        self.folder = os.path.join(folder, "pg")
        os.makedirs(self.folder)
        self.user = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.getuid() == 0 else []
        if self.user:
            subprocess.run(["chown", "nobody", self.folder], check=True)
            os.chmod(folder, 0o755)
        run = dict(cwd=self.folder, check=True, capture_output=True)
        subprocess.run([*self.user, f"{self.bin}/initdb", "-D", "data", "-U", "bench", "-A", "trust", "-E", "UTF8"], **run)
        self.port = "27432"
        self.child = subprocess.Popen([*self.user, f"{self.bin}/postgres", "-D", "data", "-k", self.folder, "-p", self.port,
                                       "-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=256MB", "-c", "max_wal_size=2GB"],
                                      cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        atexit.register(self.stop)
        self.environment = {**os.environ, "PGHOST": self.folder, "PGPORT": self.port, "PGUSER": "bench", "PGDATABASE": "postgres"}
        for _ in range(100):
            if subprocess.run([f"{self.bin}/psql", "-qc", "select 1"], env=self.environment, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        self.url = f"postgres://bench@127.0.0.1:{self.port}/postgres"

    def alone(self, secs):
        """pgbench: 16 clients, an insert a commit."""
        sql = lambda text: subprocess.run([f"{self.bin}/psql", "-qc", text], env=self.environment, check=True)
        sql("drop table if exists events; create table events(seq bigserial primary key, stream int, body text, ts timestamptz default now());"
            " create index on events(stream, seq)")
        script = os.path.join(self.folder, "one.sql")
        with open(script, "w") as file:
            file.write("\\set s random(1, 500)\ninsert into events(stream, body) values (:s, '" + event(1).replace(":", " ").replace("'", "") + "');\n")
        out = subprocess.run([f"{self.bin}/pgbench", "-n", "-M", "prepared", "-c", "16", "-j", "1", "-T", str(max(1, int(secs))), "-f", script],
                             env=self.environment, check=True, capture_output=True, text=True).stdout
        return float(next(line for line in out.splitlines() if line.startswith("tps")).split()[2])

    def stop(self):
        self.child.terminate()
        self.child.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--caudal", default="target/release/caudal")
    parser.add_argument("--secs", type=float, default=4)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--events", type=int, default=300_000, help="events of the stream")
    parser.add_argument("--long", type=int, default=1_000_000, help="events of the long consultation")
    parser.add_argument("--only", help="some of disk, sqlite, empty, ten, long, loose, stream, postgres, over")
    parser.add_argument("--folder", default=".")
    options = parser.parse_args()
    program = os.path.abspath(options.caudal)
    folder = os.path.abspath(tempfile.mkdtemp(prefix="record-", dir=options.folder))
    known = ["disk", "sqlite", "empty", "ten", "long", "loose", "stream", "postgres", "over"]
    wanted = options.only.split(",") if options.only else known
    if unknown := set(wanted) - set(known):
        sys.exit(f"there is no entrant {', '.join(unknown)}")
    found, seconds = {}, max(1, int(options.secs))
    try:
        lines, few = os.path.join(folder, "events.ndjson"), os.path.join(folder, "few.ndjson")
        for file, count in (lines, options.events), (few, 10_000):
            with open(file, "w") as out:
                out.writelines(event(number) + "\n" for number in range(count))

        def serve(name, *more):
            os.makedirs(os.path.join(folder, name))
            return Server(program, os.path.join(folder, name), *more)

        kept = serve("kept")
        entrants = {
            "disk": ("disk: flushes/s of 1 KB, ms each, MB/s by 1 MB", lambda: flushes(folder, options.secs / 4)),
            "sqlite": ("SQLite, a commit an event (Python), 1/s", lambda: [sqlite_alone(folder, options.secs)]),
            "empty": ("caudal, empty consultation: 1/s, p50 p95 p99", lambda: wrk(kept, kept.consultation(), seconds)),
            "stream": ("caudal, NDJSON stream, events/s", lambda: [stream(kept, kept.consultation(), lines, options.events)]),
        }
        if "ten" in wanted:
            ten = kept.consultation()
            stream(kept, ten, few, 10_000)
            entrants["ten"] = ("caudal, after 10,000 events", lambda: wrk(kept, ten, seconds))
        if "long" in wanted:
            long, have = kept.consultation(), 0
            while have < options.long:
                stream(kept, long, lines, options.events)
                have += options.events
            entrants["long"] = (f"caudal, after {have:,} events", lambda: wrk(kept, long, seconds))
        if "loose" in wanted:
            loose = serve("loose", "--record-flush", "false")
            entrants["loose"] = ("caudal, flushing off", lambda: wrk(loose, loose.consultation(), seconds))
        if {"postgres", "over"} & set(wanted) and glob.glob("/usr/lib/postgresql/*/bin/initdb"):
            postgres = Postgres(folder)
            over = serve("over", "--database-url", postgres.url)
            entrants["postgres"] = ("PostgreSQL, 16 clients (pgbench), 1/s", lambda: [postgres.alone(options.secs)])
            entrants["over"] = ("caudal on PostgreSQL", lambda: wrk(over, over.consultation(), seconds))
        for _ in range(options.reps):
            for name in (name for name in wanted if name in entrants):
                # What one entrant left to be written is not written in the next one's time.
                os.sync()
                label, measure = entrants[name]
                values = measure()
                found.setdefault(name, []).append(values)
                print(f"{label:46} " + "  ".join(f"{value:10.2f}" for value in values), flush=True)
        print()
        spread = lambda values, form: f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"
        for name, all_of_them in found.items():
            columns = list(zip(*all_of_them))
            line = f"{entrants[name][0]:46} {spread(columns[0], '.0f'):24}"
            if len(columns) == 4:
                line += f" p95 {spread(columns[2], '.1f')} ms"
            if "empty" in found and name != "empty":
                # Within each repetition, as the disk does not stay the same.
                ratios = [ours[0] / theirs[0] for ours, theirs in zip(found["empty"], all_of_them)]
                line += f"   empty / this {spread(ratios, '.2f')}"
            print(line)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()
