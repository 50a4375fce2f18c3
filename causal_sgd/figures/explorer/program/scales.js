// Scales: where values lie between the ends of an axis, from 0 to 1.
function makeScale(low, high, log) {
  const to = log ? Math.log : (v) => v, first = to(low), span = to(high) - first || 1;
  return { low, high, log, unit: (value) => (to(value) - first) / span };
}

// An axis of cells: edges midway between values, geometrically on a logarithmic axis. The values
// of an axis of names are 0, 1, 2, ...
function cellScale(axis) {
  const values = axis.numeric ? axis.values : axis.values.map((_, index) => index);
  const to = axis.log ? Math.log : (v) => v, from = axis.log ? Math.exp : (v) => v;
  const at = values.map(to);
  let ends = [at[0] - 0.5, at[0] + 0.5];
  if (at.length > 1) {
    const inner = at.slice(1).map((v, i) => (v + at[i]) / 2);
    const last = inner.length - 1;
    ends = [2 * at[0] - inner[0], ...inner, 2 * at[at.length - 1] - inner[last]];
  }
  const scale = makeScale(from(ends[0]), from(ends[ends.length - 1]), axis.log);
  const edges = ends.map((end) => (end - ends[0]) / (ends[ends.length - 1] - ends[0]));
  return { ...scale, axis, values, edges };
}

// The cell that contains a place between 0 and 1, given the edges of all; null outside.
function cellAt(edges, place) {
  if (!(place >= edges[0] && place <= edges[edges.length - 1])) return null;
  let low = 0, high = edges.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (place >= edges[middle]) low = middle; else high = middle - 1;
  }
  return low;
}

const ROUNDING = 4e-6; // numbers that differ by less of their size differ by rounding alone

// The range of numbers, widened if they are equal up to rounding; null without numbers.
function rangeOf(lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists)
    for (const number of list)
      if (Number.isFinite(number)) {
        if (number < low) low = number;
        if (number > high) high = number;
      }
  if (low > high) return null;
  const most = Math.max(Math.abs(low), Math.abs(high));
  if (high - low > ROUNDING * most) return [low, high];
  return [low - 0.05 * (most || 1), high + 0.05 * (most || 1)];
}
