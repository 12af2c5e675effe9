-- Sends each request of a file once, in its order: `wrk … -s stream.lua URL -- FILE` (the file: see traffic.py).
-- With `-- FILE again`, sends the first one again and again, which tells what reading the file costs wrk.
-- With `-- FILE all`, ends once each was sent, without figures.
-- The last line that it prints is JSON.

local threads = {}
calls = 0

function setup(thread) table.insert(threads, thread) end

function init(args)
  file = assert(io.open(args[1], "rb"))
  is_all = args[2] == "all"
  if args[2] == "again" then
    same = file:read(tonumber(file:read(8)))
  end
end

function request()
  -- wrk itself asks for one at the start, which it never sends.
  calls = calls + 1
  if same then return same end
  local length = file:read(8)
  if not length then
    if is_all then os.exit(0) end
    io.stderr:write("stream.lua: no request is left; a longer file is needed\n")
    os.exit(9)
  end
  return file:read(tonumber(length))
end

function done(summary, latency)
  local calls = 0
  for _, thread in ipairs(threads) do calls = calls + thread:get("calls") end
  local e = summary.errors
  io.write(string.format('{"requests":%d,"duration_us":%d,"asked":%d,', summary.requests, summary.duration, calls - 1))
  io.write(string.format('"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,', e.status, e.connect, e.read, e.write, e.timeout))
  for _, p in ipairs({ 50, 90, 99, 99.9 }) do
    io.write(string.format('"p%s":%d,', p, latency:percentile(p)))
  end
  io.write(string.format('"max":%d}\n', latency.max))
end
