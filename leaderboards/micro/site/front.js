"use strict";
// The main table of the front page. The parts are in texts.js, columns.js, filters.js and comparison.js; board.js calls
// rbaBoard with what the table shows at first, and files of site/settings/ call rbaSetting with the rest, when it is asked
// for. Texts of others reach the page as text nodes only.
(function () {
  const LONG = 60; // letters of a name that may be cut where it is shown
  const STEP = 50; // rows that are added at a time
  const { element, load } = window.rbaParts;
  const { breakable } = window.rbaTexts;
  const [form, holder, more, count, comparison] =
    ["controls", "board", "more", "count", "comparison"].map((id) => document.getElementById(id));
  const details = new Map(); // by section: a promise of what `rbaSetting` is called with
  const arrived = new Map();
  let board = null; // what `rbaBoard` was called with, and scores and origins of each setting by model
  let filters = null;
  let shown = STEP;
  let drawing = 0; // of several drawings that wait for data, only the last one counts

  window.rbaBoard = function (data) {
    board = {
      ...data,
      scores: data.settings.map((setting) => new Map(setting.scores.map((row) => [row[0], row]))),
      origins: data.settings.map((setting) =>
        new Map(setting.scores.map((row, i) => [row[0], data.provenances[setting.provenance[i]]]))),
    };
    filters = window.rbaFilters(board, form, window.rbaColumns.shows(board), (anew) => {
      if (anew) shown = STEP;
      draw();
    });
    filters.start();
  };

  window.rbaSetting = (section, content) =>
    arrived.set(section, { rows: new Map(content.rows.map((row) => [row.model, row])), pairs: content.pairs });

  function detailsOf(place) {
    const section = board.settings[place].section;
    if (!details.has(section)) {
      details.set(section, new Promise((resolve) => {
        load("site/settings/" + encodeURIComponent(section) + ".js", () => {
          details.delete(section);
          resolve(null);
        }, () => resolve(arrived.get(section) ?? null));
      }));
    }
    return details.get(section);
  }

  // By name; where one setting is shown, as it ranks them: models, then references, each by score.
  function inOrder(models, places) {
    if (places.length !== 1) return models;
    const order = new Map(board.settings[places[0]].scores.map((row, place) => [row[0], place]));
    return [...models].sort((a, b) => order.get(a) - order.get(b));
  }

  function sorted(models, columns) {
    const { sort, order } = filters.state;
    const column = [columns.model, ...columns.list].find((each) => each.key === sort);
    if (!column) return models;
    const sign = order === "ascending" ? 1 : -1;
    const keys = new Map(models.map((model) => [model, column.cell(model).sort]));
    return [...models].sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x === null || y === null) return (x === null) - (y === null); // unknown ones last, equal ones as they were
      return sign * (typeof x === "string" ? (x < y ? -1 : x > y ? 1 : 0) : x - y);
    });
  }

  function headCell(column) {
    const { sort, order } = filters.state, active = sort === column.key;
    const arrow = active ? (order === "ascending" ? " \u2191" : " \u2193") : "";
    const button = element("button", { type: "button", class: "sort", "data-sort": column.key },
      element("span", {}, ...breakable(column.title), arrow ? element("span", { "aria-hidden": "true" }, arrow) : ""));
    button.addEventListener("click", () => {
      const first = column.lower ? "ascending" : "descending"; // the best first
      const other = first === "ascending" ? "descending" : "ascending";
      filters.change({ sort: column.key, order: active && filters.state.order === first ? other : first });
      holder.querySelector(`button[data-sort="${CSS.escape(column.key)}"]`)?.focus();
    });
    return element("th", { scope: "col", "aria-sort": active ? order : null, class: ["model", "provenance"].includes(column.key) ? "text" : null },
      button, column.metric ? element("span", { class: "ends" }, column.metric) : null);
  }

  function modelCell(model, badge) {
    const each = board.models[model];
    const box = element("input", { type: "checkbox", "aria-label": "Compare " + each.label, "data-model": model });
    box.checked = filters.state.compare.includes(each.label);
    box.addEventListener("change", () => {
      const others = filters.state.compare.filter((label) => label !== each.label);
      filters.change({ compare: box.checked ? [...others.slice(-1), each.label] : others });
      holder.querySelector(`input[data-model="${model}"]`)?.focus();
    });
    const label = element("span", each.label.length > LONG ? { class: "label clamped", title: each.label } : { class: "label" }, each.label);
    return element("th", { scope: "row" }, element("span", { class: "name" }, box, label),
      element("span", { class: "tags" }, element("span", { class: "badge" }, each.type), " ", badge));
  }

  function row(model, columns) {
    return element("tr", {}, modelCell(model, columns.badge(model)), ...columns.list.map((column) => {
      const { parts, attributes } = column.cell(model);
      return element("td", attributes, ...parts);
    }));
  }

  async function draw() {
    const turn = ++drawing;
    const places = filters.settings();
    const loaded = places.length === 1 || filters.state.show !== "scores" ? await Promise.all(places.map(detailsOf)) : [];
    if (turn !== drawing) return;
    form.elements.show.closest("label").hidden = places.length === 1; // one setting shows everything
    const columns = window.rbaColumns.columns(board, filters, places, loaded);
    const models = sorted(inOrder(filters.models(places), places), columns);
    const head = element("tr", {}, headCell(columns.model), ...columns.list.map(headCell));
    holder.replaceChildren(element("table", {}, element("thead", {}, head),
      element("tbody", {}, ...models.slice(0, shown).map((model) => row(model, columns)))));
    const missing = loaded.some((each) => each === null) ? " Files of site/settings/ are missing." : "";
    count.textContent = `${models.length} of ${board.models.length} rows, ${places.length} of ${board.settings.length} ` +
      `columns of scores.${board.models.length > 1 ? " Tick two models to compare them." : ""}${missing}`;
    more.hidden = models.length <= shown;
    more.textContent = `Show ${Math.min(STEP, models.length - shown)} more of ${models.length} rows`;
    await compare(places, turn);
  }

  async function compare(places, turn) {
    const pair = filters.state.compare.map((label) => board.models.findIndex((model) => model.label === label)).filter((i) => i >= 0);
    comparison.hidden = pair.length !== 2;
    if (comparison.hidden) return comparison.replaceChildren();
    const both = places.filter((place) => pair.every((model) => board.scores[place].has(model)));
    const loaded = await Promise.all(both.map(detailsOf));
    if (turn === drawing) comparison.replaceChildren(...window.rbaComparison(board, pair, both, loaded));
  }

  more.addEventListener("click", () => {
    const before = shown;
    shown += STEP;
    draw().then(() => holder.querySelectorAll("tbody input")[before]?.focus());
  });
  document.addEventListener("DOMContentLoaded", () => {
    if (!board) count.textContent = "The table of scores lacks its file, site/board.js; all numbers stand in index.md.";
  });
})();
