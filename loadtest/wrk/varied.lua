-- Send one body again and again, each time with another X-Request-Id:
-- wrk … -s varied.lua URL -- BODY_FILE SEED [NAME VALUE]…
-- Ends with one line of JSON, as post.lua does.

local head, tail
local format, random = string.format, math.random

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local body = file:read("*a")
  file:close()
  math.randomseed(tonumber(args[2]))
  local lines = {}
  for i = 3, #args, 2 do
    lines[#lines + 1] = format("%s: %s\r\n", args[i], args[i + 1])
  end
  head = format(
    "POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\nX-Request-Id: ",
    wrk.path, wrk.headers["Host"], table.concat(lines), #body)
  tail = "\r\n\r\n" .. body
end

function request()
  local r = random
  return head .. format("%08x%08x%08x%08x", r(0, 4294967295), r(0, 4294967295), r(0, 4294967295), r(0, 4294967295)) .. tail
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(format(
    'JSON {"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "not_2xx": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
