"use strict";
// The main table of the front page: filters, search, sorting, and the comparison of two models. What is chosen stands in
// the address. Texts of others reach the page as text nodes only.
(function () {
  const LONG = 60; // letters of a name that may be cut where it is shown
  const STEP = 50; // rows that are added at a time
  const SVG = "http://www.w3.org/2000/svg";
  const SHOWS = {
    scores: "scores and ranks", differences: "differences from the baseline", gaps: "gap to the text ceiling",
    failures: "not ok", speed: "speed (RTFx)", size: "parameters",
  };
  const VERDICTS = { "1": "better", "-1": "worse", "0": "not told apart" };
  const board = JSON.parse(document.getElementById("data").textContent);
  const [form, holder, more, count, comparison] =
    ["controls", "board", "more", "count", "comparison"].map((id) => document.getElementById(id));
  const defaults = { q: "", track: "", setting: "", decoding: "", type: "", provenance: "", show: "scores", sort: "", order: "" };
  const details = new Map(); // by section: a promise of what `rbaSetting` is called with
  const arrived = new Map();
  const scores = board.settings.map((setting) => new Map(setting.scores.map((row) => [row[0], row])));
  const origins = board.settings.map((setting) =>
    new Map(setting.scores.map((row, i) => [row[0], board.provenances[setting.provenance[i]]])));
  let state = { ...defaults, compare: [] };
  let shown = STEP;
  let rowOrigins = new Map(); // by model, of the table that is being drawn
  let drawing = 0; // of several drawings that wait for data, only the last one counts

  window.rbaSetting = (section, content) => arrived.set(section, content);

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  function load(setting) {
    const section = setting.section;
    if (!details.has(section)) {
      details.set(section, new Promise((resolve) => {
        const script = element("script", { src: "site/settings/" + encodeURIComponent(section) + ".js" });
        script.addEventListener("load", () => resolve(arrived.has(section) ? byModel(arrived.get(section)) : null));
        script.addEventListener("error", () => {
          details.delete(section);
          resolve(null);
        });
        document.head.append(script);
      }));
    }
    return details.get(section);
  }

  function byModel(content) {
    return { rows: new Map(content.rows.map((row) => [row.model, row])), pairs: content.pairs };
  }

  // Numbers.

  function number(value, digits, signed) {
    const text = Math.abs(value).toFixed(digits);
    const sign = Number(text) === 0 ? "" : value < 0 ? "\u2212" : signed ? "+" : "";
    return sign + text;
  }

  function interval(ends, digits, signed) {
    const [value, low, high] = ends.slice(0, 3).map((end) => number(end, digits, signed));
    return [value, "[" + low + ", " + high + "]"];
  }

  function band(best, worst) {
    return best === worst ? String(best) : best + "\u2013" + worst;
  }

  // Columns: a heading, and for each model what stands in the cell and what it is sorted by.

  function cell(parts, sort, attributes = {}) {
    return { parts, sort, attributes };
  }

  const NOTHING = cell(["\u2013"], null, { class: "none" });

  function scoreCell(place, model) {
    const setting = board.settings[place], row = scores[place].get(model);
    if (!row) return NOTHING;
    const [value, ends] = interval(row.slice(1, 4), setting.digits, false);
    const rank = row.length > 4 ? element("span", { class: "rank" }, hidden("rank "), band(row[4], row[5])) : null;
    const label = board.models[model].label;
    const main = setting.samples
      ? element("a", { href: sampleAddress(setting, [label]), title: "Answers of " + label }, value)
      : element("b", {}, value);
    const partial = setting.partial.includes(model) ? element("span", { class: "badge bad" }, "partial") : null;
    const without = setting.speechless[model] ?? null; // the best score of a control
    const speechless = without === null ? null : element("span", { class: "ends" }, "no speech: " + number(without, setting.digits));
    return cell([rank, partial, main, element("span", { class: "ends" }, ends), speechless], row[1]);
  }

  // Where a score comes from: a label and the facts behind it. A row has the weakest label of the scores that it shows.

  function originOf(place, model) {
    return origins[place].get(model);
  }

  function has(place, model) {
    return scores[place].has(model) && (!state.provenance || originOf(place, model)[0] === state.provenance);
  }

  function rowOrigin(model) {
    if (!rowOrigins.has(model)) {
      const found = chosenSettings().filter((place) => has(place, model)).map((place) => originOf(place, model));
      const label = board.trust.find((each) => found.some((origin) => origin[0] === each));
      const same = found.filter((origin) => origin[0] === label), facts = [...new Set(same.map((origin) => origin[1]))];
      const share = found.length > 1 ? `${same.length} of ${found.length} scores: ` : "";
      rowOrigins.set(model, [label, share + (facts.length === 1 ? facts[0] : `each with facts of its own`)]);
    }
    return rowOrigins.get(model);
  }

  function badge([label, facts]) {
    return element("span", { class: label === board.trust.at(-1) ? "badge good" : "badge", title: facts }, label);
  }

  // A score whose provenance is not that of its row says so.
  function withOrigin(made, place, model) {
    const origin = originOf(place, model);
    if (origin[0] !== rowOrigin(model)[0]) made.parts.push(element("span", { class: "ends" }, badge(origin)));
    return made;
  }

  function originCell(place, model, file) {
    const [label, facts] = originOf(place, model);
    const name = file ? element("a", { href: address(file) }, label) : label;
    return cell([name, element("span", { class: "ends facts" }, facts)], board.trust.indexOf(label), { class: "text" });
  }

  function address(path) {
    return path.split("/").map(encodeURIComponent).join("/");
  }

  function sampleAddress(setting, labels) {
    return "samples/" + encodeURIComponent(setting.section) + "/index.html#models=" + labels.map(encodeURIComponent).join(",");
  }

  function breakable(text) {
    return text.split(/(?<=_)/).flatMap((part, i) => (i ? [element("wbr", {}), part] : [part]));
  }

  function hidden(text) {
    return element("span", { class: "hidden" }, text);
  }

  function differenceCell(setting, gap) {
    if (!gap) return NOTHING;
    const [value, ends] = interval(gap, setting.digits, true);
    const mark = gap[3] ? element("span", { class: "told" }, "*", hidden(" " + VERDICTS[gap[3]])) : null;
    return cell([element("b", {}, value), mark, element("span", { class: "ends" }, ends)], gap[0]);
  }

  function failuresCell(row) {
    const total = Object.values(row.failures).reduce((sum, n) => sum + n, 0);
    const reasons = Object.entries(row.failures).map(([status, n]) => status + " " + n).join(", ");
    const share = total ? number((100 * total) / row.items, 1) + " %" : "0";
    return cell([element("b", {}, share), reasons ? element("span", { class: "ends" }, reasons) : null], total / row.items);
  }

  function textCell(text) {
    return cell([text], text, { class: "text" });
  }

  function retainedCell(row, control) {
    if (!(control in row.retained)) return NOTHING;
    const [value, ends] = interval(row.retained[control], 1, false);
    return cell([element("b", {}, value + " %"), element("span", { class: "ends" }, ends)], row.retained[control][0]);
  }

  function size(parameters) {
    for (const [unit, amount] of [["B", 1e9], ["M", 1e6], ["k", 1e3]]) {
      if (parameters >= amount * 0.9995) return Number((parameters / amount).toPrecision(3)) + "\u00a0" + unit;
    }
    return String(parameters);
  }

  function sizeCell(row) {
    if (row.size === null) return NOTHING;
    const parts = row.parts.map(([name, parameters]) => name + " " + size(parameters)).join(" + ");
    return cell([element("b", {}, size(row.size)), parts ? element("span", { class: "ends" }, parts) : null], row.size);
  }

  const CONTROLS = [...new Set(board.settings.flatMap((setting) => setting.controls))];

  const SHOW_NAMES = new Map([...Object.entries(SHOWS),
    ...CONTROLS.map((control) => ["retained " + control, "retained without the speech: " + control])]);

  const DETAILED = {
    ...Object.fromEntries(CONTROLS.map((control) => ["retained " + control, (setting, row) => retainedCell(row, control)])),
    differences: (setting, row) => (row.baseline ? cell(["baseline"], 0, { class: "none" }) : differenceCell(setting, row.versus)),
    gaps: (setting, row) => ({ ...differenceCell(setting, row.gap), attributes: row.ceiling ? { title: "from " + row.ceiling } : {} }),
    failures: (setting, row) => failuresCell(row),
    speed: (setting, row) => (row.rtfx === null ? NOTHING : cell([String(row.rtfx)], row.rtfx)),
    size: (setting, row) => sizeCell(row),
  };

  function heading(setting, kind) {
    const ofScore = kind === "scores" || kind === "differences" || kind === "gaps";
    const lower = kind === "gaps" ? !setting.lower : ofScore ? setting.lower : kind !== "speed";
    return { title: setting.title, metric: ofScore ? setting.metric + (setting.lower ? ", lower is better" : "") : SHOW_NAMES.get(kind), lower };
  }

  function columnsOf(places, loaded) {
    if (places.length === 1) return oneSetting(places[0], loaded[0]);
    return places.map((place, order) => {
      const setting = board.settings[place];
      return {
        key: setting.section, ...heading(setting, state.show),
        cell: (model) => {
          if (!has(place, model)) return NOTHING;
          if (state.show === "scores") return withOrigin(scoreCell(place, model), place, model);
          const row = loaded[order]?.rows.get(model);
          return row ? DETAILED[state.show](setting, row) : NOTHING;
        },
      };
    });
  }

  function oneSetting(place, loaded) {
    const setting = board.settings[place];
    const column = (key, title, make, lower = false, metric = "") => ({
      key, title, metric, lower,
      cell: (model) => {
        const row = loaded?.rows.get(model);
        return row ? make(row) : NOTHING;
      },
    });
    const items = (row) => cell([row.missing ? row.n + " (\u2212" + row.missing + ")" : String(row.n)], row.n);
    return [
      { key: "score", title: "score", metric: setting.metric, lower: setting.lower, cell: (model) => scoreCell(place, model) },
      column("n", "n", items),
      column("versus", "against " + board.baseline, (row) => DETAILED.differences(setting, row), setting.lower),
      column("gap", "gap to the text ceiling", (row) => DETAILED.gaps(setting, row), !setting.lower, "ceiling minus row"),
      ...setting.controls.map((control) =>
        column("retained " + control, "retained, " + control, (row) => retainedCell(row, control), true, "share of the score without the speech")),
      column("failures", "not ok", failuresCell, true),
      column("speed", "RTFx", (row) => DETAILED.speed(setting, row)),
      column("size", "parameters", sizeCell, true),
      column("judge", "judge", () => textCell(setting.judge || "none")),
      column("provenance", "provenance", (row) => originCell(place, row.model, row.attestation)),
      column("date", "date", (row) => textCell(row.date)),
      column("weights", "weights", (row) => cell([element("a", { href: address(row.run) }, row.weights)], row.weights, { class: "text" })),
    ];
  }

  // Rows and columns that the filters leave.

  function chosenSettings() {
    return board.settings.map((_, place) => place).filter((place) => {
      const setting = board.settings[place];
      return (!state.track || setting.track === state.track) && (!state.setting || setting.section === state.setting) &&
        (!state.decoding || setting.decoding === state.decoding);
    });
  }

  function chosenModels(places) {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    return board.models.map((_, model) => model).filter((model) => {
      const each = board.models[model], text = (each.label + " " + each.type).toLowerCase();
      return words.every((word) => text.includes(word)) && (!state.type || each.type === state.type) &&
        places.some((place) => has(place, model));
    });
  }

  // By name; where one setting is shown, as it ranks them: models, then references, each by score.
  function inOrder(models, places) {
    if (places.length !== 1) return models;
    const order = new Map(board.settings[places[0]].scores.map((row, place) => [row[0], place]));
    return [...models].sort((a, b) => order.get(a) - order.get(b));
  }

  function sorted(models, columns) {
    const column = columns.find((each) => each.key === state.sort) ?? (state.sort === "model" ? MODEL : null);
    if (!column) return models;
    const sign = state.order === "ascending" ? 1 : -1;
    const keys = new Map(models.map((model) => [model, column.cell(model).sort]));
    return [...models].sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x === null || y === null) return (x === null) - (y === null); // unknown ones last, equal ones as they were
      const order = typeof x === "string" ? (x < y ? -1 : x > y ? 1 : 0) : x - y;
      return sign * order;
    });
  }

  const MODEL = { key: "model", title: "model", metric: "", lower: true, cell: (model) => textCell(board.models[model].label) };

  // The table.

  function headCell(column) {
    const active = state.sort === column.key;
    const arrow = active ? (state.order === "ascending" ? " \u2191" : " \u2193") : "";
    const button = element("button", { type: "button", class: "sort", "data-sort": column.key },
      element("span", {}, ...breakable(column.title), arrow ? element("span", { "aria-hidden": "true" }, arrow) : ""));
    button.addEventListener("click", () => {
      const first = column.lower ? "ascending" : "descending"; // the best first
      const other = first === "ascending" ? "descending" : "ascending";
      change({ sort: column.key, order: active && state.order === first ? other : first });
      holder.querySelector(`button[data-sort="${CSS.escape(column.key)}"]`)?.focus();
    });
    return element("th", { scope: "col", "aria-sort": active ? state.order : null, class: ["model", "provenance"].includes(column.key) ? "text" : null },
      button, column.metric ? element("span", { class: "ends" }, column.metric) : null);
  }

  function modelCell(model) {
    const each = board.models[model], long = each.label.length > LONG;
    const box = element("input", { type: "checkbox", "aria-label": "Compare " + each.label, "data-model": model });
    box.checked = state.compare.includes(each.label);
    box.addEventListener("change", () => {
      const others = state.compare.filter((label) => label !== each.label);
      change({ compare: box.checked ? [...others.slice(-1), each.label] : others });
      holder.querySelector(`input[data-model="${model}"]`)?.focus();
    });
    return element("th", { scope: "row" }, element("span", { class: "name" }, box, element("span", long ? { class: "label clamped", title: each.label } : { class: "label" }, each.label)),
      element("span", { class: "tags" }, element("span", { class: "badge" }, each.type), " ",
        badge(rowOrigin(model))));
  }

  async function draw() {
    rowOrigins = new Map();
    const turn = ++drawing;
    const places = chosenSettings();
    const loaded = places.length === 1 || state.show !== "scores" ? await Promise.all(places.map((place) => load(board.settings[place]))) : [];
    if (turn !== drawing) return;
    form.elements.show.closest("label").hidden = places.length === 1; // one setting shows everything
    const columns = columnsOf(places, loaded);
    const models = sorted(inOrder(chosenModels(places), places), columns);
    const head = element("tr", {}, headCell(MODEL), ...columns.map(headCell));
    const body = element("tbody", {}, ...models.slice(0, shown).map((model) => element("tr", {}, modelCell(model),
      ...columns.map((column) => {
        const { parts, attributes } = column.cell(model);
        return element("td", attributes, ...parts);
      }))));
    holder.replaceChildren(element("table", {}, element("thead", {}, head), body));
    const missing = loaded.some((each) => each === null) ? " Files of site/settings/ are missing." : "";
    count.textContent = `${models.length} of ${board.models.length} rows, ${places.length} of ${board.settings.length} ` +
      `columns of scores.${board.models.length > 1 ? " Tick two models to compare them." : ""}${missing}`;
    more.hidden = models.length <= shown;
    more.textContent = `Show ${Math.min(STEP, models.length - shown)} more of ${models.length} rows`;
    await compare(places, turn);
  }

  // The comparison of two models.

  function difference(setting, loaded, a, b) {
    for (const [first, second, value, low, high, mark] of loaded.pairs) {
      if (first === a && second === b) return [value, low, high, mark];
      if (first === b && second === a) return [-value, -high, -low, -mark];
    }
    const [left, right] = [loaded.rows.get(a), loaded.rows.get(b)];
    if ([...loaded.rows.values()].filter((row) => row.baseline).length !== 1) return null; // which one, is not known
    if (right?.baseline && left?.versus) return left.versus;
    if (left?.baseline && right?.versus) return right.versus.map((_, i) => -right.versus[[0, 2, 1, 3][i]]);
    return null;
  }

  function mark(gap, setting, reach) {
    const place = (value) => (50 + 50 * Math.max(-1, Math.min(1, ((setting.lower ? -1 : 1) * value) / reach))).toFixed(1) + "%";
    const kind = gap[3] > 0 ? "better" : gap[3] < 0 ? "worse" : "open";
    const drawn = document.createElementNS(SVG, "svg");
    drawn.setAttribute("class", "interval");
    drawn.setAttribute("aria-hidden", "true");
    for (const [tag, attributes] of [
      ["line", { class: "zero", x1: "50%", x2: "50%", y1: "0", y2: "100%" }],
      ["line", { class: "range " + kind, x1: place(gap[1]), x2: place(gap[2]), y1: "50%", y2: "50%" }],
      ["circle", { class: "point " + kind, cx: place(gap[0]), cy: "50%", r: gap[3] ? "4" : "3.5" }],
    ]) {
      const made = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      drawn.append(made);
    }
    return drawn;
  }

  function comparedRow(place, loaded, a, b, reach) {
    const setting = board.settings[place];
    const texts = [a, b].map((model) => {
      const row = scores[place].get(model);
      return row ? number(row[1], setting.digits) : "\u2013";
    });
    const gap = loaded && difference(setting, loaded, a, b);
    const title = setting.samples
      ? [element("a", { href: sampleAddress(setting, [a, b].map((model) => board.models[model].label)) }, ...breakable(setting.title))]
      : breakable(setting.title);
    return element("tr", {}, element("th", { scope: "row" }, ...title, element("span", { class: "ends" }, heading(setting, "scores").metric)),
      element("td", {}, texts[0]), element("td", {}, texts[1]),
      element("td", { class: "plot" }, ...(gap ? [mark(gap, setting, reach)] : [])),
      element("td", {}, gap ? interval(gap, setting.digits, true).join(" ") : "\u2013"),
      element("td", { class: "text verdict" }, gap ? VERDICTS[gap[3]] : "not known here"));
  }

  async function compare(places, turn) {
    const chosen = state.compare.map((label) => board.models.findIndex((model) => model.label === label)).filter((i) => i >= 0);
    comparison.hidden = chosen.length !== 2;
    if (comparison.hidden) return comparison.replaceChildren();
    const [a, b] = chosen, [A, B] = [board.models[a], board.models[b]];
    const both = places.filter((place) => scores[place].has(a) && scores[place].has(b));
    const loaded = await Promise.all(both.map((place) => load(board.settings[place])));
    if (turn !== drawing) return;
    const gaps = both.map((place, i) => loaded[i] && difference(board.settings[place], loaded[i], a, b)).filter(Boolean);
    const reach = Math.max(1, ...gaps.flatMap((gap) => gap.slice(1, 3).map(Math.abs)));
    const better = gaps.filter((gap) => gap[3] > 0).length, worse = gaps.filter((gap) => gap[3] < 0).length;
    const head = ["", A.label, B.label, "", "difference, 95 %", A.label + " is"].map((text, i) =>
      element("th", { scope: "col", class: i === 5 ? "text" : i === 3 ? "plot" : null }, i === 0 ? hidden("setting") : i === 3 ? hidden("interval") : text));
    const command = `rba-bench compare ${A.folder} ${B.folder}`;
    comparison.replaceChildren(
      element("h3", {}, A.label + " minus " + B.label),
      element("p", { class: "soft" }, gaps.length
        ? `Of ${gaps.length} paired differences, ${better} are for the better and ${worse} for the worse; each is tested for itself. Right of the line, ${A.label} is better. `
        : both.length ? "This page holds no differences of these two. " : "The two have no setting in common. ",
      both.length ? "In the folder of this board: " : "", both.length ? element("code", {}, command) : ""),
      element("div", { class: "scroll forest compared", tabindex: "0", role: "region", "aria-label": "Differences" },
        element("table", {}, element("thead", {}, element("tr", {}, ...head)),
          element("tbody", {}, ...both.map((place, i) => comparedRow(place, loaded[i], a, b, reach))))));
  }

  // Controls and the address.

  function fill(name, choices, all) {
    const select = form.elements[name];
    const options = choices.length > 1 && all ? [["", all], ...choices] : choices;
    select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    select.disabled = options.length < 2;
    select.closest("label").hidden = select.disabled; // nothing to choose
  }

  function distinct(values) {
    return [...new Set(values)].sort().map((value) => [value, value]);
  }

  function readAddress() {
    const text = location.hash.slice(1);
    if (text && !text.includes("=")) return; // a place on the page
    const asked = new URLSearchParams(text);
    state = { ...defaults, compare: asked.getAll("compare").slice(0, 2) };
    for (const name of Object.keys(defaults)) if (asked.has(name)) state[name] = asked.get(name);
    for (const name of ["track", "setting", "decoding", "type", "provenance", "show"]) {
      const choices = [...form.elements[name].options].map((option) => option.value);
      if (!choices.includes(state[name])) state[name] = choices.includes(defaults[name]) ? defaults[name] : choices[0];
    }
    if (!["ascending", "descending"].includes(state.order)) state.order = state.sort ? "descending" : "";
    for (const name of ["q", "track", "setting", "decoding", "type", "provenance", "show"]) form.elements[name].value = state[name];
    shown = STEP;
    draw();
  }

  function writeAddress() {
    const asked = new URLSearchParams();
    const only = (name) => form.elements[name]?.options?.length === 1;
    for (const [name, value] of Object.entries(defaults)) if (state[name] !== value && !only(name)) asked.set(name, state[name]);
    for (const label of state.compare) asked.append("compare", label);
    const text = asked.toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  }

  function change(changes) {
    Object.assign(state, changes);
    writeAddress();
    draw();
  }

  fill("track", distinct(board.settings.map((setting) => setting.track)), "all");
  fill("setting", board.settings.map((setting) => [setting.section, setting.title]), "all");
  fill("decoding", distinct(board.settings.map((setting) => setting.decoding)), "all");
  fill("type", distinct(board.models.map((model) => model.type)), "all");
  fill("provenance", distinct(board.provenances.map((origin) => origin[0])), "all");
  fill("show", [...SHOW_NAMES]);
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    shown = STEP;
    change({ [event.target.name]: event.target.value });
  });
  form.addEventListener("reset", () => {
    history.replaceState(null, "", location.pathname + location.search);
    setTimeout(readAddress);
  });
  more.addEventListener("click", () => {
    const before = shown;
    shown += STEP;
    draw().then(() => holder.querySelectorAll("tbody input")[before]?.focus());
  });
  window.addEventListener("hashchange", readAddress);
  readAddress();
  if (!drawing) draw(); // the address names a place on the page
})();
