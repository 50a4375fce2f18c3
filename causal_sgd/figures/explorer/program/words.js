// Numbers, cells and statistics in words.
const text = (number) => (Number.isFinite(number) ? String(Number(number.toPrecision(4))) : "–");

function percent(fraction) {
  if (!Number.isFinite(fraction)) return "–";
  return `${(100 * fraction).toFixed(fraction > 0 && fraction < 0.01 ? 1 : 0)} %`;
}

const levelName = (level) => (level === 0.5 ? "median" : `${Math.round(100 * level)} % quantile`);

const valueName = (axis, index) =>
  (axis.numeric ? text(axis.values[index]) : axis.values[index]);

const valueText = (k, index) => `${axes[k].label} = ${valueName(axes[k], index)}`;

function divergedText(cell) {
  if (!runs[cell]) return "not run";
  const count = `${text(runs[cell])} run${runs[cell] === 1 ? "" : "s"}`;
  return `${percent(diverged[cell])} of ${count} diverged`;
}

function summaryText(metric, cell) {
  const number = (level) => text(valueAt(metric, level, cell));
  return `median ${number(MEDIAN)}, 10–90 %: ${number(0)} – ${number(LEVELS - 1)}`;
}
