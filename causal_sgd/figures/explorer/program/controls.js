// The controls above the diagram. They are made again when the axes have other roles.
function field(label, control) {
  return element("label", {}, label, control);
}

function menu(id, label, options, selected, change) {
  const box = element("select", { id });
  options.forEach(([key, words]) =>
    box.append(new Option(words, key, false, String(key) === String(selected))));
  box.addEventListener("change", () => { change(box.value); draw(true); });
  return field(label, box);
}

function check(id, label, name) {
  const box = element("input", { type: "checkbox", id, checked: state[name] });
  box.addEventListener("change", () => { state[name] = box.checked; draw(true); });
  return element("label", { className: "check" }, box, label);
}

// A slider over the values of an axis; dragging it is one step of the history.
function slider(id, k, index, change) {
  const shown = element("output", { textContent: valueName(axes[k], index) });
  const box = element("input", { type: "range", id, min: 0, max: sizes[k] - 1, step: 1 });
  box.value = index;
  box.setAttribute("aria-valuetext", valueText(k, index));
  box.addEventListener("input", () => {
    change(Number(box.value));
    shown.textContent = valueName(axes[k], Number(box.value));
    box.setAttribute("aria-valuetext", valueText(k, Number(box.value)));
    drawSoon();
  });
  box.addEventListener("change", () => draw(false));
  return field(axes[k].label, element("span", { className: "slider" }, box, shown));
}

const entries = (k) => axes[k].values.map((_, index) => [index, valueName(axes[k], index)]);

function axisMenus() {
  if (axes.length < 2) return [];
  const names = axes.map((axis, k) => [k, axis.label]);
  const vertical = [...names.filter(([k]) => isDiagram() || k !== state.x), [-1, "none: lines"]];
  return [
    menu("x", "horizontal axis", names, state.x, (k) => setAxis("x", Number(k))),
    menu("y", "vertical axis", vertical, state.y, (k) => setAxis("y", Number(k))),
  ];
}

function sliceMenus() {
  return restOf().filter((k) => k !== state.compare && sizes[k] > 1).map((k) => {
    const id = `at-${axes[k].name}`, change = (index) => { state.at[k] = Number(index); };
    return axes[k].numeric ? slider(id, k, state.at[k], change)
      : menu(id, axes[k].label, entries(k), state.at[k], change);
  });
}

function comparisonMenus() {
  const choices = restOf().filter((k) => sizes[k] > 1).map((k) => [k, axes[k].label]);
  if (metrics.length > 1) choices.push([METRIC, "metrics"]);
  if (!choices.length) return [];
  const set = (value) =>
    setComparison(value === "" ? null : value === METRIC ? METRIC : Number(value));
  const chosen = state.compare === null ? "" : state.compare;
  const made = [menu("compare", "compare", [["", "nothing"], ...choices], chosen, set)];
  const other = (index) => { state.other = Number(index); };
  if (state.compare === METRIC) {
    made.push(menu("b", "B", metrics.map((metric, i) => [i, metric.label]), state.other, other));
  } else if (state.compare !== null) {
    const k = state.compare, first = (index) => { state.at[k] = Number(index); };
    made.push(menu("a", "A", entries(k), state.at[k], first));
    made.push(menu("b", "B", entries(k), state.other, other));
  }
  if (state.compare !== null && isDiagram())
    made.push(check("difference", "difference", "difference"));
  return made;
}

function makeControls() {
  const form = document.getElementById("controls"), focused = document.activeElement?.id;
  const statistics = data.levels.map((level, i) => [i, levelName(level)]);
  statistics.push(["diverged", "diverged fraction"]);
  const list = metrics.map((metric, i) => [i, metric.label]);
  const first = state.compare === METRIC ? "A" : "metric";
  form.replaceChildren(
    menu("metric", first, list, state.metric, (v) => { state.metric = Number(v); }),
    menu("shown", "statistic over seeds", statistics, state.shown,
      (v) => { state.shown = v === "diverged" ? v : Number(v); }),
    ...axisMenus(), ...sliceMenus(), ...comparisonMenus(),
    check("log", "logarithmic scale", "log"),
    ...(isDiagram() && restOf().some((k) => sizes[k] > 1)
      ? [check("everywhere", "one scale for all slices", "everywhere")] : []),
    ...(isDiagram() && runs.includes(0) ? [check("merge", "fill cells not run", "merge")] : []),
  );
  if (focused) document.getElementById(focused)?.focus();
}
