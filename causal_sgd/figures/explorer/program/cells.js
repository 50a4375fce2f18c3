// The numbers of a diagram: what every cell shows, on the scale of its colours.
const THRESHOLD = 0.5; // the diverged fraction from which a cell is hatched

// `z` [rows * columns], NaN where there is nothing to colour; `lost`, `partial` (some diverged) and
// `missing` are flags.
function tableOf(panel) {
  const count = rows() * columns(), cell = new Int32Array(count);
  const z = new Float64Array(count), lost = new Uint8Array(count);
  const partial = new Uint8Array(count), missing = new Uint8Array(count);
  for (let row = 0, n = 0; row < rows(); row++)
    for (let column = 0; column < columns(); column++, n++)
      cell[n] = cellIn(panel, row, column);
  const owner = state.merge ? nearest(cell, (c) => runs[c] > 0) : null;
  for (let n = 0; n < count; n++) {
    const c = cell[owner ? owner[n] : n], fraction = diverged[c];
    missing[n] = runs[c] > 0 ? 0 : 1;
    lost[n] = !fractions() && fraction >= THRESHOLD ? 1 : 0;
    // Where its own run is a neighbour's, a cell has no cross of its own.
    partial[n] = !fractions() && fraction > 0 && !lost[n] && c === cell[n] ? 1 : 0;
    z[n] = lost[n] || missing[n] ? NaN : onScale(numberAt(panel, c));
    // As in figures: without a number for another reason than a logarithm, a cell is missing.
    if (!lost[n] && !Number.isFinite(numberAt(panel, c))) missing[n] = 1;
  }
  return { z, lost, partial, missing, owner };
}

const numberAt = (panel, cell) =>
  (fractions() ? diverged[cell] : valueAt(panel.metric, state.shown, cell));

function onScale(number) {
  if (!state.log || fractions()) return number;
  return number > 0 ? Math.log10(number) : NaN;
}

// B minus A; on a logarithmic scale the logarithm of their ratio.
function differenceOf(first, second) {
  const either = (name) => first[name].map((flag, n) => flag | second[name][n]);
  return {
    z: first.z.map((a, n) => second.z[n] - a),
    lost: either("lost"), partial: either("partial"), missing: either("missing"),
    owner: first.owner,
  };
}

// For every cell the index of the nearest one that holds, by distance in cells; the exact
// Euclidean one, by columns of the distances within rows.
function nearest(cell, holds) {
  const width = columns(), height = rows();
  const inRow = new Int32Array(cell.length).fill(-1), owner = new Int32Array(cell.length);
  for (let row = 0; row < height; row++) {
    const first = row * width;
    for (let column = 0, last = -1; column < width; column++) {
      if (holds(cell[first + column])) last = column;
      inRow[first + column] = last;
    }
    for (let column = width - 1, last = -1; column >= 0; column--) {
      if (inRow[first + column] === column) last = column;
      const left = inRow[first + column];
      if (last >= 0 && (left < 0 || last - column < column - left)) inRow[first + column] = last;
    }
  }
  for (let column = 0; column < width; column++)
    for (let row = 0; row < height; row++) {
      let best = Infinity;
      const own = row * width + column;
      owner[own] = own;
      for (let other = 0; other < height; other++) {
        const across = inRow[other * width + column], up = (other - row) ** 2;
        if (across < 0 || up >= best) continue;
        const distance = up + (across - column) ** 2;
        if (distance < best) { best = distance; owner[own] = other * width + across; }
      }
    }
  return owner;
}

// The ends of the colours: shared by the panels and, if asked for, by all slices.
function colourRange(shown, tables) {
  if (fractions()) return [0, 1];
  if (!state.everywhere) return rangeOf(tables.map((table) => table.z));
  const all = shown.map((panel) => {
    const z = new Float64Array(CELLS);
    for (let c = 0; c < CELLS; c++)
      z[c] = diverged[c] < THRESHOLD ? onScale(numberAt(panel, c)) : NaN;
    return z;
  });
  return rangeOf(all);
}

// The ends of the colours of a difference, as far from 0 on either side.
function differenceRange(difference, tables) {
  const most = (table) => {
    const range = rangeOf([table.z]) || [0, 0];
    return Math.max(Math.abs(range[0]), Math.abs(range[1]));
  };
  const size = Math.max(...tables.map(most)) || 1;
  let largest = 0;
  for (const number of difference.z) if (Math.abs(number) > largest) largest = Math.abs(number);
  return largest > ROUNDING * size ? [-largest, largest] : [-0.05 * size, 0.05 * size];
}
