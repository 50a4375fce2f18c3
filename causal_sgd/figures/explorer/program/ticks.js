// Ticks: the most round values whose labels fit, all labelled in one way.
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const raised = (power) => String(power).replace("-", "⁻").replace(/\d/g, (d) => SUPERSCRIPTS[d]);

// Values a step apart, labelled with the decimals of the step.
function evenTicks(low, high, step) {
  const places = Math.ceil(-Math.log10(step) - 1e-9);
  const most = Math.max(Math.abs(low), Math.abs(high));
  const scientific = most >= 1e6 || most < 1e-4;
  const power = scientific ? Math.floor(Math.log10(most)) : 0;
  const label = (value) => {
    if (!scientific) return value.toFixed(Math.max(0, places));
    const mantissa = (value / 10 ** power).toFixed(Math.max(0, places + power));
    return Number(mantissa) === 0 ? "0" : `${mantissa}·10${raised(power)}`;
  };
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n <= high / step + 1e-9; n++)
    ticks.push({ value: n * step, label: label(n * step || 0) });
  return ticks;
}

function evenCandidates(low, high) {
  const found = [];
  let power = Math.floor(Math.log10((high - low) / 8));
  while (found.length < 7) {
    for (const mantissa of [1, 2, 5]) {
      const step = mantissa * 10 ** power;
      if ((high - low) / step <= 10) found.push(evenTicks(low, high, step));
    }
    power++;
  }
  return found;
}

// Multiples of powers of ten, of every `stride`-th power.
function decadeTicks(low, high, mantissas, stride) {
  const plain = low >= 9e-5 && high < 2e5, ticks = [];
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  for (let power = first; power <= last; power++) {
    if (((power % stride) + stride) % stride) continue;
    for (const mantissa of mantissas) {
      const value = Number(`${mantissa}e${power}`);
      if (value < low * (1 - 1e-9) || value > high * (1 + 1e-9)) continue;
      const factor = mantissa === 1 ? "" : `${mantissa}·`;
      ticks.push({ value, label: plain ? String(value) : `${factor}10${raised(power)}` });
    }
  }
  return ticks;
}

function logCandidates(low, high) {
  const decades = Math.log10(high / low), found = [];
  if (decades < 4) found.push(decadeTicks(low, high, [1, 2, 5], 1));
  if (decades < 4) found.push(decadeTicks(low, high, [1, 3], 1));
  for (let stride = 1; stride <= Math.max(1, decades); stride++)
    found.push(decadeTicks(low, high, [1], stride));
  // Over less than a decade few of them remain; evenly spaced values label it better.
  return found[0].length < 3 ? [...evenCandidates(low, high), ...found] : found;
}

// Whether labels are at least `gap` pixels apart.
const fitting = (ticks, length, extent, gap) => ticks.every((tick, i) => i === 0 ||
  (tick.unit - ticks[i - 1].unit) * length >=
    (extent(tick.label) + extent(ticks[i - 1].label)) / 2 + gap);

// The ticks of a scale over a length in pixels; `extent` is the size of a label along it.
function chooseTicks(scale, length, extent, gap) {
  const candidates = scale.log ? logCandidates(scale.low, scale.high)
    : evenCandidates(scale.low, scale.high);
  const placed = candidates.map((ticks) =>
    ticks.map((tick) => ({ ...tick, unit: scale.unit(tick.value) })));
  const fits = (ticks) => fitting(ticks, length, extent, gap);
  return placed.find((ticks) => ticks.length > 1 && fits(ticks)) ||
    placed.find((ticks) => ticks.length === 1) || [];
}

// The names of an axis of names, shortened to the space that each has.
function nameTicks(scale, length, extent, gap) {
  const room = length / scale.values.length - gap;
  const shorten = (name) => {
    let shown = name;
    while (shown.length > 1 && extent(shown) > room)
      shown = shown.replace(/…$/, "").slice(0, -1) + "…";
    return shown;
  };
  return scale.values.map((value) => ({
    value, unit: scale.unit(value), label: shorten(scale.axis.values[value]),
  }));
}

// The values of an axis themselves, if they are few and short; null otherwise.
function valueTicks(scale, length, extent, gap) {
  const { values } = scale;
  const short = (value) => Number(value.toPrecision(3)) === value && Math.abs(value) < 1e5;
  if (scale.log || values.length > 10 || !values.every(short)) return null;
  const decimals = (value) => (String(value).split(".")[1] || "").length;
  const most = Math.max(...values.map(decimals));
  if (most > 4) return null;
  const ticks = values.map((value) => ({
    value, unit: scale.unit(value), label: value.toFixed(most),
  }));
  return fitting(ticks, length, extent, gap) ? ticks : null;
}

function ticksOf(scale, length, extent, gap) {
  if (!scale.axis) return chooseTicks(scale, length, extent, gap);
  if (!scale.axis.numeric) return nameTicks(scale, length, extent, gap);
  return valueTicks(scale, length, extent, gap) || chooseTicks(scale, length, extent, gap);
}
