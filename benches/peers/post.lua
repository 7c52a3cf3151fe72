-- Script for wrk: posts the file named in WRK_BODY and prints the summary as one line of JSON.
local file = assert(io.open(os.getenv("WRK_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = os.getenv("WRK_TYPE")
file:close()

function done(summary, latency)
  local e, secs = summary.errors, summary.duration / 1e6
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  local good = math.max(0, summary.requests - e.status)
  io.write(string.format(
    '\nJSON {"rps": %.2f, "requests": %d, "errors": %d, "p50_ms": %.4f, "p95_ms": %.4f, "p99_ms": %.4f}\n',
    good / secs, good, errors,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
