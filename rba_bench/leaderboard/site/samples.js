"use strict";
// A page of samples. Its data come as scripts that call rbaSummary, rbaItems and rbaLive, because a page on a disk may
// not fetch files. Texts of records are set as text, never as markup.
(function () {
  const ROWS = 100; // of the list at a time
  const SHOWN = 6; // models that are side by side at first
  const POLL = 2000; // milliseconds between two looks at a run in progress
  const LONG = 900; // letters of a text that scrolls
  const FIELDS = ["group", "status", "from", "to", "verdict", "id", "clip"];
  const SPEEDS = [0.75, 1, 1.25, 1.5];
  const NO_SIGN = "·";
  const byId = (id) => document.getElementById(id);
  const [root, form, list, box] = ["samples", "filters", "list", "item"].map(byId);

  let data = null; // what rbaSummary brought
  let pieces = new Map();
  let version = "";
  let chosen = new Set(); // places of the models side by side
  let places = []; // of the items that the filters let through
  let at = 0; // place of the item that is looked at
  let speed = 1;

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function hidden(text) {
    return element("span", { class: "hidden" }, text);
  }

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

  function withVersion(address) {
    return version ? `${address}?v=${encodeURIComponent(version)}` : address;
  }

  function itemAt(place) {
    const number = Math.floor(place / data.piece);
    const piece = pieces.get(number);
    if (Array.isArray(piece)) return piece[place - number * data.piece];
    if (piece === undefined) {
      const name = `items-${String(number).padStart(4, "0")}.js`;
      pieces.set(number, "asked");
      load(withVersion(name), () => {
        pieces.delete(number);
        trouble(`${name} cannot be read: it should lie beside this page.`);
      });
    }
    return null;
  }

  window.rbaItems = function (number, items) {
    pieces.set(number, items);
    trouble("");
    if (data && Math.floor(at / data.piece) === number) showItem();
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
    if (version && now !== version) load(`summary.js?v=${encodeURIComponent(now)}`, () => {});
    version = now;
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
  const sign = (failed) => (failed === null ? NO_SIGN : failed ? "✗" : "✓");
  const words = (failed) => (failed === null ? "no verdict" : failed ? "failure" : "no failure");
  const colour = (failed) => (failed === null ? "" : failed ? "fails" : "passes");

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
    show();
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

  function block(title, text, more) {
    if (!text) return null;
    const kind = text.length > LONG ? { class: "said long", tabindex: "0", role: "region", "aria-label": title } : { class: "said" };
    return element("div", { class: "block" }, element("h4", {}, title), element("p", { ...kind, dir: "auto", ...more }, text));
  }

  function difference([kind, expected, given]) {
    const mark = (text) => element("span", { class: "sign", "aria-hidden": "true" }, text);
    const removed = (text, why) => [mark(text), element("del", {}, hidden(why), expected)];
    const added = (text, why) => [mark(text), element("ins", {}, hidden(why), given)];
    if (kind === "=") return [expected];
    if (kind === "-") return removed("−", "left out: ");
    if (kind === "+") return added("+", "added: ");
    return [...removed("~", "replaced: "), " ", ...added("", "by: ")];
  }

  function differences(title, found) {
    if (!found) return null;
    const line = element("p", { class: "said words", dir: "auto" });
    for (const part of found) line.append(...difference(part), " ");
    return element("div", { class: "block" }, element("h4", {}, title), line);
  }

  function player(item) {
    const reference = element("p", { class: "soft" },
      `Clip by reference: item ${data.ids[at]} of the test set, SHA-256 ${item.audio}.`);
    if (!item.clip) return reference;
    const audio = element("audio", { controls: "", preload: "metadata", src: "../../" + item.clip,
      "aria-label": `Clip of item ${data.numbers[at]}` });
    const choice = element("select", {}, ...SPEEDS.map((value) => element("option", { value }, `${value} ×`)));
    choice.value = String(speed);
    audio.defaultPlaybackRate = audio.playbackRate = speed;
    choice.addEventListener("change", () => {
      speed = Number(choice.value);
      audio.defaultPlaybackRate = audio.playbackRate = speed;
    });
    const made = element("div", { class: "player" }, audio, element("label", {}, "Speed ", choice));
    audio.addEventListener("error", () => {
      if (audio.error) made.replaceWith(reference);
    });
    return made;
  }

  function judged(value) {
    if (typeof value === "number") return element("span", {}, String(Number(value.toFixed(4))));
    if (value === null || typeof value !== "object") return element("span", {}, String(value));
    const lines = element("dl", { class: "votes" });
    for (const [name, each] of Object.entries(value)) {
      const title = Array.isArray(value) ? String(Number(name) + 1) : name;
      lines.append(element("dt", {}, title), element("dd", {}, judged(each)));
    }
    return lines;
  }

  function score(value, metric) {
    if (value === null) return element("span", { class: "badge" }, `${metric.name} –`);
    const sure = metric.binary && (value === 0 || value === 100);
    const text = sure ? (value ? "✓" : "✗") : String(value);
    return element("span", { class: "badge" + (sure ? (value ? " good" : " bad") : "") }, `${metric.name} `,
      element("span", sure ? { "aria-hidden": "true" } : {}, text), sure ? hidden(value ? "right" : "wrong") : null);
  }

  const INPUTS = { ceiling: "reads the transcript instead of the clip", cascade: "a recogniser, then a text model",
    constant: "one constant answer" };

  function before(place) {
    const model = data.models[place];
    if (model.base < 0) return null;
    const pair = new Set([model.base, place]);
    const mark = (failed) => [element("span", { class: colour(failed), "aria-hidden": "true" }, sign(failed)), hidden(words(failed))];
    return element("p", { class: "soft from" }, `aligned from ${data.models[model.base].label}: `,
      ...mark(verdict(model.base, at)), " before, ", ...mark(verdict(place, at)), " after (",
      element("a", { href: address(at, pair), "aria-label": `${model.label} beside its base alone` }, "these two"), ")");
  }

  function answer(found, place, option) {
    const model = data.models[place];
    const failed = verdict(place, at);
    const status = data.statuses[data.status[place][at]];
    const mark = failed === null ? null : element("span", { class: colour(failed) },
      element("span", { "aria-hidden": "true" }, sign(failed) + " "), hidden(words(failed) + ": "));
    const card = element("section", { class: "reply" + (failed === null ? "" : failed ? " bad" : " good"), "data-model": model.label },
      element("h3", {}, mark, model.label, " ", model.kind === "model" ? null : element("span", { class: "badge" }, "ref")));
    if (INPUTS[model.kind]) card.append(element("p", { class: "soft from" }, INPUTS[model.kind]));
    card.append(...[before(place)].filter(Boolean));
    if (!found) {
      card.append(element("p", { class: "soft" }, model.state ? `not answered (${model.state})` : "not answered"));
      return card;
    }
    const scores = element("p", {}, ...data.metrics.flatMap((metric, index) => [score(found.scores[index], metric), " "]));
    if (status !== "ok") scores.prepend(element("span", { class: "badge bad" }, status), " ");
    const read = found.extracted ?? found.response ?? "";
    const parts = [
      block("ASR transcript", found.heard),
      differences("Transcript beside what is said", found.heardWords),
      block(found.extracted === undefined ? "Answer" : "Extracted answer", read || "(nothing)"),
      differences("Answer beside the reference", found.words),
      scores,
      block("Error", found.error),
    ];
    if (found.judge) parts.push(element("div", { class: "block" }, element("h4", {}, "Judge"), judged(found.judge)));
    if (found.extracted !== undefined) parts.push(element("details", {}, element("summary", {}, "Raw response"),
      element("p", { class: "said", dir: "auto" }, found.response ?? "(nothing)")));
    if (found.reasoning) parts.push(element("details", {}, element("summary", {}, "Reasoning"),
      element("p", { class: "said", dir: "auto" }, found.reasoning)));
    const facts = `${found.tokens} tokens, seed ${found.seed}`;
    parts.push(element("details", {}, element("summary", {}, "Answer it again"), element("p", { class: "soft" }, facts),
      model.command ? element("pre", {}, `${model.command} ${option}`) : null));
    card.append(...parts.filter(Boolean));
    return card;
  }

  // A model that was aligned stands behind the one that it came from.
  function sideBySide() {
    const ordered = [...chosen].filter((place) => !chosen.has(data.models[place].base));
    for (const place of [...chosen].reverse()) {
      const base = data.models[place].base;
      if (chosen.has(base) && ordered.includes(base)) ordered.splice(ordered.indexOf(base) + 1, 0, place);
    }
    return [...ordered, ...[...chosen].filter((place) => !ordered.includes(place))];
  }

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
    const tags = [data.groups[data.group[at]], item.languages, item.seconds ? `${item.seconds.toFixed(1)} s` : ""];
    const references = item.references ?? [];
    const left = element("div", {}, player(item), block("Gold transcript", item.instruction, { class: "said spoken" }));
    const right = element("div", {},
      element("div", { class: "block" }, element("h4", {}, "Prompt as sent"),
        element("p", { class: "said", dir: "auto" }, element("span", { class: "badge" }, "the clip"), " ",
          item.prompt ?? element("span", { class: "soft" }, "no text beside it"))),
      block(references.length > 1 ? "References" : "Reference", references.join("\n")),
      block("Baseline answer", item.baseline),
      item.extra ? element("details", {}, element("summary", {}, "Further facts for the scorer"),
        element("p", { class: "said" }, item.extra)) : null);
    box.replaceChildren(
      element("h2", { id: "shown" }, element("a", { href: address(at), title: "Link to this item" },
        `Item ${data.numbers[at]}`), ` ${data.ids[at]}`),
      element("p", {}, ...tags.filter(Boolean).map((tag) => element("span", { class: "badge" }, tag))),
      element("div", { class: "pair" }, left, right),
      element("div", { class: "replies" }, ...sideBySide().map((place) => answer(item.answers[place], place, item.option))));
  }

  function show() {
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
        show();
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
      show();
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
      show();
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
