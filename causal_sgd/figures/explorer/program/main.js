// The page: stages for the view, the cursor that they share, the numbers of the selected cell.
const diagram = document.getElementById("diagram");
const stages = [], trajectories = makeStage(320);
let pointed = null; // the cell under the mouse, { row, column }
document.getElementById("trajectories").append(trajectories.holder);

function note(words) {
  document.getElementById("note").textContent = words;
}

// As many stages as there are panels.
function setStages() {
  const count = !isDiagram() || state.compare === null ? 1 : state.difference ? 3 : 2;
  document.body.dataset.panels = count;
  if (stages.length === count) return;
  stages.length = 0;
  for (let index = 0; index < count; index++) {
    const stage = makeStage(count === 1 ? 480 : 380);
    stage.over.addEventListener("pointermove", (event) => point(stage, event));
    stage.over.addEventListener("pointerleave", () => point(stage, null));
    stage.over.addEventListener("click", (event) => {
      const hit = hitOf(stage, event);
      if (hit) choose(hit.row, hit.column, true);
    });
    stages.push(stage);
  }
  diagram.replaceChildren(...stages.map((stage) => stage.figure));
}

function hitOf(stage, event) {
  if (!stage.box) return null;
  const bounds = stage.over.getBoundingClientRect();
  const column = cellAt(stage.xs, event.clientX - bounds.left);
  const row = cellAt(stage.ys, -(event.clientY - bounds.top));
  return row === null || column === null ? null : { row, column };
}

// The cursor: the selected cell, and the one under the mouse in every panel.
function point(stage, event) {
  const hit = event && hitOf(stage, event);
  if (hit?.row === pointed?.row && hit?.column === pointed?.column &&
      hit?.row !== undefined === !stage.tip.hidden) return;
  pointed = hit;
  drawCursor();
  stages.forEach((other) => { other.tip.hidden = other !== stage || !hit; });
  if (hit) fillTip(stage, hit);
}

function drawCursor() {
  for (const stage of stages) {
    const context = stage.over.getContext("2d");
    context.clearRect(0, 0, stage.over.width, stage.over.height);
    if (!stage.box) continue;
    const selected = {
      row: isDiagram() ? state.at[state.y] : 0, column: state.at[state.x],
    };
    const mark = isDiagram() ? outline : shade;
    mark(context, stage, selected, 2);
    if (!pointed) continue;
    context.setLineDash([5, 3]);
    mark(context, stage, pointed, 1.5);
    context.setLineDash([]);
  }
}

// White within black is visible on every colour.
function outline(context, { xs, ys }, { row, column }, width) {
  const box = [xs[column], -ys[row + 1], xs[column + 1] - xs[column], ys[row + 1] - ys[row]];
  const dash = context.getLineDash();
  for (const [colour, wide] of [["#000000", width + 2.4], ["#ffffff", width]]) {
    Object.assign(context, { strokeStyle: colour, lineWidth: wide });
    context.setLineDash(colour === "#000000" ? [] : dash);
    context.strokeRect(...box);
  }
}

// Among lines, a soft bar.
function shade(context, { xs, box }, { column }, strength) {
  context.fillStyle = `rgba(120, 120, 135, ${strength * 0.11})`;
  context.fillRect(xs[column], box.top, xs[column + 1] - xs[column], box.height);
}

const positionText = (row, column) =>
  [valueText(state.x, column), ...(isDiagram() ? [valueText(state.y, row)] : [])].join(", ");

// What the lines of a cell say: one for each panel, and for their difference.
function cellLines(row, column) {
  const shown = isDiagram() ? panels() : shownLines();
  const lines = shown.map((panel, index) => {
    const cell = cellIn(panel, row, column);
    const name = state.compare !== null ? `${"AB"[index]}, ${panel.name}: `
      : panel.name ? `${panel.name}: ` : "";
    return `${name}${summaryText(panel.metric, cell)}; ${divergedText(cell)}`;
  });
  if (state.compare !== null) {
    const [a, b] = shown.map((panel) => numberAt(panel, cellIn(panel, row, column)));
    const statistic = fractions() ? "diverged fractions" : `${levelName(data.levels[state.shown])}s`;
    const ratio = state.log && !fractions() && a > 0 && b > 0 ? `, ratio B / A ${text(b / a)}` : "";
    lines.push(`difference B - A of the ${statistic}: ${text(b - a)}${ratio}`);
  }
  return lines;
}

function fillTip(stage, { row, column }) {
  const { tip, box } = stage;
  tip.replaceChildren(...[positionText(row, column), ...cellLines(row, column)]
    .map((words) => element("div", { textContent: words })));
  const x = (stage.xs[column] + stage.xs[column + 1]) / 2, below = -stage.ys[row];
  const left = Math.max(0, Math.min(x + 12, box.left + box.width - tip.offsetWidth));
  const above = -stage.ys[row + 1] - tip.offsetHeight - 10;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 0 ? above : below + 10}px`;
}

function showCell() {
  const row = isDiagram() ? state.at[state.y] : 0, column = state.at[state.x];
  document.getElementById("cell-title").textContent = `Trajectories at ${positionText(row, column)}`;
  const metric = state.compare === METRIC ? "" : `${metrics[state.metric].label} `;
  document.getElementById("cell").textContent =
    `${metric}at the last step: ${cellLines(row, column).join(". ")}.`;
  document.getElementById("frames").textContent =
    `Lines are medians, bands range from the 10 % to the 90 % quantile.${framesText()}`;
  fillTable(panels());
}

function framesText() {
  if (!data.steps && data.recorded < 2)
    return " Only the last step was recorded (record_every records more).";
  if (!data.steps) return " The trajectories of so many cells do not fit on a page.";
  if (data.recorded === 2)
    return " Only the first and the last step were recorded (record_every records more).";
  return FRAMES < data.recorded
    ? ` This page contains ${FRAMES} of ${data.recorded} recorded steps.` : "";
}

function fillTable(shown) {
  const head = data.levels.map((level) => levelName(level).replace(" quantile", ""));
  document.querySelector("#numbers thead").replaceChildren(tableRow("th", ["", ...head]));
  const two = shown.length > 1 && state.compare !== METRIC;
  const body = metrics.flatMap((metric, index) => shown.slice(0, two ? 2 : 1).map((panel, which) => {
    const cell = cellOf(panel.at);
    const numbers = data.levels.map((_, level) => text(valueAt(index, level, cell)));
    const line = tableRow("td", [`${metric.label}${two ? `, ${"AB"[which]}` : ""}`, ...numbers]);
    if (shown.some((each) => each.metric === index)) line.className = "chosen";
    return line;
  }));
  document.querySelector("#numbers tbody").replaceChildren(...body);
}

function tableRow(kind, words) {
  const row = document.createElement("tr");
  words.forEach((word, index) => {
    const cell = element(index === 0 ? "th" : kind, { textContent: word });
    if (kind === "th" || index === 0) cell.scope = kind === "th" ? "col" : "row";
    row.append(cell);
  });
  return row;
}

function choose(row, column, step) {
  moveTo(row, column);
  drawCursor();
  drawTrajectories(trajectories);
  showCell();
  save(step);
}

// Draw everything; `step` for a new entry in the history, undefined for no change of the address.
function draw(step) {
  setStages();
  makeControls();
  drawStages();
  if (step !== undefined) save(step);
}

function drawStages() {
  for (const stage of stages) fit(stage.over, stage.holder.clientWidth, stage.height);
  if (isDiagram()) drawDiagrams(stages); else drawAxis(stages[0]);
  const title = isDiagram() && state.compare !== null
    ? `${fractions() ? "diverged fraction" : `${levelName(data.levels[state.shown])} of ${
      state.compare === METRIC ? "two metrics" : metrics[state.metric].label}`}`
    : stages[0].title.textContent;
  document.getElementById("diagram-title").textContent = title;
  pointed = null;
  stages.forEach((stage) => { stage.tip.hidden = true; });
  drawCursor();
  drawTrajectories(trajectories);
  showCell();
}

// Once for all changes of a slider within a frame.
let waiting = false;
function drawSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; drawStages(); save(false); });
}

const moves = {
  ArrowLeft: (row, column) => [row, column - 1],
  ArrowRight: (row, column) => [row, column + 1],
  ArrowUp: (row, column) => [row + 1, column],
  ArrowDown: (row, column) => [row - 1, column],
  Home: (row) => [row, 0],
  End: (row) => [row, columns() - 1],
  PageUp: (_, column) => [rows() - 1, column],
  PageDown: (_, column) => [0, column],
};
diagram.addEventListener("keydown", (event) => {
  if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const row = isDiagram() ? state.at[state.y] : 0;
  choose(...moves[event.key](row, state.at[state.x]), false);
});

// A picture of the panels, as they are, side by side.
document.getElementById("save").addEventListener("click", () => {
  const bases = stages.map((stage) => stage.base), gap = 8;
  const picture = element("canvas", {
    width: bases.reduce((sum, base) => sum + base.width + gap, -gap), height: bases[0].height,
  });
  const context = picture.getContext("2d");
  context.fillStyle = ink().paper;
  context.fillRect(0, 0, picture.width, picture.height);
  bases.reduce((left, base) => { context.drawImage(base, left, 0); return left + base.width + gap; },
    0);
  element("a", { download: "diagram.png", href: picture.toDataURL("image/png") }).click();
});

document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("popstate", () => { restore(); draw(); });
window.addEventListener("resize", drawSoon);
window.addEventListener("pagehide", () => { if (pending) settle(); });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
restore();
draw();
// For tests, and for whoever looks into the page.
window.explorer = { state, stages, trajectories, chooseTicks, makeScale, cellScale, nearest, trackAt };
document.documentElement.dataset.ready = "true";
