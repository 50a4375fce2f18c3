
// Filter studies and claims by the words in the search box; the address keeps them, as #q=words.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const bar = byId("search"), box = byId("query"), count = byId("count");

  const plain = (text) => text.normalize("NFKC").toLowerCase().replaceAll("\u2212", "-").replace(/\s+/g, " ");
  const groupTitle = (article) => article.closest(".group").querySelector("h2").textContent;

  // A study, with what names it, what else is said of it, and its claims and findings.
  const studies = all("article").map((article) => ({
    article,
    name: plain([".kicker", "h3"].map((part) => article.querySelector(part).textContent).join(" ") + " " + groupTitle(article)),
    prose: plain(article.querySelector(".finding").textContent),
    rows: all("tr[data-row]", article).map((row) => ({
      row,
      text: plain(row.textContent + " " + row.dataset.row),
      judged: row.closest(".findings") === null,
    })),
  }));
  const articles = new Map(studies.map((study) => [study.article.id, study]));
  // Studies that have not run have a line, but no article.
  const absent = all("tr[data-of]").filter((row) => !articles.has(row.dataset.of) && row.closest("#contents"));
  const total = { studies: studies.length, claims: studies.flatMap((study) => study.rows).filter((one) => one.judged).length };

  const counted = (number, one, several) => `${number} ${number === 1 ? one : several}`;

  function filter() {
    const words = plain(box.value).split(" ").filter(Boolean);
    const has = (text) => words.every((word) => text.includes(word));
    const names = new Set(absent.filter((row) => has(plain(row.textContent))).map((row) => row.dataset.of));
    const shown = { studies: 0, claims: 0 };
    for (const { article, name, prose, rows } of studies) {
      const whole = has(`${name} ${prose}`);
      let found = 0;
      for (const { row, text, judged } of rows) {
        row.hidden = !(whole || has(`${name} ${text}`));
        found += !row.hidden;
        shown.claims += !row.hidden && judged;
      }
      for (const table of all("table", article)) {
        table.hidden = table.querySelector("tbody tr:not([hidden])") === null;
      }
      article.hidden = !(whole || found);
      article.classList.toggle("narrowed", found > 0 && found < rows.length);
      if (!article.hidden) {
        shown.studies += 1;
        names.add(article.id);
      }
    }
    for (const line of all("[data-of]")) {
      const { of, row } = line.dataset;
      const claim = row && articles.get(of).rows.find((one) => one.row.dataset.row === row);
      line.hidden = !names.has(of) || Boolean(claim?.row.hidden);
    }
    for (const part of all(".contents tbody, .listed, .listed table, .listed ul, .group")) {
      const lines = all("[data-of], article", part);
      part.hidden = lines.every((line) => line.hidden);
    }
    const numbers = `${shown.studies} of ${counted(total.studies, "study", "studies")}, ` +
      `${shown.claims} of ${counted(total.claims, "claim", "claims")}`;
    count.textContent = words.length === 0 ? "" : names.size ? numbers : "Nothing matches. Esc clears the search.";
  }

  function keep(place = "") {
    const parts = new URLSearchParams();
    if (box.value.trim()) {
      parts.set("q", box.value.trim());
      if (place) parts.set("at", place);
    }
    const hash = parts.size ? `#${parts}` : place ? `#${place}` : "";
    history.replaceState(null, "", hash || location.pathname + location.search);
  }

  function clear() {
    box.value = "";
    filter();
  }

  // The address was opened, edited, or changed by a link inside the page.
  function follow() {
    const hash = location.hash.slice(1);
    const parts = new URLSearchParams(hash);
    if (parts.has("q")) {
      box.value = parts.get("q");
      filter();
      byId(parts.get("at"))?.scrollIntoView();
    } else if (!hash) {
      clear();
    } else {
      const place = byId(hash);
      if (place?.closest("[hidden]")) clear(); // a link leads to what it names
      place?.scrollIntoView();
      keep(hash);
    }
  }

  bar.hidden = byId("keys").hidden = false;
  let waiting;
  box.addEventListener("input", () => {
    filter();
    clearTimeout(waiting); // browsers limit how often the address changes
    waiting = setTimeout(keep, 150);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.preventDefault();
      clearTimeout(waiting);
      clear();
      keep();
    } else if (event.key === "Enter") {
      const first = studies.find((study) => !study.article.hidden)?.article;
      first?.scrollIntoView();
      first?.focus({ preventScroll: true });
    }
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, [contenteditable]");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  });
  addEventListener("hashchange", follow);
  follow();
  document.documentElement.dataset.ready = "true";
})();
