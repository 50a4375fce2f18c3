// The address of the page holds the view in its fragment, by names and values, without defaults:
// #x=spread&y=mean&metric=batch_loss&at.spread=3&compare=method&with=irmv1
const PREFIX = "at."; // of the value on an axis
const FLAGS = ["log", "everywhere", "merge", "difference"];

const axisValue = (k, index) => String(axes[k].values[index]);

function addressOf(view) {
  const base = initial(), words = new URLSearchParams();
  const axisName = (k) => (k < 0 ? "" : axes[k].name);
  if (view.x !== base.x || view.y !== base.y) {
    words.set("x", axisName(view.x));
    words.set("y", axisName(view.y));
  }
  if (view.metric !== base.metric) words.set("metric", metrics[view.metric].name);
  if (view.shown !== base.shown)
    words.set("show", view.shown === "diverged" ? "diverged" : data.levels[view.shown]);
  for (const flag of FLAGS) if (view[flag] !== base[flag]) words.set(flag, view[flag] ? "1" : "0");
  if (view.compare === METRIC) words.set("with-metric", metrics[view.other].name);
  else if (view.compare !== null) {
    words.set("compare", axes[view.compare].name);
    words.set("with", axisValue(view.compare, view.other));
  }
  view.at.forEach((index, k) => {
    if (index !== base.at[k]) words.set(PREFIX + axes[k].name, axisValue(k, index));
  });
  return words.toString() ? `#${words}` : "";
}

// The view of an address, and what of it was not understood.
function viewOf(address) {
  const view = initial(), ignored = [];
  const words = new URLSearchParams(address.replace(/^#/, ""));
  const look = (list, wanted, apply, key) => {
    const index = list.indexOf(wanted);
    if (index < 0) ignored.push(`${key}=${wanted}`); else apply(index);
  };
  const names = axes.map((axis) => axis.name), labels = metrics.map((metric) => metric.name);
  const valueIn = (k, value) => axes[k].values.map(String).indexOf(value);
  for (const [key, value] of words) {
    if (key === "x") look(names, value, (k) => { view.x = k; }, key);
    else if (key === "y" && value === "") view.y = -1;
    else if (key === "y") look(names, value, (k) => { view.y = k; }, key);
    else if (key === "metric") look(labels, value, (index) => { view.metric = index; }, key);
    else if (key === "show" && value === "diverged") view.shown = value;
    else if (key === "show")
      look(data.levels.map(String), value, (index) => { view.shown = index; }, key);
    else if (FLAGS.includes(key) && (value === "1" || value === "0")) view[key] = value === "1";
    else if (key === "with-metric")
      look(labels, value, (index) => { view.compare = METRIC; view.other = index; }, key);
    else if (key === "compare") look(names, value, (k) => { view.compare = k; }, key);
    else if (key === "with") continue; // below, where its axis is known
    else if (names.includes(key.slice(PREFIX.length)) && key.startsWith(PREFIX)) {
      const k = names.indexOf(key.slice(PREFIX.length)), index = valueIn(k, value);
      if (index < 0) ignored.push(`${key}=${value}`); else view.at[k] = index;
    } else ignored.push(value ? `${key}=${value}` : key);
  }
  if (view.x === view.y) {
    ignored.push("x and y, which are the same axis");
    Object.assign(view, { x: initial().x, y: initial().y });
  }
  finishComparison(view, words.get("with"), ignored);
  return { view, ignored };
}

function finishComparison(view, other, ignored) {
  const { compare } = view;
  if (typeof compare !== "number") {
    if (other !== null) ignored.push(`with=${other}`);
    return;
  }
  const index = axes[compare].values.map(String).indexOf(other);
  if (index >= 0 && compare !== view.x && compare !== view.y) { view.other = index; return; }
  ignored.push(`compare=${axes[compare].name}`);
  view.compare = null;
}

// Deliberate changes are steps of the history; moves of the cursor and of sliders replace the
// present step, a little later, since browsers limit how often they may.
let pending = null;
function settle() {
  clearTimeout(pending);
  pending = null;
  const address = addressOf(state);
  if (address !== location.hash) history.replaceState(null, "", address || "#");
}
function save(step) {
  if (!step) {
    pending ??= setTimeout(settle, 250);
    return;
  }
  clearTimeout(pending);
  pending = null;
  const address = addressOf(state);
  if (address !== location.hash) history.pushState(null, "", address || "#");
}

// Show the view of the address; what it does not name is as at first.
function restore() {
  clearTimeout(pending);
  pending = null;
  const { view, ignored } = viewOf(location.hash);
  Object.assign(state, view);
  note(ignored.length
    ? `Ignored in the address, because it does not fit this page: ${ignored.join("; ")}.` : "");
}
