"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const floats = (text) => {
    if (text === null) return null;
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  };
  const views = data.views.map((view) => ({
    name: view.name, final: floats(view.final), tracks: floats(view.tracks), diverged: floats(view.diverged), runs: floats(view.runs),
  }));
  const [across, up] = data.axes;
  const columns = across.values.length, rows = up.values.length, levels = data.levels.length;
  const slices = data.others.reduce((product, axis) => product * axis.values.length, 1);
  const frames = data.steps ? data.steps.length : 0, bands = data.band.length;
  const median = data.levels.indexOf(0.5);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const FEW_FRAMES = 20; // of which each is marked, as what lies between is not known
  const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"];
  const state = { metric: 0, view: 0, shown: `q${median}`, log: false, others: data.others.map(() => 0), row: 0, column: 0 };

  // Where things lie in the packed arrays: [metric, level, *others, row, column] and [metric, *others, row, column, frame, band].
  const slice = () => state.others.reduce((place, index, i) => place * data.others[i].values.length + index, 0);
  const cellAt = (row, column) => (slice() * rows + row) * columns + column;
  const cells = slices * rows * columns;
  const value = (view, metric, level, row, column) => view.final[(metric * levels + level) * cells + cellAt(row, column)];
  const track = (view, metric, band, row, column) =>
    data.steps.map((_, frame) => view.tracks[((metric * cells + cellAt(row, column)) * frames + frame) * bands + band]);

  const text = (number) => (Number.isFinite(number) ? String(Number(number.toPrecision(4))) : "–");
  const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(share > 0 && share < 0.01 ? 1 : 0)} %` : "–");
  const quantileName = (level) => (level === 0.5 ? "median" : `${Math.round(100 * level)} % quantile`);

  function edges(axis) {
    const to = axis.log ? Math.log : (v) => v, from = axis.log ? Math.exp : (v) => v;
    const at = axis.values.map(to);
    if (at.length === 1) return [from(at[0] - 0.5), from(at[0] + 0.5)];
    const inner = at.slice(1).map((v, i) => (v + at[i]) / 2);
    return [2 * at[0] - inner[0], ...inner, 2 * at[at.length - 1] - inner[inner.length - 1]].map(from);
  }
  const xEdges = edges(across), yEdges = edges(up);

  function theme() {
    const css = getComputedStyle(document.documentElement);
    const get = (name) => css.getPropertyValue(name).trim();
    return { ink: get("--ink"), soft: get("--soft"), line: get("--line"), paper: get("--panel") };
  }
  function layout(colours, more) {
    return Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colours.ink, size: 13 },
      margin: { l: 64, r: 12, t: 8, b: 52 }, hoverlabel: { align: "left" },
    }, more);
  }
  const axisLook = (axis, colours) => ({
    title: { text: axis.label }, type: axis.log ? "log" : "linear", gridcolor: colours.line, zeroline: false, linecolor: colours.soft,
    ticks: "outside", tickcolor: colours.soft,
  });
  const config = { responsive: true, displaylogo: false, 
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

  function hoverText(view, row, column) {
    const place = cellAt(row, column);
    const spread = `${text(value(view, state.metric, 0, row, column))} – ${text(value(view, state.metric, levels - 1, row, column))}`;
    return `${across.label} ${text(across.values[column])}<br>${up.label} ${text(up.values[row])}<br>` +
      `<b>median ${text(value(view, state.metric, median, row, column))}</b>  (10–90 %: ${spread})<br>` +
      `diverged ${percent(view.diverged[place])} of ${text(view.runs[place])} runs`;
  }

  function outline() { // white within black shows on every colour
    const place = { type: "rect", x0: xEdges[state.column], x1: xEdges[state.column + 1], y0: yEdges[state.row], y1: yEdges[state.row + 1] };
    return [{ ...place, line: { color: "#000000", width: 5 } }, { ...place, line: { color: "#ffffff", width: 2 } }];
  }

  function drawDiagram() {
    const view = views[state.view], metric = data.metrics[state.metric], colours = theme();
    const shares = state.shown === "diverged", level = shares ? 0 : Number(state.shown.slice(1));
    const z = [], blown = [], words = [];
    for (let row = 0; row < rows; row++) {
      z.push([]); blown.push([]); words.push([]);
      for (let column = 0; column < columns; column++) {
        const share = view.diverged[cellAt(row, column)], lost = !shares && share >= 0.5;
        const number = shares ? share : value(view, state.metric, level, row, column);
        const visible = !lost && Number.isFinite(number) && !(state.log && !shares && number <= 0);
        z[row].push(visible ? (state.log && !shares ? Math.log10(number) : number) : null);
        blown[row].push(lost ? 1 : null);
        words[row].push(hoverText(view, row, column));
      }
    }
    const bar = { title: { text: shares ? "share diverged" : metric.label, side: "right" }, thickness: 14, outlinewidth: 0 };
    if (state.log && !shares) Object.assign(bar, { tickprefix: "10<sup>", ticksuffix: "</sup>" });
    const traces = [
      { type: "heatmap", x: xEdges, y: yEdges, z, text: words, hoverinfo: "text", colorscale: "Viridis", colorbar: bar, zsmooth: false,
        ...(shares ? { zmin: 0, zmax: 1 } : {}) },
      { type: "heatmap", x: xEdges, y: yEdges, z: blown, text: words, hoverinfo: "text", showscale: false, zsmooth: false, zmin: 0, zmax: 1,
        colorscale: [[0, "#9a9aa2"], [1, "#9a9aa2"]], name: "diverged" },
    ];
    const lost = { x: [], y: [] };
    blown.forEach((line, row) => line.forEach((mark, column) => {
      if (mark) { lost.x.push(across.values[column]); lost.y.push(up.values[row]); }
    }));
    if (lost.x.length) traces.push({ type: "scatter", mode: "markers", ...lost, hoverinfo: "skip", name: "half or more diverged",
      marker: { symbol: "x-thin", size: Math.max(3, Math.min(9, 260 / Math.max(rows, columns))), line: { width: 1.2, color: "#3d3d44" } }, showlegend: true });
    for (const curve of data.curves[view.name] || []) {
      const path = { type: "scatter", mode: "lines", x: curve.x, y: curve.y, name: curve.label };
      traces.push({ ...path, hoverinfo: "skip", line: { color: "#000000", width: 5 }, showlegend: false });
      traces.push({ ...path, hoverinfo: "name", line: { color: "#ffffff", width: 2.5 } });
    }
    const range = (axis, ends) => ends.map((v) => (axis.log ? Math.log10(v) : v));
    Plotly.react("diagram", traces, layout(colours, {
      xaxis: { ...axisLook(across, colours), range: range(across, [xEdges[0], xEdges[columns]]) },
      yaxis: { ...axisLook(up, colours), range: range(up, [yEdges[0], yEdges[rows]]) },
      shapes: outline(), uirevision: "stay", dragmode: "zoom", showlegend: true,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, bgcolor: "rgba(60,60,66,.75)", font: { color: "#ffffff", size: 12 } },
      margin: { l: 64, r: 12, t: 34, b: 52 },
    }), config);
    const what = shares ? "share of runs that diverged" : `${quantileName(data.levels[level])} of ${metric.label}`;
    document.getElementById("diagram-title").textContent = `${view.name ? view.name + ": " : ""}${what}`;
  }

  function drawTrajectories() {
    const metric = data.metrics[state.metric], colours = theme(), { row, column } = state;
    const traces = [];
    if (data.steps) views.forEach((view, index) => {
      const colour = PALETTE[index % PALETTE.length], [low, mid, high] = [0, 1, 2].map((band) => track(view, state.metric, band, row, column));
      if (!mid.some(Number.isFinite)) return;
      traces.push({ type: "scatter", mode: "lines", x: data.steps, y: low, line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: view.name });
      traces.push({ type: "scatter", mode: "lines", x: data.steps, y: high, line: { width: 0 }, fill: "tonexty", fillcolor: colour + "33",
        hoverinfo: "skip", showlegend: false, legendgroup: view.name });
      traces.push({ type: "scatter", mode: frames <= FEW_FRAMES ? "lines+markers" : "lines", x: data.steps, y: mid, name: view.name || "median", line: { color: colour, width: index === state.view ? 3 : 1.8 },
        legendgroup: view.name, hovertemplate: "step %{x}: %{y:.4g}" });
    });
    Plotly.react("trajectories", traces, layout(colours, {
      xaxis: { title: { text: "step" }, gridcolor: colours.line, zeroline: false },
      yaxis: { title: { text: metric.label }, type: state.log ? "log" : "linear", gridcolor: colours.line, zeroline: false, exponentformat: "power" },
      showlegend: views.length > 1, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      annotations: traces.length ? [] : [{ text: data.steps ? "every run diverged" : "only the last step was recorded", showarrow: false,
        xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: colours.soft } }],
      margin: { l: 64, r: 12, t: 26, b: 48 },
    }), config);
    const spot = `${across.label} ${text(across.values[column])}, ${up.label} ${text(up.values[row])}`;
    document.getElementById("cell-title").textContent = `Trajectories at ${spot}`;
    const view = views[state.view], place = cellAt(row, column);
    const sparse = data.recorded === 2 ? "; only the start and the end were recorded (record_every keeps more)" : "";
    const thinned = frames && frames < data.recorded ? `; ${frames} of ${data.recorded} frames are in this page` : "";
    document.getElementById("cell").textContent =
      `${view.name ? view.name + ", " : ""}${spot}: ${metric.label} median ${text(value(view, state.metric, median, row, column))}, ` +
      `diverged ${percent(view.diverged[place])} of ${text(view.runs[place])} runs. Lines are medians, bands 10 to 90 %${sparse}${thinned}.`;
    const head = ["", ...data.levels.map((level) => quantileName(level).replace(" quantile", ""))];
    document.querySelector("#numbers thead").replaceChildren(line("th", head));
    document.querySelector("#numbers tbody").replaceChildren(...data.metrics.map((each, index) => {
      const found = line("td", [each.label, ...data.levels.map((_, level) => text(value(view, index, level, row, column)))]);
      if (index === state.metric) found.className = "chosen";
      return found;
    }));
  }
  function line(kind, words) {
    const row = document.createElement("tr");
    words.forEach((word, index) => {
      const cell = document.createElement(index === 0 ? "th" : kind);
      cell.textContent = word;
      if (kind === "th" || index === 0) cell.scope = kind === "th" ? "col" : "row";
      row.append(cell);
    });
    return row;
  }

  function choose(row, column) {
    state.row = Math.max(0, Math.min(rows - 1, row));
    state.column = Math.max(0, Math.min(columns - 1, column));
    Plotly.relayout("diagram", { shapes: outline() });
    drawTrajectories();
    keep();
  }
  function draw() { drawDiagram(); drawTrajectories(); keep(); }

  // The address keeps what is shown, so that a link or a reload comes back to it.
  function keep() { history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify(state))); }
  function recall() {
    try {
      const kept = JSON.parse(decodeURIComponent(location.hash.slice(1)));
      const whole = (n, end) => Number.isInteger(n) && n >= 0 && n < end;
      if (whole(kept.metric, data.metrics.length)) state.metric = kept.metric;
      if (whole(kept.view, views.length)) state.view = kept.view;
      if (whole(kept.row, rows)) state.row = kept.row;
      if (whole(kept.column, columns)) state.column = kept.column;
      if (kept.shown === "diverged" || data.levels.some((_, i) => kept.shown === `q${i}`)) state.shown = kept.shown;
      if (Array.isArray(kept.others) && kept.others.length === data.others.length && kept.others.every((n, i) => whole(n, data.others[i].values.length))) state.others = kept.others;
      state.log = kept.log === true;
    } catch { /* no address, or another page's */ }
  }

  function select(id, label, options, chosen, change) {
    const holder = document.createElement("label"), box = document.createElement("select");
    box.id = id;
    options.forEach(([key, words]) => box.append(new Option(words, key, false, String(key) === String(chosen))));
    box.addEventListener("change", () => { change(box.value); draw(); });
    holder.append(label, box);
    document.getElementById("controls").append(holder);
  }
  function controls() {
    select("metric", "metric", data.metrics.map((each, i) => [i, each.label]), state.metric, (v) => { state.metric = Number(v); });
    if (views.length > 1) select("view", "sampler or method", views.map((each, i) => [i, each.name]), state.view, (v) => { state.view = Number(v); });
    select("shown", "over the seeds", [...data.levels.map((level, i) => [`q${i}`, quantileName(level)]), ["diverged", "share diverged"]],
      state.shown, (v) => { state.shown = v; });
    data.others.forEach((axis, index) => select(`other-${axis.name}`, axis.label, axis.values.map((v, i) => [i, text(v)]), state.others[index],
      (v) => { state.others[index] = Number(v); }));
    const holder = document.createElement("label"), box = document.createElement("input");
    holder.className = "check"; box.type = "checkbox"; box.id = "log"; box.checked = state.log;
    box.addEventListener("change", () => { state.log = box.checked; draw(); });
    holder.append(box, "logarithmic values");
    document.getElementById("controls").append(holder);
    document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  }

  function nearest(ends, at) {
    const place = ends.findIndex((end) => at < end);
    return place < 0 ? ends.length - 2 : Math.max(0, place - 1);
  }
  const moves = {
    ArrowLeft: () => choose(state.row, state.column - 1), ArrowRight: () => choose(state.row, state.column + 1),
    ArrowUp: () => choose(state.row + 1, state.column), ArrowDown: () => choose(state.row - 1, state.column),
    Home: () => choose(state.row, 0), End: () => choose(state.row, columns - 1),
    PageUp: () => choose(rows - 1, state.column), PageDown: () => choose(0, state.column),
  };

  state.row = Math.floor(rows / 2); state.column = Math.floor(columns / 2);
  recall();
  controls();
  draw();
  const diagram = document.getElementById("diagram");
  diagram.on("plotly_click", (event) => {
    const point = event.points[0];
    if (Array.isArray(point.pointNumber)) choose(...point.pointNumber);
    else choose(nearest(yEdges, point.y), nearest(xEdges, point.x));
  });
  diagram.addEventListener("keydown", (event) => {
    if (event.key in moves && !event.ctrlKey && !event.altKey && !event.metaKey) { event.preventDefault(); moves[event.key](); }
  });
  dark.addEventListener("change", draw);
  document.documentElement.dataset.ready = "true";
})();
