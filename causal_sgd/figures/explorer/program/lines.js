// Lines: medians over seeds with bands, against the step or against one axis of the sweep.
const FEW = 20; // up to here markers show the points of a line

// `series` are { name, colour, dash, xs, low, middle, high, width, lost }, positions as on `x`.
function drawLines(stage, { series, x, log, xLabel, yLabel, theory, empty }) {
  const width = stage.holder.clientWidth, { height } = stage;
  const context = fit(stage.base, width, height);
  const visible = (values) => values.map((value) => (log && !(value > 0) ? NaN : value));
  const shown = series.map((line) => ({
    ...line, low: visible(line.low), middle: visible(line.middle), high: visible(line.high),
  }));
  const ends = rangeOf(shown.flatMap((line) => [line.low, line.middle, line.high]));
  if (ends === null) {
    stage.box = null;
    Object.assign(context, { font: NORMAL, fillStyle: ink().soft, textAlign: "center" });
    context.fillText(empty, width / 2, height / 2, width - 20);
    return;
  }
  const strips = shown.length > 1 ? shown.filter((line) => line.lost?.includes(true)) : [];
  const y = padded(ends, log, strips.length);
  const box = drawFrame(context, { width, height, right: 14, x, y, xLabel, yLabel, grid: true });
  stage.box = box;
  const place = (value, number) => [
    box.left + x.unit(value) * box.width, box.top + (1 - y.unit(number)) * box.height,
  ];
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.width, box.height);
  context.clip();
  if (x.edges) drawSpans(context, stage, shown, strips, x, box);
  for (const line of shown) drawBand(context, line, place);
  for (const line of shown) drawLine(context, line, place);
  (theory || []).forEach(({ points }, index) =>
    theoryLine(context, Array.from(points[0], (v, i) => place(v, points[1][i])), index + 1, false));
  context.restore();
}

// The range of y with some space, and with more for strips above the lines.
function padded([low, high], log, strips) {
  const to = log ? Math.log : (v) => v, from = log ? Math.exp : (v) => v;
  const span = to(high) - to(low);
  return makeScale(from(to(low) - 0.04 * span),
    from(to(high) + (0.04 + 0.08 * strips) * span), log);
}

function drawBand(context, line, place) {
  context.fillStyle = line.colour;
  context.globalAlpha = 0.18;
  let part = [];
  const fill = () => {
    path(context, [...part.map(([v, low]) => place(v, low)),
      ...part.reverse().map(([v, , high]) => place(v, high))]);
    context.fill();
    part = [];
  };
  line.xs.forEach((v, i) => {
    if (Number.isFinite(line.low[i]) && Number.isFinite(line.high[i]))
      part.push([v, line.low[i], line.high[i]]);
    else fill();
  });
  fill();
  context.globalAlpha = 1;
}

function drawLine(context, line, place) {
  Object.assign(context, { strokeStyle: line.colour, lineWidth: line.width, lineJoin: "round" });
  context.setLineDash(line.dash.map((length) => length * line.width));
  const points = line.xs.map((v, i) => place(v, line.middle[i]));
  path(context, points);
  context.stroke();
  context.setLineDash([]);
  if (points.length > FEW) return;
  context.fillStyle = line.colour;
  for (const [x, y] of points) {
    if (!Number.isFinite(y)) continue;
    context.beginPath();
    context.arc(x, y, line.width + 1.2, 0, 7);
    context.fill();
  }
}

// Values of x at which most runs diverged: over the full height for one line, in strips for more.
function drawSpans(context, stage, shown, strips, x, box) {
  for (const line of shown) {
    if (!line.lost?.includes(true)) continue;
    const row = strips.indexOf(line), tall = row < 0 ? box.height : 0.06 * box.height;
    const top = box.top + Math.max(0, row) * (tall + 2);
    line.lost.forEach((lost, i) => {
      if (!lost) return;
      const left = box.left + x.edges[i] * box.width;
      const wide = (x.edges[i + 1] - x.edges[i]) * box.width;
      context.fillStyle = pattern(context, "lost");
      context.fillRect(left, top, wide, tall);
      if (row < 0) return;
      context.fillStyle = line.colour;
      context.fillRect(left, top + tall - 3, wide, 3);
    });
  }
}

// The looks of the line `index`, as in figures.
const look = (index, count, chosen) => ({
  colour: THEME.colours[index % THEME.colours.length],
  dash: THEME.dashes[index % THEME.dashes.length],
  width: chosen || count === 1 ? 2.4 : 1.6,
});

// The trajectories of the selected cell.
function drawTrajectories(stage) {
  const lines = shownLines();
  const series = !data.steps ? [] : lines.map(({ metric, at, name, chosen }, index) => {
    const band = (which) => trackAt(metric, which, cellOf(at));
    return {
      name, xs: data.steps, low: band(0), middle: band(1), high: band(2),
      ...look(index, lines.length, chosen),
    };
  });
  const steps = data.steps || [0, 1];
  drawLines(stage, {
    series, x: makeScale(Math.min(...steps), Math.max(...steps), false), log: state.log,
    xLabel: "step", yLabel: yLabelOf(lines),
    empty: data.steps ? "no run to show: all diverged or none was run"
      : "the last step alone is on this page",
  });
  stage.series = series;
  drawNames("names", series);
}

const yLabelOf = (lines) => (new Set(lines.map((line) => line.metric)).size > 1
  ? "both metrics" : metrics[lines[0].metric].label);

function drawNames(id, series) {
  const entries = series.length < 2 ? [] : series.map((line) => legendEntry(line.name, (context) => {
    drawLine(context, { ...line, xs: [1, 25], middle: [7, 7] }, (x, y) => [x, y]);
  }));
  document.getElementById(id).replaceChildren(...entries);
}

// The last values against one axis, one line for each panel or for each value of an axis of names.
function drawAxis(stage) {
  const lines = shownLines(), axis = axes[state.x], x = cellScale(axis);
  const series = lines.map((panel, index) => {
    const cells = axis.values.map((_, column) => cellIn(panel, 0, column));
    const lost = cells.map((c) => diverged[c] >= THRESHOLD);
    const values = (level) => cells.map((c, i) => {
      if (fractions()) return diverged[c];
      return lost[i] ? NaN : valueAt(panel.metric, level, c);
    });
    const middle = values(fractions() ? 0 : state.shown);
    const ends = state.shown === MEDIAN ? [values(0), values(LEVELS - 1)] : [middle, middle];
    return {
      name: panel.name, xs: x.values, low: ends[0], middle, high: ends[1],
      lost: fractions() ? undefined : lost, ...look(index, lines.length, panel.chosen),
    };
  });
  const statistic = fractions() ? "diverged fraction" : levelName(data.levels[state.shown]);
  drawLines(stage, {
    series, x, log: state.log && !fractions(), xLabel: axis.label,
    yLabel: fractions() ? statistic : yLabelOf(lines), empty: "no number to show",
  });
  stage.series = series;
  stage.title.textContent = fractions() ? "fraction of diverged runs"
    : `${statistic} of ${yLabelOf(lines)}${state.shown === MEDIAN ? ", band 10–90 %" : ""}`;
  const { box } = stage;
  stage.xs = box ? x.edges.map((edge) => box.left + edge * box.width) : [];
  stage.ys = box ? [-(box.top + box.height), -box.top] : [];
  drawNames("legend", series);
  if (series.some((line) => line.lost?.includes(true)))
    document.getElementById("legend").append(legendEntry("at least 50 % diverged", (context) => {
      context.fillStyle = pattern(context, "lost");
      context.fillRect(1, 1, 24, 12);
    }));
}
