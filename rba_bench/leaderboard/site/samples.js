"use strict";
// A page of samples. Its data come as scripts that call rbaSummary, rbaItems and rbaLive, because a page on a disk may
// not fetch files. Texts of records are set as text, never as markup. The parts are in parts.js, address.js and item.js.
(function () {
  const ROWS = 100; // of the list at a time
  const SHOWN = 6; // models that are side by side at first
  const FIELDS = ["group", "status", "from", "to", "verdict", "id", "clip"];
  const { element, hidden, badge, load, note, notes, follow } = window.rbaParts;
  const { colour, show, sign } = window.rbaItemView;
  const addresses = window.rbaAddresses;
  const byId = (id) => document.getElementById(id);
  const [root, form, list, box] = ["samples", "filters", "list", "item"].map(byId);

  let data = null; // what rbaSummary brought
  let pieces = new Map();
  let chosen = new Set(); // places of the models side by side
  let places = []; // of the items that the filters let through
  let at = 0; // place of the item that is looked at

  // ---- Data

  // What is served has a version; a file has none.
  function withVersion(address, version) {
    return version ? `${address}?v=${encodeURIComponent(version)}` : address;
  }

  function itemAt(place) {
    const number = Math.floor(place / data.piece);
    const piece = pieces.get(number);
    if (Array.isArray(piece)) return piece[place - number * data.piece];
    if (piece === undefined) {
      const name = `items-${String(number).padStart(4, "0")}.js`;
      pieces.set(number, "asked");
      load(withVersion(name, data.version), () => {
        if (pieces.get(number) !== "asked") return; // of an earlier version
        pieces.delete(number);
        if (!root.dataset.live) note("trouble", `${name} cannot be read: it should lie beside this page.`);
      });
    }
    return null;
  }

  window.rbaItems = function (number, version, items) {
    if (!data || version !== data.version) return; // the runs have changed: rbaLive brings the new summary
    pieces.set(number, items);
    if (Math.floor(at / data.piece) === number) showItem();
  };

  window.rbaSummary = function (summary) {
    const before = data;
    data = summary;
    data.withClip = new Set(data.clips);
    data.someClips = data.clips.length > 0 && data.clips.length < data.numbers.length;
    pieces = new Map();
    prepare();
    if (before) goOn(before);
    else {
      restore();
      root.hidden = false;
      if (window.matchMedia("(max-width: 61.9rem)").matches) byId("choose").open = false;
    }
  };

  // New data of runs in progress: the same item, the same models, and those that are new.
  function goOn(before) {
    const left = new Set(before.models.filter((_, place) => !chosen.has(place)).map((model) => model.label));
    chosen = new Set([...data.models.keys()].filter((place) => !left.has(data.models[place].label)));
    at = Math.max(0, data.numbers.indexOf(before.numbers[at]));
    showModels();
    filter({ quiet: true });
    showTexts(data.changing);
  }

  // What the page itself says, as it would be read now.
  function showTexts({ facts, headings, rows, notes: texts }) {
    byId("facts").textContent = facts;
    notes(texts);
    byId("headings").replaceChildren(...headings.map((text, place) =>
      element("th", { scope: "col", ...(place === headings.length - 1 ? { class: "text" } : {}) }, text)));
    byId("rows").replaceChildren(...rows.map(({ name, state, cells }) => element("tr", {},
      element("th", { scope: "row" }, name, ...(state ? [" ", badge(state)] : [])),
      ...cells.map((text, place) => element("td", place === cells.length - 1 ? { class: "text" } : {}, text)))));
  }

  // ---- Verdicts

  function verdict(model, place) {
    const status = data.status[model][place];
    const score = data.scores[model][place];
    if (status < 0) return null;
    if (score === null) return status === 0 ? null : true;
    return data.higher ? score < data.limit : score > data.limit;
  }

  function verdicts(place) {
    return [...chosen].map((model) => verdict(model, place));
  }

  const fails = (place) => verdicts(place).includes(true);
  const differs = (place) => fails(place) && verdicts(place).includes(false);

  // ---- Filters and the list

  function options(name, values, anyText) {
    const field = form.elements.namedItem(name);
    const before = field.selectedIndex > 0 ? field.selectedOptions[0].textContent : null;
    field.replaceChildren(element("option", { value: "" }, anyText),
      ...values.map((text, place) => element("option", { value: "=" + place }, text || "(none)")));
    field.selectedIndex = Math.max(0, [...field.options].findIndex((each) => each.textContent === before));
    field.closest("label").hidden = values.length < 2;
  }

  function prepare() {
    options("group", data.groups, "all");
    options("status", data.statuses, "any");
    byId("with-clip").hidden = data.clips.length === 0 || data.clips.length === data.numbers.length;
    const scored = data.primary !== "";
    byId("range").hidden = !scored;
    byId("meaning").textContent = scored
      ? `A failure has ${data.primary} ${data.higher ? "below" : "above"} ${data.limit}, or no score and a status that is not ok. `
        + "In a disagreement some of the models fail and others do not."
      : "";
  }

  function showModels() {
    const ticks = data.models.map((model, place) => {
      const box = element("input", { type: "checkbox", value: place });
      box.checked = chosen.has(place);
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(place);
        else chosen.delete(place);
        chosen = new Set([...chosen].sort((a, b) => a - b));
        changed();
      });
      const facts = [model.kind === "model" ? "" : " (ref)", model.state ? ` – ${model.state}` : ""].join("");
      return element("label", { class: "tick" }, box, element("span", {}, model.label + facts),
        element("span", { class: "number" }, model.score.split(" ")[0]));
    });
    byId("models").replaceChildren(element("legend", {}, `Models side by side${data.primary ? `, with ${data.primary}` : ""}`), ...ticks);
  }

  function wanted() {
    const found = {};
    for (const name of FIELDS) {
      const field = form.elements.namedItem(name);
      const value = field.type === "checkbox" ? (field.checked ? "yes" : "") : field.value;
      if (value !== "") found[name] = value;
    }
    return found;
  }

  function matches(place, state) {
    const models = [...chosen];
    const inside = (model) => {
      const score = data.scores[model][place];
      return score !== null && score !== undefined && (state.from === undefined || score >= Number(state.from))
        && (state.to === undefined || score <= Number(state.to));
    };
    return (state.group === undefined || data.group[place] === Number(state.group.slice(1)))
      && (state.status === undefined || models.some((model) => data.status[model][place] === Number(state.status.slice(1))))
      && ((state.from === undefined && state.to === undefined) || models.some(inside))
      && (state.verdict === undefined || (state.verdict === "fails" ? fails(place)
        : state.verdict === "differs" ? differs(place) : !fails(place)))
      && (state.id === undefined || data.ids[place].toLowerCase().includes(state.id.toLowerCase()))
      && (state.clip === undefined || data.withClip.has(place));
  }

  // `first`: without an item in the address, the first one whose clip is here. `quiet`: nobody has asked for it.
  function filter({ first = false, quiet = false } = {}) {
    const state = wanted();
    places = data.numbers.map((_, place) => place).filter((place) => matches(place, state));
    if (first) at = places.find((place) => data.withClip.has(place)) ?? places[0] ?? 0;
    else if (places.length && !places.includes(at)) at = places.find((place) => place >= at) ?? places[0];
    byId("count").setAttribute("aria-live", quiet ? "off" : "polite");
    showAll();
  }

  function row(place) {
    const signs = element("span", { class: "signs", "aria-hidden": "true" }, ...verdicts(place).map((failed) =>
      element("span", { class: colour(failed) }, sign(failed))));
    const failed = verdicts(place).filter((each) => each).length;
    const clip = data.someClips && data.withClip.has(place);
    const link = element("a", { href: address(place) }, element("span", { class: "n" }, String(data.numbers[place])),
      element("span", { class: "id", dir: "auto" }, data.ids[place]),
      clip ? element("span", { class: "has-clip", title: "its clip is here", "aria-hidden": "true" }, "♪") : null,
      hidden(`${clip ? ", with its clip" : ""}, ${failed} of ${chosen.size} models fail`), signs);
    if (place === at) link.setAttribute("aria-current", "true");
    return element("li", {}, link);
  }

  function showList() {
    const current = Math.max(0, places.indexOf(at));
    const from = Math.floor(current / ROWS) * ROWS;
    const held = list.contains(document.activeElement);
    list.replaceChildren(...places.slice(from, from + ROWS).map(row));
    if (held) list.querySelector("[aria-current]")?.focus({ preventScroll: true });
    byId("earlier").disabled = from === 0;
    byId("later").disabled = from + ROWS >= places.length;
    const all = places.length === data.numbers.length ? "" : ` (of ${data.numbers.length} in all)`;
    byId("count").textContent = places.length ? `${current + 1} of ${places.length} items${all}` : "No item is like that.";
    const line = list.querySelector("[aria-current]");
    const above = line ? line.offsetTop - list.scrollTop : 0;
    if (line && (above < 0 || above > list.clientHeight - line.offsetHeight)) {
      list.scrollTop = line.offsetTop - list.clientHeight / 2;
    }
  }

  // ---- The item

  function showItem() {
    if (!places.length) {
      box.removeAttribute("aria-busy");
      box.replaceChildren(element("p", { class: "soft" }, "No item is like that: change the filters."));
      return;
    }
    const item = itemAt(at);
    if (item === null) {
      box.setAttribute("aria-busy", "true");
      return;
    }
    box.removeAttribute("aria-busy");
    document.querySelector("[data-key=' ']").disabled = !item.clip;
    show(box, item, { data, at, chosen, verdict, address });
  }

  function showAll() {
    showList();
    showItem();
  }

  // ---- The address

  function address(place, models) {
    return addresses.write(data, place, models ?? chosen, wanted());
  }

  function restore() {
    const said = addresses.read(location.hash, data, FIELDS);
    form.reset();
    for (const [name, value] of said.fields) {
      const field = form.elements.namedItem(name);
      if (field.type === "checkbox") field.checked = true;
      else if (field.type !== "number" || /^\d+(\.\d+)?$/.test(value)) field.value = value;
      if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = "";
    }
    chosen = new Set(said.models.length ? said.models : [...data.models.keys()].slice(0, SHOWN));
    at = said.place ?? 0;
    note("trouble", said.place === null ? "The item of this address is not on this page." : "");
    showModels();
    filter({ first: said.place === undefined });
  }

  function remember() {
    history.replaceState(null, "", address(at));
  }

  function changed() {
    filter();
    remember();
  }

  // ---- Moving

  function look(place) {
    at = place;
    byId("count").setAttribute("aria-live", "polite");
    showAll();
    remember();
  }

  function go(step, test, none) {
    const count = places.length;
    const here = places.indexOf(at);
    for (let far = 1; far <= count; far += 1) {
      const place = places[(((here + step * far) % count) + count) % count];
      if (!test || test(place)) {
        look(place);
        return;
      }
    }
    if (none) byId("count").textContent = none;
  }

  function play() {
    const audio = box.querySelector("audio");
    if (!audio) return;
    if (audio.paused) audio.play().catch(() => {}); // the player shows what went wrong
    else audio.pause();
  }

  const KEYS = {
    j: () => go(1),
    k: () => go(-1),
    f: () => go(1, fails, "No item is a failure."),
    d: () => go(1, differs, "No item is a disagreement."),
    r: () => {
      if (!places.length) return;
      look(places[Math.floor(Math.random() * places.length)]);
    },
    " ": play,
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, audio");
    const pressed = event.key === " " && (event.target.closest("button, summary, [tabindex='0']") || !box.querySelector("audio")); // else it scrolls
    if (!data || event.ctrlKey || event.metaKey || event.altKey || typing || pressed || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  for (const button of document.querySelectorAll("[data-key]")) {
    button.addEventListener("click", () => data && KEYS[button.dataset.key]());
  }

  let waiting = 0;
  form.addEventListener("input", (event) => {
    if (event.target.closest("#models")) return;
    clearTimeout(waiting);
    waiting = setTimeout(changed, 120);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => data && changed())); // when the fields are empty
  byId("all-models").addEventListener("click", () => {
    chosen = new Set(data.models.keys());
    showModels();
    changed();
  });
  byId("models-only").addEventListener("click", () => {
    chosen = new Set([...data.models.keys()].filter((place) => data.models[place].kind === "model"));
    showModels();
    changed();
  });
  for (const [id, step] of [["earlier", -ROWS], ["later", ROWS]]) {
    byId(id).addEventListener("click", () => {
      const current = Math.floor(places.indexOf(at) / ROWS) * ROWS;
      look(places[Math.min(places.length - 1, Math.max(0, current + step))]);
    });
  }
  window.addEventListener("hashchange", () => data && location.hash.includes("=") && restore());

  if (root.dataset.live) {
    follow("../../", (version, sections) => {
      const here = sections.includes(root.dataset.section);
      note("gone", here ? "" : "The runs of this page are gone. They are shown as they were.");
      if (data && here && version !== data.version) load(withVersion("summary.js", version), () => {});
    });
  }
})();
