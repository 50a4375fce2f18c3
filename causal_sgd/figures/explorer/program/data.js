// The data of the page as typed arrays, and the places of a cell's numbers in them.
// A cell is given by `at`, the index of its value on every axis.
const data = JSON.parse(document.getElementById("data").textContent);
const { axes, metrics } = data;

function unpack(text, Kind) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return new Kind(bytes.buffer);
}

const LEVELS = data.levels.length, BANDS = data.band.length;
const MEDIAN = data.levels.indexOf(0.5);
const FRAMES = data.steps ? data.steps.length : 0;
const sizes = axes.map((axis) => axis.values.length);
const strides = sizes.map((_, k) => sizes.slice(k + 1).reduce((product, n) => product * n, 1));
const CELLS = sizes.reduce((product, n) => product * n, 1);

const final = unpack(data.final, Float32Array); // [metrics, levels, ...axes]
const diverged = unpack(data.diverged, Float32Array); // [...axes], fractions
const runs = unpack(data.runs, Float32Array); // [...axes]
const tracks = data.tracks && { // [metrics, ...axes, frames, bands] and [metrics, ...axes]
  codes: unpack(data.tracks.codes, Uint16Array),
  low: unpack(data.tracks.low, Float32Array),
  high: unpack(data.tracks.high, Float32Array),
  logarithmic: unpack(data.tracks.logarithmic, Uint8Array),
};
const MISSING = 65535, TOP = MISSING - 1; // codes

const axisNamed = (name) => axes.findIndex((axis) => axis.name === name);
const cellOf = (at) => at.reduce((sum, index, k) => sum + index * strides[k], 0);
const valueAt = (metric, level, cell) => final[(metric * LEVELS + level) * CELLS + cell];

// One band of the trajectory of a cell; NaN where it has no value.
function trackAt(metric, band, cell) {
  const track = metric * CELLS + cell, first = track * FRAMES * BANDS + band;
  const low = tracks.low[track], span = tracks.high[track] - low;
  const from = tracks.logarithmic[track] ? Math.exp : (v) => v;
  return data.steps.map((_, frame) => {
    const code = tracks.codes[first + frame * BANDS];
    return code === MISSING ? NaN : from(low + (code / TOP) * span);
  });
}

// The curves of a cell's diagram as [x, y] pairs of arrays, whichever axis is horizontal.
const curves = data.curves.map((curve) => ({
  label: curve.label,
  x: axisNamed(curve.x),
  y: axisNamed(curve.y),
  points: [unpack(curve.xs, Float32Array), unpack(curve.ys, Float32Array)],
  at: curve.at,
}));
function curvesOf(at, x, y) {
  return curves
    .filter((curve) => curve.at.every(([k, index]) => at[k] === index))
    .flatMap(({ label, points, ...curve }) => {
      if (curve.x === x && curve.y === y) return [{ label, points }];
      if (curve.x === y && curve.y === x) return [{ label, points: [points[1], points[0]] }];
      return [];
    });
}
