// Drawing: stages (a canvas for the picture, one for the cursor, a tip), frames with ticks, marks.
const FONT = 12, SMALL = "12px system-ui, sans-serif", NORMAL = "13px system-ui, sans-serif";
const THEME = data.theme;
const MAPS = {
  map: unpack(THEME.map, Uint8Array), differences: unpack(THEME.differences, Uint8Array),
};

function ink() {
  const css = getComputedStyle(document.documentElement);
  const get = (name) => css.getPropertyValue(name).trim();
  return { ink: get("--ink"), soft: get("--soft"), line: get("--line"), paper: get("--panel") };
}

function element(kind, properties, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

// A picture with a cursor above it. `edges` are in pixels within `box` once it is drawn.
function makeStage(height) {
  const base = element("canvas", { className: "base" });
  const over = element("canvas", { className: "over" });
  const tip = element("div", { className: "tip", hidden: true });
  const title = element("h2", {});
  const holder = element("div", { className: "stage" }, base, over, tip);
  holder.style.height = `${height}px`;
  const figure = element("figure", {}, title, holder);
  return { figure, holder, base, over, tip, title, height, box: null, xs: [], ys: [] };
}

// Fit a canvas to the screen's pixels; drawing is in CSS pixels.
function fit(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

function widthOf(context, words) {
  context.font = SMALL;
  return context.measureText(words).width;
}

// Text along the vertical, made smaller if it is too long.
function vertical(context, words, x, middle, room, colour) {
  context.save();
  context.font = NORMAL;
  const size = Math.max(9, Math.min(13, (13 * room) / context.measureText(words).width));
  Object.assign(context, {
    font: `${size}px system-ui, sans-serif`, fillStyle: colour, textAlign: "center",
    textBaseline: "middle",
  });
  context.translate(x, middle);
  context.rotate(-Math.PI / 2);
  context.fillText(words, 0, 0);
  context.restore();
}

// The frame of a picture: ticks, labels and, if asked for, a grid. Returns the box inside.
function drawFrame(context, { width, height, right, x, y, xLabel, yLabel, grid }) {
  const colours = ink(), top = 8, bottom = 46, tall = height - top - bottom;
  const up = ticksOf(y, tall, () => FONT, 6);
  const left = 30 + Math.max(...up.map((tick) => widthOf(context, tick.label)), 12);
  const box = { left, top, width: Math.max(40, width - left - right), height: tall };
  const across = ticksOf(x, box.width, (label) => widthOf(context, label), 10);
  context.lineWidth = 1;
  context.font = SMALL;
  context.strokeStyle = colours.line;
  const atX = (unit) => Math.round(box.left + unit * box.width) + 0.5;
  const atY = (unit) => Math.round(top + (1 - unit) * tall) + 0.5;
  const stroke = (x0, y0, x1, y1) => {
    context.beginPath(); context.moveTo(x0, y0); context.lineTo(x1, y1); context.stroke();
  };
  if (grid) {
    across.forEach((tick) => stroke(atX(tick.unit), top, atX(tick.unit), top + tall));
    up.forEach((tick) => stroke(box.left, atY(tick.unit), box.left + box.width, atY(tick.unit)));
  }
  context.strokeStyle = colours.soft;
  context.fillStyle = colours.ink;
  Object.assign(context, { textAlign: "center", textBaseline: "top" });
  across.forEach((tick) => {
    stroke(atX(tick.unit), top + tall, atX(tick.unit), top + tall + 5);
    const half = widthOf(context, tick.label) / 2;
    context.fillText(tick.label, Math.min(atX(tick.unit), width - half), top + tall + 8);
  });
  Object.assign(context, { textAlign: "right", textBaseline: "middle" });
  up.forEach((tick) => {
    stroke(box.left - 5, atY(tick.unit), box.left, atY(tick.unit));
    context.fillText(tick.label, box.left - 8, atY(tick.unit));
  });
  context.strokeRect(Math.round(box.left) + 0.5, top + 0.5, Math.round(box.width), tall);
  Object.assign(context, { font: NORMAL, textAlign: "center", textBaseline: "alphabetic" });
  context.fillText(xLabel, box.left + box.width / 2, height - 8, box.width);
  vertical(context, yLabel, 10, top + tall / 2, tall, colours.ink);
  return { ...box, xTicks: across.map((tick) => tick.label), yTicks: up.map((tick) => tick.label) };
}

// The hatch of diverged cells and the dots of those without runs, as in figures.
function pattern(context, kind) {
  const colours = kind === "lost" ? THEME.diverged : THEME.missing;
  const tile = element("canvas", { width: 8, height: 8 }), pen = tile.getContext("2d");
  pen.fillStyle = colours.face;
  pen.fillRect(0, 0, 8, 8);
  pen.fillStyle = pen.strokeStyle = colours.edge;
  pen.lineWidth = 0.9;
  if (kind === "lost") {
    pen.beginPath();
    for (const shift of [-8, 0, 8]) { pen.moveTo(shift, 8); pen.lineTo(shift + 8, 0); }
    pen.stroke();
  } else {
    for (const [x, y] of [[1, 1], [5, 5]]) pen.fillRect(x, y, 1.2, 1.2);
  }
  return context.createPattern(tile, "repeat");
}

// Crosses, white within black, as in figures.
function crosses(context, centres, half) {
  for (const [colour, width] of [["#000000", 2.6], ["#ffffff", 1]]) {
    Object.assign(context, { strokeStyle: colour, lineWidth: Math.min(width, half) });
    context.beginPath();
    for (const [x, y] of centres) {
      context.moveTo(x - half, y - half); context.lineTo(x + half, y + half);
      context.moveTo(x - half, y + half); context.lineTo(x + half, y - half);
    }
    context.stroke();
  }
}

// A path of points in pixels, interrupted where one is not finite.
function path(context, points) {
  let down = false;
  context.beginPath();
  for (const [x, y] of points) {
    const there = Number.isFinite(x) && Number.isFinite(y);
    if (there && down) context.lineTo(x, y);
    else if (there) context.moveTo(x, y);
    down = there;
  }
}

// A theory curve as in figures: on cells white within black, on paper dark.
function theoryLine(context, points, index, onCells) {
  const dash = THEME.dashes[index % THEME.dashes.length];
  const pens = onCells ? [["#000000", 3.8], ["#ffffff", 2.2]] : [[ink().ink, 1.5]];
  for (const [colour, width] of pens) {
    Object.assign(context, { strokeStyle: colour, lineWidth: width, lineJoin: "round" });
    context.setLineDash(dash.map((length) => length * 2));
    path(context, points);
    context.stroke();
  }
  context.setLineDash([]);
}

// The entries of a legend: a sample, drawn, and its words.
function legendEntry(words, draw) {
  const sample = element("canvas", {});
  draw(fit(sample, 26, 14));
  return element("span", { className: "entry" }, sample, words);
}
