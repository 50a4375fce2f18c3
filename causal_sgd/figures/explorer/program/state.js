// What the page shows. `at` holds the index of the selected value on every axis: the cell on those
// of the diagram, the slice on the others. In a comparison panel A has the values of `at`, panel B
// another one on the axis `compare`, or another metric.
const METRIC = "metric of B"; // `compare` for two metrics
const initial = () => ({
  x: axisNamed(data.x),
  y: data.y === null ? -1 : axisNamed(data.y), // -1: lines over x
  metric: 0,
  shown: MEDIAN, // the index of a level, or "diverged"
  log: false,
  everywhere: false, // one scale of colours for all slices
  merge: data.merge,
  compare: null, // an axis, METRIC or null
  other: 0, // the index of B's value or metric
  difference: true,
  at: axes.map((axis, k) => {
    const middle = axis.numeric || axis.name === data.x || axis.name === data.y;
    return middle ? Math.floor(sizes[k] / 2) : 0;
  }),
});
const state = initial();

const isDiagram = () => state.y >= 0;
const columns = () => sizes[state.x];
const rows = () => (isDiagram() ? sizes[state.y] : 1);
const restOf = () => axes.map((_, k) => k).filter((k) => k !== state.x && k !== state.y);
const fractions = () => state.shown === "diverged";

// A cell of the diagram of a panel.
function cellIn(panel, row, column) {
  const y = isDiagram() ? (row - panel.at[state.y]) * strides[state.y] : 0;
  return cellOf(panel.at) + y + (column - panel.at[state.x]) * strides[state.x];
}

// The panels: one, or A and B of a comparison.
function panels() {
  const first = { metric: state.metric, at: state.at };
  if (state.compare === null) return [{ ...first, name: "" }];
  if (state.compare === METRIC) {
    const second = { metric: state.other, at: state.at };
    return [first, second].map((panel) => ({ ...panel, name: metrics[panel.metric].label }));
  }
  const axis = axes[state.compare];
  const name = (index) => (axis.numeric ? valueText(state.compare, index) : axis.values[index]);
  const at = [...state.at];
  at[state.compare] = state.other;
  return [
    { ...first, name: name(state.at[state.compare]) },
    { metric: state.metric, at, name: name(state.other) },
  ];
}

// What trajectories and lines show: the panels, or all values of the first axis of names.
function shownLines() {
  const named = restOf().find((k) => !axes[k].numeric);
  if (state.compare !== null || named === undefined) return panels();
  return axes[named].values.map((name, index) => {
    const at = [...state.at];
    at[named] = index;
    return { metric: state.metric, at, name, chosen: index === state.at[named] };
  });
}

// Change the axes or the comparison; an axis cannot have two roles.
function setAxis(role, k) {
  const previous = state[role], other = role === "x" ? "y" : "x";
  state[role] = k;
  if (state[other] === k) state[other] = previous;
  if (state.x < 0) { state.x = state.y; state.y = -1; }
  if (state.compare === state.x || state.compare === state.y) setComparison(null);
}

function setComparison(compare) {
  state.compare = compare;
  if (compare === null) return;
  const own = compare === METRIC ? state.metric : state.at[compare];
  const count = compare === METRIC ? metrics.length : sizes[compare];
  state.other = own + 1 < count ? own + 1 : Math.max(0, own - 1);
}

function moveTo(row, column) {
  const inside = (index, count) => Math.max(0, Math.min(count - 1, index));
  state.at[state.x] = inside(column, columns());
  if (isDiagram()) state.at[state.y] = inside(row, rows());
}
