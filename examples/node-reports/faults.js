'use strict';
// The switches: every way a service goes wrong that Plimsoll guards against, on request.
// Each takes the query's parameters, starts its fault and returns what it started.

const fs = require('node:fs');
const { count, duration, size } = require('./units');

const TICK_MS = 20;
// A tick that comes late (a collection, a busy machine) is made up for, but not in one lump:
// a leak that pauses and then jumps would be a spike.
const CATCH_UP_MS = 200;

// Whatever is put here is reachable for ever: that is what a leak is.
const retained = [];
const descriptors = [];

/** Calls `take(amount)` so that on average `rate` per second are taken, until `total` or until it returns false. */
function drip(rate, total, take) {
  let taken = 0;
  let due = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    due += (rate * Math.min(now - last, CATCH_UP_MS)) / 1000;
    last = now;
    const amount = Math.floor(Math.min(due, total - taken));
    due -= amount;
    taken += amount;
    if ((amount > 0 && take(amount) === false) || taken >= total) clearInterval(timer);
  }, TICK_MS);
}

// One retained record is about 1 KiB of V8 heap: 120 doubles and four small objects around them.
const RECORD_BYTES = 1024 + 128;
const SAMPLES = Array.from({ length: 120 }, (_, i) => i + 0.5);
let recordId = 0;

function record() {
  recordId += 1;
  return { id: recordId, title: `report ${recordId}`, author: { id: recordId % 97 }, samples: SAMPLES.slice() };
}

/** Objects on the V8 heap: what `--max-old-space-size` limits. */
function leak(query) {
  const rate = size(query.get('rate') ?? '30MiB');
  const total = size(query.get('total') ?? '400MiB');
  let owed = 0;
  drip(rate, total, (bytes) => {
    for (owed += bytes; owed >= RECORD_BYTES; owed -= RECORD_BYTES) retained.push(record());
  });
  return { rate_bytes: rate, total_bytes: total };
}

/** Buffers outside the V8 heap: no heap flag sees them. */
function leakBuffers(query) {
  const rate = size(query.get('rate') ?? '30MiB');
  const total = size(query.get('total') ?? '400MiB');
  // Filled, because memory that was never written is not resident.
  drip(rate, total, (bytes) => void retained.push(Buffer.alloc(bytes, 1)));
  return { rate_bytes: rate, total_bytes: total };
}

/** Open files that nobody closes. */
function leakDescriptors(query) {
  const rate = count(query.get('rate') ?? '200');
  const total = count(query.get('total') ?? '100000');
  drip(rate, total, (amount) => {
    try {
      for (let i = 0; i < amount; i += 1) descriptors.push(fs.openSync(__filename));
    } catch (error) {
      console.error(`fault: after ${descriptors.length} leaked descriptors: ${error.code}`);
      return false;
    }
    return true;
  });
  return { rate, total };
}

/** Much memory at once, kept for `for`. */
function spike(query) {
  const bytes = size(query.get('size') ?? '600MiB');
  const over = Math.max(duration(query.get('over') ?? '2s'), TICK_MS);
  const keep = duration(query.get('for') ?? '10s');
  const held = [];
  drip((bytes * 1000) / over, bytes, (amount) => void held.push(Buffer.alloc(amount, 1)));
  setTimeout(() => held.splice(0), over + keep);
  return { size_bytes: bytes, over_ms: over, for_ms: keep };
}

/** The event loop stops: no request, health or SIGTERM is served any more. */
function hang() {
  // Not `for (;;)` bare: a wait burns no processor, and a hung loop is as often stuck as busy.
  setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0), TICK_MS);
  return {};
}

/** The same with a processor at 100 %. */
function spin() {
  setTimeout(() => {
    for (;;);
  }, TICK_MS);
  return {};
}

/** An exception that nobody catches, or `code=` to exit with. */
function crash(query) {
  const code = query.get('code');
  const status = code === null ? null : count(code);
  setTimeout(() => {
    if (status !== null) process.exit(status);
    throw new Error('crash requested');
  }, TICK_MS);
  return { code: status };
}

module.exports = {
  '/leak': leak,
  '/leak-buffers': leakBuffers,
  '/leak-fds': leakDescriptors,
  '/spike': spike,
  '/hang': hang,
  '/spin': spin,
  '/crash': crash,
};
