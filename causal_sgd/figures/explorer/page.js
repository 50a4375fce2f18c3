"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const floats = (text) => {
    if (text === null) return null;
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  };
  const views = data.views.map((view) => ({
    name: view.name,
    final: floats(view.final),
    tracks: floats(view.tracks),
    diverged: floats(view.diverged),
    runs: floats(view.runs),
  }));
  const [across, up] = data.axes;
  const columns = across.values.length, rows = up.values.length, levels = data.levels.length;
  const slices = data.others.reduce((product, axis) => product * axis.values.length, 1);
  const frames = data.steps ? data.steps.length : 0, bands = data.band.length;
  const median = data.levels.indexOf(0.5);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const FEW_FRAMES = 20; // up to here markers show which steps were recorded
  const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"];
  const state = {
    metric: 0,
    view: 0,
    shown: `q${median}`,
    log: false,
    others: data.others.map(() => 0),
    row: Math.floor(rows / 2),
    column: Math.floor(columns / 2),
  };

  // Layout of the packed arrays: `final` is [metric, level, *others, row, column], `tracks` is
  // [metric, *others, row, column, frame, band].
  const slice = () => state.others.reduce(
    (index, value, i) => index * data.others[i].values.length + value, 0);
  const cellAt = (row, column) => (slice() * rows + row) * columns + column;
  const cells = slices * rows * columns;
  const value = (view, metric, level, row, column) =>
    view.final[(metric * levels + level) * cells + cellAt(row, column)];
  const track = (view, metric, band, row, column) => {
    const first = (metric * cells + cellAt(row, column)) * frames;
    return data.steps.map((_, frame) => view.tracks[(first + frame) * bands + band]);
  };

  // Labels
  const text = (number) =>
    (Number.isFinite(number) ? String(Number(number.toPrecision(4))) : "–");
  const percent = (fraction) => {
    if (!Number.isFinite(fraction)) return "–";
    return `${(100 * fraction).toFixed(fraction > 0 && fraction < 0.01 ? 1 : 0)} %`;
  };
  const quantileName = (level) =>
    (level === 0.5 ? "median" : `${Math.round(100 * level)} % quantile`);
  const divergedText = (view, row, column) => {
    const cell = cellAt(row, column), runs = view.runs[cell];
    return runs ? `${percent(view.diverged[cell])} of ${text(runs)} runs diverged` : "not run";
  };
  const positionText = (row, column) =>
    `${across.label} = ${text(across.values[column])}, ${up.label} = ${text(up.values[row])}`;
  // Plotly reads elements in its texts.
  const literal = (words) => words.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const prefixed = (view, words) => (view.name ? `${view.name}: ${words}` : words);

  function hoverText(view, row, column) {
    const number = (level) => text(value(view, state.metric, level, row, column));
    return `${literal(positionText(row, column))}<br>` +
      `<b>median ${number(median)}</b>, 10–90 %: ${number(0)} – ${number(levels - 1)}<br>` +
      divergedText(view, row, column);
  }

  // Geometry of the cells: edges are midpoints, geometric on a logarithmic axis.
  function edges(axis) {
    const to = axis.log ? Math.log : (v) => v, from = axis.log ? Math.exp : (v) => v;
    const at = axis.values.map(to);
    if (at.length === 1) return [from(at[0] - 0.5), from(at[0] + 0.5)];
    const inner = at.slice(1).map((v, i) => (v + at[i]) / 2);
    const first = 2 * at[0] - inner[0];
    const last = 2 * at[at.length - 1] - inner[inner.length - 1];
    return [first, ...inner, last].map(from);
  }
  const xEdges = edges(across), yEdges = edges(up);

  function nearest(ends, position) {
    const index = ends.findIndex((end) => position < end);
    return index < 0 ? ends.length - 2 : Math.max(0, index - 1);
  }

  // Style
  function theme() {
    const css = getComputedStyle(document.documentElement);
    const get = (name) => css.getPropertyValue(name).trim();
    return { ink: get("--ink"), soft: get("--soft"), line: get("--line"), paper: get("--panel") };
  }
  const layout = (colours, more) => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colours.ink, size: 13 },
    hoverlabel: { align: "left" },
    ...more,
  });
  // Over few decades, label 1, 2 and 5 of each with plain numbers.
  const ticks = (axis, [first, last]) =>
    (axis.log && last < 300 * first ? { dtick: "D2", tickformat: "~g" } : {});
  const axisStyle = (axis, colours, ends) => ({
    title: { text: literal(axis.label) },
    type: axis.log ? "log" : "linear",
    range: ends.map((v) => (axis.log ? Math.log10(v) : v)),
    gridcolor: colours.line,
    zeroline: false,
    linecolor: colours.soft,
    ticks: "outside",
    tickcolor: colours.soft,
    ...ticks(axis, ends),
  });
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };

  function outline() { // white within black is visible on every colour
    const cell = {
      type: "rect",
      x0: xEdges[state.column], x1: xEdges[state.column + 1],
      y0: yEdges[state.row], y1: yEdges[state.row + 1],
    };
    return [
      { ...cell, line: { color: "#000000", width: 5 } },
      { ...cell, line: { color: "#ffffff", width: 2 } },
    ];
  }

  // The numbers of all cells, with those lost to divergence apart.
  function cellValues(view) {
    const fractions = state.shown === "diverged";
    const level = fractions ? 0 : Number(state.shown.slice(1));
    const log = state.log && !fractions;
    const z = [], lost = [], words = [];
    for (let row = 0; row < rows; row++) {
      z.push([]); lost.push([]); words.push([]);
      for (let column = 0; column < columns; column++) {
        const fraction = view.diverged[cellAt(row, column)];
        const isLost = !fractions && fraction >= 0.5;
        const number = fractions ? fraction : value(view, state.metric, level, row, column);
        const visible = !isLost && Number.isFinite(number) && !(log && number <= 0);
        z[row].push(visible ? (log ? Math.log10(number) : number) : null);
        lost[row].push(isLost ? 1 : null);
        words[row].push(hoverText(view, row, column));
      }
    }
    return { fractions, level, log, z, lost, words };
  }

  function lostTraces(lost, words) {
    const heatmap = {
      type: "heatmap", x: xEdges, y: yEdges, z: lost, text: words, hoverinfo: "text",
      showscale: false, zsmooth: false, zmin: 0, zmax: 1,
      colorscale: [[0, "#9a9aa2"], [1, "#9a9aa2"]], name: "diverged",
    };
    const x = [], y = [];
    lost.forEach((line, row) => line.forEach((mark, column) => {
      if (mark) { x.push(across.values[column]); y.push(up.values[row]); }
    }));
    if (!x.length) return [heatmap];
    const size = Math.max(3, Math.min(9, 260 / Math.max(rows, columns)));
    return [heatmap, {
      type: "scatter", mode: "markers", x, y, hoverinfo: "skip", showlegend: true,
      name: "at least 50 % diverged",
      marker: { symbol: "x-thin", size, line: { width: 1.2, color: "#3d3d44" } },
    }];
  }

  function curveTraces(curve) {
    const path = { type: "scatter", mode: "lines", x: curve.x, y: curve.y,
      name: literal(curve.label) };
    return [
      { ...path, hoverinfo: "skip", line: { color: "#000000", width: 5 }, showlegend: false },
      { ...path, hoverinfo: "name", line: { color: "#ffffff", width: 2.5 } },
    ];
  }

  function drawDiagram() {
    const view = views[state.view], metric = data.metrics[state.metric], colours = theme();
    const { fractions, level, log, z, lost, words } = cellValues(view);
    const colorbar = {
      title: { text: fractions ? "diverged fraction" : literal(metric.label), side: "right" },
      thickness: 14,
      outlinewidth: 0,
      ...(log ? { tickprefix: "10<sup>", ticksuffix: "</sup>" } : {}),
    };
    const traces = [
      {
        type: "heatmap", x: xEdges, y: yEdges, z, text: words, hoverinfo: "text",
        colorscale: "Viridis", colorbar, zsmooth: false, ...(fractions ? { zmin: 0, zmax: 1 } : {}),
      },
      ...lostTraces(lost, words),
      ...(data.curves[view.name] || []).flatMap(curveTraces),
    ];
    Plotly.react("diagram", traces, layout(colours, {
      xaxis: axisStyle(across, colours, [xEdges[0], xEdges[columns]]),
      yaxis: axisStyle(up, colours, [yEdges[0], yEdges[rows]]),
      shapes: outline(),
      uirevision: "stay",
      dragmode: "zoom",
      showlegend: true,
      legend: {
        orientation: "h", y: 1.02, yanchor: "bottom", x: 0,
        bgcolor: "rgba(60,60,66,.75)", font: { color: "#ffffff", size: 12 },
      },
      margin: { l: 64, r: 12, t: 34, b: 52 },
    }), config);
    const quantity = fractions
      ? "fraction of diverged runs" : `${quantileName(data.levels[level])} of ${metric.label}`;
    document.getElementById("diagram-title").textContent = prefixed(view, quantity);
  }

  function trajectoryTraces(view, index) {
    const { metric, row, column } = state, colour = PALETTE[index % PALETTE.length];
    const [low, mid, high] = [0, 1, 2].map((band) => track(view, metric, band, row, column));
    if (!mid.some(Number.isFinite)) return [];
    const edge = {
      type: "scatter", mode: "lines", x: data.steps, line: { width: 0 },
      hoverinfo: "skip", showlegend: false, legendgroup: view.name,
    };
    return [
      { ...edge, y: low },
      { ...edge, y: high, fill: "tonexty", fillcolor: colour + "33" },
      {
        type: "scatter", mode: frames <= FEW_FRAMES ? "lines+markers" : "lines",
        x: data.steps, y: mid, name: literal(view.name) || "median", legendgroup: view.name,
        line: { color: colour, width: index === state.view ? 3 : 1.8 },
        hovertemplate: "step %{x}: %{y:.4g}",
      },
    ];
  }

  function drawTrajectories() {
    const metric = data.metrics[state.metric], colours = theme(), { row, column } = state;
    const traces = data.steps ? views.flatMap(trajectoryTraces) : [];
    const empty = data.steps ? "no run to show: all diverged or none was run"
      : "only the last step was recorded";
    Plotly.react("trajectories", traces, layout(colours, {
      xaxis: { title: { text: "step" }, gridcolor: colours.line, zeroline: false },
      yaxis: {
        title: { text: literal(metric.label) }, type: state.log ? "log" : "linear",
        gridcolor: colours.line, zeroline: false, exponentformat: "power",
      },
      showlegend: views.length > 1,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      annotations: traces.length ? [] : [{
        text: empty, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5,
        font: { color: colours.soft },
      }],
      margin: { l: 64, r: 12, t: 26, b: 48 },
    }), config);
    const view = views[state.view];
    const middle = text(value(view, state.metric, median, row, column));
    document.getElementById("cell-title").textContent =
      `Trajectories at ${positionText(row, column)}`;
    document.getElementById("cell").textContent = prefixed(view,
      `median ${metric.label} at the last step: ${middle}; ${divergedText(view, row, column)}. ` +
      `Lines are medians, bands range from the 10 % to the 90 % quantile.${framesText()}`);
    fillTable(view, row, column);
  }

  function framesText() {
    if (data.recorded === 2)
      return " Only the first and the last step were recorded (record_every records more).";
    if (frames && frames < data.recorded)
      return ` This page contains ${frames} of ${data.recorded} recorded steps.`;
    return "";
  }

  function fillTable(view, row, column) {
    const head = data.levels.map((level) => quantileName(level).replace(" quantile", ""));
    document.querySelector("#numbers thead").replaceChildren(tableRow("th", ["", ...head]));
    const body = data.metrics.map((metric, index) => {
      const numbers = data.levels.map((_, level) => text(value(view, index, level, row, column)));
      const line = tableRow("td", [metric.label, ...numbers]);
      if (index === state.metric) line.className = "chosen";
      return line;
    });
    document.querySelector("#numbers tbody").replaceChildren(...body);
  }

  function tableRow(kind, words) {
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
    save();
  }
  function draw() { drawDiagram(); drawTrajectories(); save(); }

  // The fragment of the address holds the state, so that a link or a reload restores it.
  function save() {
    history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify(state)));
  }
  function restore() {
    try {
      const saved = JSON.parse(decodeURIComponent(location.hash.slice(1)));
      const valid = (n, end) => Number.isInteger(n) && n >= 0 && n < end;
      if (valid(saved.metric, data.metrics.length)) state.metric = saved.metric;
      if (valid(saved.view, views.length)) state.view = saved.view;
      if (valid(saved.row, rows)) state.row = saved.row;
      if (valid(saved.column, columns)) state.column = saved.column;
      const statistics = ["diverged", ...data.levels.map((_, i) => `q${i}`)];
      if (statistics.includes(saved.shown)) state.shown = saved.shown;
      const others = saved.others;
      if (Array.isArray(others) && others.length === data.others.length &&
          others.every((n, i) => valid(n, data.others[i].values.length))) state.others = others;
      state.log = saved.log === true;
    } catch { /* no fragment, or that of another page */ }
  }

  // Controls
  function select(id, label, options, selected, change) {
    const holder = document.createElement("label"), box = document.createElement("select");
    box.id = id;
    options.forEach(([key, words]) =>
      box.append(new Option(words, key, false, String(key) === String(selected))));
    box.addEventListener("change", () => { change(box.value); draw(); });
    holder.append(label, box);
    document.getElementById("controls").append(holder);
  }
  function controls() {
    const metrics = data.metrics.map((metric, i) => [i, metric.label]);
    select("metric", "metric", metrics, state.metric, (v) => { state.metric = Number(v); });
    if (views.length > 1) {
      const names = views.map((view, i) => [i, view.name]);
      select("view", "dataset", names, state.view, (v) => { state.view = Number(v); });
    }
    const statistics = data.levels.map((level, i) => [`q${i}`, quantileName(level)]);
    statistics.push(["diverged", "diverged fraction"]);
    select("shown", "statistic over seeds", statistics, state.shown, (v) => { state.shown = v; });
    data.others.forEach((axis, index) => {
      const values = axis.values.map((v, i) => [i, text(v)]);
      const change = (v) => { state.others[index] = Number(v); };
      select(`other-${axis.name}`, axis.label, values, state.others[index], change);
    });
    const holder = document.createElement("label"), box = document.createElement("input");
    holder.className = "check";
    Object.assign(box, { type: "checkbox", id: "log", checked: state.log });
    box.addEventListener("change", () => { state.log = box.checked; draw(); });
    holder.append(box, "logarithmic scale");
    const form = document.getElementById("controls");
    form.append(holder);
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  const moves = {
    ArrowLeft: () => choose(state.row, state.column - 1),
    ArrowRight: () => choose(state.row, state.column + 1),
    ArrowUp: () => choose(state.row + 1, state.column),
    ArrowDown: () => choose(state.row - 1, state.column),
    Home: () => choose(state.row, 0),
    End: () => choose(state.row, columns - 1),
    PageUp: () => choose(rows - 1, state.column),
    PageDown: () => choose(0, state.column),
  };

  restore();
  controls();
  draw();
  const diagram = document.getElementById("diagram");
  diagram.on("plotly_click", (event) => {
    const point = event.points[0];
    if (Array.isArray(point.pointNumber)) choose(...point.pointNumber);
    else choose(nearest(yEdges, point.y), nearest(xEdges, point.x));
  });
  diagram.addEventListener("keydown", (event) => {
    if (event.key in moves && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      moves[event.key]();
    }
  });
  dark.addEventListener("change", draw);
  document.documentElement.dataset.ready = "true";
})();
