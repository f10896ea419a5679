"use strict";
// A page of samples. Its data come as scripts that call rbaSummary, rbaItems and rbaLive, because a page on a disk may
// not fetch files. Texts of records are set as text, never as markup.
(function () {
  const ROWS = 100; // of the list at a time
  const SHOWN = 6; // models that are side by side at first
  const POLL = 2000; // milliseconds between two looks at a run in progress
  const FIELDS = ["group", "status", "from", "to", "verdict", "id", "clip"];
  const { colour, element, hidden, show, sign } = window.rbaItemView;
  const byId = (id) => document.getElementById(id);
  const [root, form, list, box] = ["samples", "filters", "list", "item"].map(byId);

  let data = null; // what rbaSummary brought
  let pieces = new Map();
  let chosen = new Set(); // places of the models side by side
  let places = []; // of the items that the filters let through
  let at = 0; // place of the item that is looked at

  function trouble(text) {
    byId("trouble").textContent = text;
    byId("trouble").hidden = !text;
  }

  // ---- Data

  function load(address, failed) {
    const script = element("script", { src: address });
    script.addEventListener("load", () => script.remove());
    script.addEventListener("error", () => {
      script.remove();
      failed();
    });
    document.head.append(script);
  }

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
        pieces.delete(number);
        trouble(`${name} cannot be read: it should lie beside this page.`);
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
    const first = data === null;
    const number = first ? null : data.numbers[at];
    const labels = first ? null : new Set([...chosen].map((model) => data.models[model].label));
    const known = first ? null : new Set(data.models.map((model) => model.label));
    data = summary;
    data.withClip = new Set(data.clips);
    pieces = new Map();
    prepare();
    if (first) {
      restore();
      root.hidden = false;
      if (window.matchMedia("(max-width: 61.9rem)").matches) byId("choose").open = false;
    } else {
      chosen = new Set(data.models.keys());
      for (const [place, model] of data.models.entries()) {
        if (known.has(model.label) && !labels.has(model.label)) chosen.delete(place);
      }
      at = Math.max(0, data.numbers.indexOf(number));
      showModels();
      filter();
    }
  };

  window.rbaLive = function (now) {
    trouble("");
    if (data && now !== data.version) load(withVersion("summary.js", now), () => {});
  };

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

  function filter() {
    const state = wanted();
    places = data.numbers.map((_, place) => place).filter((place) => matches(place, state));
    if (places.length && !places.includes(at)) at = places.find((place) => place >= at) ?? places[0];
    showAll();
  }

  function row(place) {
    const signs = element("span", { class: "signs", "aria-hidden": "true" }, ...verdicts(place).map((failed) =>
      element("span", { class: colour(failed) }, sign(failed))));
    const failed = verdicts(place).filter((each) => each).length;
    const link = element("a", { href: address(place) }, element("span", { class: "n" }, String(data.numbers[place])),
      element("span", { class: "id" }, data.ids[place]), hidden(`, ${failed} of ${chosen.size} models fail`), signs);
    if (place === at) link.setAttribute("aria-current", "true");
    return element("li", {}, link);
  }

  function showList() {
    const current = Math.max(0, places.indexOf(at));
    const from = Math.floor(current / ROWS) * ROWS;
    list.replaceChildren(...places.slice(from, from + ROWS).map(row));
    byId("earlier").disabled = from === 0;
    byId("later").disabled = from + ROWS >= places.length;
    const all = places.length === data.numbers.length ? "" : ` (of ${data.numbers.length} in all)`;
    byId("count").textContent = places.length ? `Item ${current + 1} of ${places.length}${all}` : "No item is like that.";
    const line = list.querySelector("[aria-current]");
    const above = line ? line.offsetTop - list.scrollTop : 0;
    if (line && (above < 0 || above > list.clientHeight - line.offsetHeight)) {
      list.scrollTop = line.offsetTop - list.clientHeight / 2;
    }
  }

  // ---- The item

  function showItem() {
    if (!places.length) {
      box.replaceChildren(element("p", { class: "soft" }, "No item is like that: change the filters."));
      return;
    }
    const item = itemAt(at);
    if (item === null) {
      box.setAttribute("aria-busy", "true");
      return;
    }
    box.removeAttribute("aria-busy");
    show(box, item, { data, at, chosen, verdict, address });
  }

  function showAll() {
    showList();
    showItem();
  }

  // ---- The address

  function address(place, models) {
    const parts = data.numbers.length ? [`item=${data.numbers[place]}`] : [];
    const picked = models ?? chosen;
    if (picked.size !== data.models.length) {
      parts.push("models=" + [...picked].map((model) => encodeURIComponent(data.models[model].label)).join(","));
    }
    for (const [name, value] of Object.entries(wanted())) {
      const said = name === "group" ? data.groups[Number(value.slice(1))]
        : name === "status" ? data.statuses[Number(value.slice(1))] : value;
      parts.push(`${name}=${encodeURIComponent(said)}`);
    }
    return "#" + parts.join("&");
  }

  function decoded(text) {
    try {
      return decodeURIComponent(text.replaceAll("+", " "));
    } catch {
      return ""; // not an address of this page
    }
  }

  function restore() {
    const parts = new Map(location.hash.slice(1).split("&").map((part) => {
      const cut = part.indexOf("=");
      return cut < 0 ? [part, ""] : [part.slice(0, cut), part.slice(cut + 1)];
    }));
    form.reset();
    for (const name of FIELDS) {
      if (!parts.has(name)) continue;
      const field = form.elements.namedItem(name);
      const value = decoded(parts.get(name));
      const known = name === "group" ? data.groups : name === "status" ? data.statuses : null;
      if (known) field.value = known.includes(value) ? "=" + known.indexOf(value) : "";
      else if (field.type === "checkbox") field.checked = true;
      else if (field.type !== "number" || /^\d+(\.\d+)?$/.test(value)) field.value = value;
      if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = "";
    }
    const labels = (parts.get("models") ?? "").split(",").map(decoded);
    const named = data.models.map((model, place) => (labels.includes(model.label) ? place : -1)).filter((place) => place >= 0);
    chosen = new Set(named.length ? named : [...data.models.keys()].slice(0, SHOWN));
    const place = data.numbers.indexOf(Number(decoded(parts.get("item") ?? "") || NaN));
    at = place < 0 ? 0 : place;
    trouble(parts.has("item") && place < 0 ? "The item of this address is not on this page." : "");
    showModels();
    filter();
  }

  function remember() {
    history.replaceState(null, "", address(at));
  }

  function changed() {
    filter();
    remember();
  }

  // ---- Moving

  function go(step, test) {
    const count = places.length;
    const here = places.indexOf(at);
    for (let far = 1; far <= count; far += 1) {
      const place = places[(((here + step * far) % count) + count) % count];
      if (!test || test(place)) {
        at = place;
        showAll();
        remember();
        return;
      }
    }
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
    f: () => go(1, fails),
    d: () => go(1, differs),
    r: () => {
      if (!places.length) return;
      at = places[Math.floor(Math.random() * places.length)];
      showAll();
      remember();
    },
    " ": play,
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, audio");
    const pressed = event.key === " " && event.target.closest("button, summary");
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
      at = places[Math.min(places.length - 1, Math.max(0, current + step))];
      showAll();
      remember();
    });
  }
  window.addEventListener("hashchange", () => data && location.hash.includes("=") && restore());

  if (root.dataset.live) {
    let turn = 0;
    const look = () => load(`live.js?n=${(turn += 1)}`, () => trouble("The server does not answer: it may have ended."));
    setInterval(look, POLL);
    look();
  }
})();
