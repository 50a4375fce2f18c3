// Diagrams: coloured cells with their marks, curves and a scale of colours.
const BAR = 13; // width of the scale of colours

// A pixel for every position of the screen, so that the time does not depend on the cells.
function paintCells(stage, table, [low, high], map) {
  const canvas = stage.base, context = canvas.getContext("2d"), { box, xs, ys } = stage;
  const ratio = canvas.width / parseFloat(canvas.style.width);
  const left = Math.round(box.left * ratio), top = Math.round(box.top * ratio);
  const wide = Math.round(box.width * ratio), tall = Math.round(box.height * ratio);
  const image = context.createImageData(wide, tall);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = Uint32Array.from({ length: 256 }, (_, i) =>
    (255 << 24) | (map[3 * i + 2] << 16) | (map[3 * i + 1] << 8) | map[3 * i]);
  const shades = Uint32Array.from(table.z, (number) => {
    if (!Number.isFinite(number)) return 0; // transparent
    const place = Math.floor(((number - low) / (high - low)) * 256);
    return colours[Math.max(0, Math.min(255, place))];
  });
  const inColumn = Int32Array.from({ length: wide }, (_, i) =>
    cellAt(xs, box.left + (i + 0.5) / ratio) ?? 0);
  for (let j = 0; j < tall; j++) {
    const row = cellAt(ys, -(box.top + (j + 0.5) / ratio)) ?? 0;
    const first = row * columns();
    for (let i = 0; i < wide; i++) pixels[j * wide + i] = shades[first + inColumn[i]];
  }
  context.putImageData(image, left, top);
}

// Cells with a flag, neighbours in a row as one.
function fillFlagged(context, stage, flags, style) {
  if (!flags.includes(1)) return false;
  context.fillStyle = style;
  context.beginPath();
  for (let row = 0, n = 0; row < rows(); row++)
    for (let column = 0; column < columns(); column++, n++) {
      if (!flags[n]) continue;
      const first = column;
      while (column + 1 < columns() && flags[n + 1]) { column++; n++; }
      const x = Math.round(stage.xs[first]), y = Math.round(-stage.ys[row + 1]);
      context.rect(x, y, Math.round(stage.xs[column + 1]) - x, Math.round(-stage.ys[row]) - y);
    }
  context.fill();
  return true;
}

function drawCrosses(context, { xs, ys }, flags) {
  const least = (edges) => Math.min(...edges.slice(1).map((edge, i) => edge - edges[i]));
  const half = Math.max(1, Math.min(3.6, 0.3 * least(xs), 0.3 * least(ys)));
  const centres = [];
  flags.forEach((flag, n) => {
    if (!flag) return;
    const row = Math.floor(n / columns()), column = n % columns();
    centres.push([(xs[column] + xs[column + 1]) / 2, -(ys[row] + ys[row + 1]) / 2]);
  });
  crosses(context, centres, half);
}

// Thin outlines of cells that were merged.
function drawOutlines(context, { xs, ys }, owner) {
  const width = columns();
  Object.assign(context, { strokeStyle: "rgba(255,255,255,.55)", lineWidth: 0.5 });
  context.beginPath();
  owner.forEach((own, n) => {
    const row = Math.floor(n / width), column = n % width;
    if (column + 1 < width && owner[n + 1] !== own) {
      context.moveTo(xs[column + 1], -ys[row]);
      context.lineTo(xs[column + 1], -ys[row + 1]);
    }
    if (n + width < owner.length && owner[n + width] !== own) {
      context.moveTo(xs[column], -ys[row + 1]);
      context.lineTo(xs[column + 1], -ys[row + 1]);
    }
  });
  context.stroke();
}

function drawBar(context, box, ticks, label, map, height) {
  const left = box.left + box.width + 12, colours = ink();
  for (let j = 0; j < box.height; j++) {
    const i = Math.min(255, Math.floor((1 - (j + 0.5) / box.height) * 256));
    context.fillStyle = `rgb(${map[3 * i]},${map[3 * i + 1]},${map[3 * i + 2]})`;
    context.fillRect(left, box.top + j, BAR, 1);
  }
  Object.assign(context, {
    font: SMALL, fillStyle: colours.ink, strokeStyle: colours.soft, lineWidth: 1,
    textAlign: "left", textBaseline: "middle",
  });
  for (const tick of ticks) {
    const y = Math.round(box.top + (1 - tick.unit) * box.height) + 0.5;
    context.beginPath();
    context.moveTo(left + BAR, y);
    context.lineTo(left + BAR + 4, y);
    context.stroke();
    context.fillText(tick.label, left + BAR + 7, y);
  }
  vertical(context, label, stageRight(context, box, ticks) - 8, box.top + box.height / 2,
    box.height, colours.ink);
}
const barWidth = (context, ticks) =>
  12 + BAR + 7 + Math.max(...ticks.map((tick) => widthOf(context, tick.label)), 0) + 20;
const stageRight = (context, box, ticks) => box.left + box.width + barWidth(context, ticks);

// A diagram on its stage. `label` is that of the colours.
function drawDiagram(stage, { table, range, map, label, panel }) {
  const width = stage.holder.clientWidth, { height } = stage;
  const context = fit(stage.base, width, height), tall = height - 54;
  const [low, high] = range || [0, 1], x = cellScale(axes[state.x]), y = cellScale(axes[state.y]);
  const log = state.log && !fractions() && map === "map";
  const bar = log ? makeScale(10 ** low, 10 ** high, true) : makeScale(low, high, false);
  const ticks = range ? chooseTicks(bar, tall, () => FONT, 6) : [];
  const right = barWidth(context, ticks);
  const box = drawFrame(context, {
    width, height, right, x, y, xLabel: axes[state.x].label, yLabel: axes[state.y].label,
  });
  stage.box = box;
  stage.barTicks = ticks.map((tick) => tick.label);
  stage.table = table;
  stage.range = range;
  stage.xs = x.edges.map((edge) => box.left + edge * box.width);
  // Negative, so that both ascend.
  stage.ys = y.edges.map((edge) => -(box.top + (1 - edge) * box.height));
  if (range) {
    paintCells(stage, table, range, MAPS[map]);
    drawBar(context, box, ticks, label, MAPS[map], height);
  }
  const missing = fillFlagged(context, stage, table.missing, pattern(context, "missing"));
  const lost = fillFlagged(context, stage, table.lost, pattern(context, "lost"));
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.width, box.height);
  context.clip();
  const merged = table.owner && table.owner.some((own, n) => own !== n);
  if (merged) drawOutlines(context, stage, table.owner);
  if (table.partial.includes(1)) drawCrosses(context, stage, table.partial);
  const lines = panel ? curvesOf(panel.at, state.x, state.y) : [];
  lines.forEach(({ points }, index) => theoryLine(context, pixels(points, x, y, box), index, true));
  context.restore();
  return { lost, missing, partial: table.partial.includes(1), lines, merged };
}

function pixels([xs, ys], x, y, box) {
  return Array.from(xs, (value, i) => [
    box.left + x.unit(value) * box.width, box.top + (1 - y.unit(ys[i])) * box.height,
  ]);
}

// The stages of the present view: A, B and their difference, or one.
function drawDiagrams(stages) {
  const shown = panels(), tables = shown.map(tableOf), range = colourRange(shown, tables);
  const quantity = (metric) => (fractions() ? "diverged fraction" : metrics[metric].label);
  const statistic = fractions() ? "" : `${levelName(data.levels[state.shown])} of `;
  const marks = shown.map((panel, index) => {
    const label = shown.length > 1 && state.compare === METRIC ? "both metrics"
      : quantity(panel.metric);
    stages[index].title.textContent = shown.length > 1
      ? `${"AB"[index]}: ${panel.name}` : `${statistic}${quantity(panel.metric)}`;
    return drawDiagram(stages[index], { table: tables[index], range, map: "map", label, panel });
  });
  if (shown.length > 1 && state.difference) {
    const table = differenceOf(...tables), log = state.log && !fractions();
    stages[2].title.textContent = log ? "ratio: B / A" : "difference: B - A";
    marks.push(drawDiagram(stages[2], {
      table, range: differenceRange(table, tables), map: "differences",
      label: log ? "log₁₀ (B / A)" : "B - A",
    }));
  }
  drawLegend(marks);
}

function drawLegend(marks) {
  const entries = [], any = (name) => marks.some((mark) => mark[name]);
  const block = (kind) => (context) => {
    context.fillStyle = pattern(context, kind);
    context.fillRect(1, 1, 24, 12);
  };
  const labels = new Map();
  marks.forEach(({ lines }) => lines.forEach(({ label }, index) => labels.set(label, index)));
  const line = (index) => (context) => theoryLine(context, [[1, 7], [25, 7]], index, true);
  labels.forEach((index, label) => entries.push(legendEntry(label, line(index))));
  if (any("lost")) entries.push(legendEntry("at least 50 % diverged", block("lost")));
  if (any("partial"))
    entries.push(legendEntry("some diverged", (context) => crosses(context, [[13, 7]], 3.6)));
  if (any("missing")) entries.push(legendEntry("not run", block("missing")));
  document.getElementById("legend").replaceChildren(...entries);
}
