"use strict";
(function () {
  const STEP = 40; // clips that are added at a time: a thousand players at once are slow
  const LONG = 1500; // letters of a text that scrolls
  const records = JSON.parse(document.getElementById("data").textContent);
  const [form, list, more, count] = ["filters", "list", "more", "count"].map((id) => document.getElementById(id));
  const exact = ["voice", "topic", "difficulty"]; // hidden fields: clip, group
  const orders = {
    worst: (a, b) => (b.wer ?? -1) - (a.wer ?? -1),
    best: (a, b) => (a.wer ?? Infinity) - (b.wer ?? Infinity),
    longest: (a, b) => (b.seconds ?? 0) - (a.seconds ?? 0),
    shortest: (a, b) => (a.seconds ?? 0) - (b.seconds ?? 0),
  };
  const groups = new Map(); // number of clips by instruction
  let chosen = [];
  let shown = 0;
  let narrowed = {}; // one clip or one instruction, by a link

  for (const record of records) {
    const texts = [record.prompt, record.instruction, record.said, record.response, record.transcript, record.id];
    groups.set(record.group, (groups.get(record.group) ?? 0) + 1);
    record.words = [...texts, ...record.turns.flat()].join("\n").toLowerCase();
  }

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function hidden(text) {
    return element("span", { class: "hidden" }, text);
  }

  function difference([kind, said, recognised]) {
    const removed = element("del", {}, hidden("left out: "), said);
    const added = element("ins", {}, hidden("added: "), recognised);
    if (kind === "same") return element("span", {}, said);
    if (kind === "deleted") return removed;
    if (kind === "inserted") return added;
    return element("span", { class: "swap" }, element("del", {}, hidden("said: "), said), " ",
      element("ins", {}, hidden("understood: "), recognised));
  }

  function block(title, text) {
    const long = text && text.length > LONG ? { class: "said long", tabindex: "0" } : { class: "said" };
    return text ? element("div", { class: "block" }, element("h4", {}, title),
      element("p", { ...long, dir: "auto" }, text)) : null;
  }

  function percent(rate) {
    return (100 * rate).toFixed(rate > 0 && rate < 0.1 ? 1 : 0) + " %";
  }

  function player(record) {
    if (!record.clip) return element("p", { class: "note" }, record.problem);
    const audio = element("audio", { controls: "", preload: "none", src: record.clip, "aria-label": "Clip " + record.id });
    audio.addEventListener("error", () => {
      audio.replaceWith(element("p", { class: "note" }, record.clip + " cannot be played here"));
    });
    return audio;
  }

  function heading(record) {
    const tags = [record.voice, record.topic, record.difficulty, record.kind, record.split];
    if (record.seconds !== null) tags.push(record.seconds.toFixed(1) + " s");
    const parts = tags.filter(Boolean).map((tag) => element("span", { class: "tag" }, tag));
    if (record.wer !== null) {
      parts.push(element("span", { class: "tag " + (record.wer > 0 ? "bad" : "good") }, "WER " + percent(record.wer)));
    }
    const address = "#" + new URLSearchParams({ clip: record.id });
    return element("h3", {}, element("a", { href: address, title: "Link to this clip" }, record.id), ...parts);
  }

  function transcript(record) {
    if (record.transcript === undefined) return null;
    const words = element("p", { class: "said words", dir: "auto" });
    for (const part of record.differences) words.append(difference(part), " ");
    return element("div", { class: "block recogniser" }, element("h4", {}, "Recogniser"),
      element("p", { class: "said", dir: "auto" }, record.transcript),
      element("h4", {}, "Word differences"), words);
  }

  function clip(record) {
    const others = groups.get(record.group) - 1;
    const sound = record.sound.length ? element("p", { class: "soft" }, record.sound.join(" · ")) : null;
    const siblings = others > 0 ? element("p", {}, element("a", { href: "#" + new URLSearchParams({ group: record.group }) },
      `with ${others} other clip${others > 1 ? "s" : ""} of this instruction on the page`)) : null;
    const turns = record.turns.map(([said, answer], turn) => element("div", {},
      block(`Turn ${turn + 1}`, said), block("Answer", answer)));
    const left = element("div", {}, player(record), sound, block("Text beside the clip", record.prompt),
      element("p", { class: "said instruction", dir: "auto" }, record.instruction),
      block("Spoken as", record.said), siblings);
    const right = element("div", {}, transcript(record), block("Answer", record.response),
      block("Correct answers", record.references.join(" / ")));
    return element("article", { "data-id": record.id }, heading(record),
      turns.length ? element("details", { class: "block" }, element("summary", {}, "Earlier turns"), ...turns) : null,
      element("div", { class: "item" }, left, right));
  }

  function state() {
    const found = { ...narrowed };
    for (const field of form.elements) {
      if (field.name && field.value !== "") found[field.name] = field.value.replace(/^=/, "");
    }
    return found;
  }

  function matches(record, wanted) {
    const rate = record.wer === null ? null : 100 * record.wer;
    return exact.every((name) => wanted[name] === undefined || record[name] === wanted[name]) &&
      (wanted.clip === undefined || record.id === wanted.clip) &&
      (wanted.group === undefined || record.group === wanted.group) &&
      (wanted.from === undefined || (rate !== null && rate >= Number(wanted.from) - 1e-9)) &&
      (wanted.to === undefined || (rate !== null && rate <= Number(wanted.to) + 1e-9)) &&
      (wanted.q === undefined || record.words.includes(wanted.q.toLowerCase()));
  }

  function addClips() {
    list.append(...chosen.slice(shown, shown + STEP).map(clip));
    shown = Math.min(shown + STEP, chosen.length);
    more.hidden = shown >= chosen.length;
    more.textContent = `${Math.min(STEP, chosen.length - shown)} more of ${chosen.length - shown}`;
  }

  function show() {
    const wanted = state();
    chosen = records.filter((record) => matches(record, wanted));
    if (orders[wanted.sort]) chosen.sort(orders[wanted.sort]);
    count.textContent = `${chosen.length} of ${records.length} clips`;
    list.replaceChildren();
    shown = 0;
    addClips();
  }

  function remember() {
    const fragment = new URLSearchParams(state()).toString();
    history.replaceState(null, "", fragment ? "#" + fragment : location.pathname + location.search);
  }

  function restore() {
    if (location.hash && !location.hash.includes("=")) return; // a place on the page
    const wanted = new URLSearchParams(location.hash.slice(1));
    form.reset();
    for (const [name, value] of wanted) {
      const field = form.elements.namedItem(name);
      if (field && field.type === "number" && !/^\d+(\.\d+)?$/.test(value)) continue;
      if (field) field.value = field.tagName === "SELECT" && name !== "sort" ? "=" + value : value;
      if (field && field.tagName === "SELECT" && field.selectedIndex < 0) field.value = ""; // no such value here
    }
    narrowed = {};
    for (const name of ["clip", "group"]) if (wanted.has(name)) narrowed[name] = wanted.get(name);
    show();
  }

  function changed() {
    show();
    remember();
  }

  let waiting = 0;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(changed, 120);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    narrowed = {};
    setTimeout(changed); // when the fields are empty
  });
  more.addEventListener("click", () => {
    const before = list.children.length;
    addClips();
    list.children[before].querySelector("a").focus();
  });
  list.addEventListener("play", (event) => {
    for (const audio of list.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
  }, true);
  window.addEventListener("hashchange", restore);
  restore();
  if (location.hash.includes("=")) document.getElementById("clips").scrollIntoView();
})();
