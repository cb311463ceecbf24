'use strict';
// Sizes and durations as Plimsoll writes them: "30MiB", "500ms".

const SIZES = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
const DURATIONS = { ms: 1, s: 1e3, m: 6e4 };

class UsageError extends Error {}

function quantity(text, units, bare, what) {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text);
  const unit = match && (match[2] || bare);
  if (!match || !Object.hasOwn(units, unit)) {
    throw new UsageError(`${what} "${text}" is not a number with one of ${Object.keys(units).join(', ')}`);
  }
  return Number(match[1]) * units[unit];
}

/** Bytes. */
const size = (text) => quantity(text, SIZES, 'B', 'size');

/** Milliseconds; a bare number is seconds. */
const duration = (text) => quantity(text, DURATIONS, 's', 'duration');

/** A whole number, not negative. */
function count(text) {
  if (!/^\d{1,15}$/.test(text)) throw new UsageError(`"${text}" is not a whole number`);
  return Number(text);
}

module.exports = { UsageError, count, duration, size };
