"use strict";
// One item of a page of samples: the clip, what is known of it, and the answers of the chosen models side by side.
// Texts of records are set as text, never as markup. `samples.js` calls window.rbaItemView.
(function () {
  const { element, hidden, badge, said, arrange } = window.rbaParts;
  const SPEEDS = [0.75, 1, 1.25, 1.5];
  const NO_SIGN = "·";
  const INPUTS = { ceiling: "reads the transcript instead of the clip", cascade: "a recogniser, then a text model",
    constant: "one constant answer" };
  let speed = 1; // of all players
  let view = null; // what is shown: { data, at, chosen, verdict, address }, see `samples.js`
  let kept = new Map(); // the parts of the item that is shown, by name: what they were made of, and their elements

  const sign = (failed) => (failed === null ? NO_SIGN : failed ? "✗" : "✓");
  const words = (failed) => (failed === null ? "no verdict" : failed ? "failure" : "no failure");
  const colour = (failed) => (failed === null ? "" : failed ? "fails" : "passes");

  // A part that is as it was stays: while a run in progress brings answers, the clip goes on playing.
  function part(name, facts, make) {
    const key = JSON.stringify(facts);
    const before = kept.get(name);
    if (before && before.key === key) return before.made;
    const open = before ? [...before.made.querySelectorAll("details[open] > summary")].map((each) => each.textContent) : [];
    const made = make();
    for (const each of made.querySelectorAll("summary")) each.parentElement.open = open.includes(each.textContent);
    kept.set(name, { key, made });
    return made;
  }

  function block(heading, title, text, kind) {
    return text ? element("div", { class: "block" }, element(heading, {}, title), said(title, text, kind)) : null;
  }

  function folded(title, text) {
    return text === undefined ? null : element("details", {}, element("summary", {}, title), said(title, text || "(nothing)"));
  }

  function difference([kind, expected, given]) {
    const mark = (text) => element("span", { class: "sign", "aria-hidden": "true", dir: "ltr" }, text);
    const removed = (text, why) => [mark(text), element("del", { dir: "auto" }, hidden(why), expected)];
    const added = (text, why) => [mark(text), element("ins", { dir: "auto" }, hidden(why), given)];
    if (kind === "=") return [expected];
    if (kind === "-") return removed("−", "left out: ");
    if (kind === "+") return added("+", "added: ");
    return [...removed("~", "replaced: "), " ", ...added("", "by: ")];
  }

  function differences(title, found) {
    if (!found) return null;
    const line = said(title, found.flat().join(" "), "words");
    line.replaceChildren();
    for (const each of found) line.append(...difference(each), " ");
    return element("div", { class: "block" }, element("h4", {}, title), line);
  }

  function player(item) {
    const { data, at } = view;
    const reference = element("p", { class: "soft" }, "Clip by reference: item ", element("bdi", {}, data.ids[at]),
      ` of the test set, SHA-256 ${item.audio}.`, item.played ? ` In its place was played the clip of another item, SHA-256 ${item.played}.` : null);
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
    const made = element("div", { class: "player" }, audio, element("label", {}, "Speed ", choice),
      item.played ? element("span", { class: "soft" }, "the clip of another item, as the models got it") : null);
    audio.addEventListener("error", () => {
      if (audio.error) made.replaceWith(reference);
    });
    return made;
  }

  function score(value, metric) {
    if (value === null) return badge(`${metric.name} –`);
    const sure = metric.binary && (value === 0 || value === 100);
    const text = sure ? (value ? "✓" : "✗") : String(value);
    return element("span", { class: "badge" + (sure ? (value ? " good" : " bad") : "") }, `${metric.name} `,
      element("span", sure ? { "aria-hidden": "true" } : {}, text), sure ? hidden(value ? "right" : "wrong") : null);
  }

  function before(place) {
    const { data, at } = view;
    const model = data.models[place];
    if (model.base < 0) return null;
    const pair = new Set([model.base, place]);
    const mark = (failed) => [element("span", { class: colour(failed), "aria-hidden": "true" }, sign(failed)), hidden(words(failed))];
    return element("p", { class: "soft from" }, `aligned from ${data.models[model.base].label}: `,
      ...mark(view.verdict(model.base, at)), " before, ", ...mark(view.verdict(place, at)), " after (",
      element("a", { href: view.address(at, pair), "aria-label": `${model.label} beside its base alone` }, "these two"), ")");
  }

  function again(found, model, option) {
    const { data } = view;
    const made = element("details", {}, element("summary", {}, "Answer it again"),
      element("p", { class: "soft" }, `${found.tokens} tokens, seed ${found.seed}`));
    if (!model.command) return made;
    made.append(element("pre", { dir: "ltr" }, `${model.command} ${option}`), element("p", { class: "soft" }, data.place));
    if (model.command.endsWith(" --model=MODEL")) {
      made.append(element("p", { class: "soft" }, "MODEL stands for the model: its folder, its id on the Hub, or its server."));
    }
    return made;
  }

  function answer(found, place, option) {
    const { data, at } = view;
    const model = data.models[place];
    const failed = view.verdict(place, at);
    const status = data.statuses[data.status[place][at]];
    const mark = failed === null ? null : element("span", { class: colour(failed) },
      element("span", { "aria-hidden": "true" }, sign(failed) + " "), hidden(words(failed) + ": "));
    const card = element("section", { class: "reply" + (failed === null ? "" : failed ? " bad" : " good"), "data-model": model.label },
      element("h3", {}, mark, element("bdi", {}, model.label), " ", model.kind === "model" ? null : badge("ref")));
    if (INPUTS[model.kind]) card.append(element("p", { class: "soft from" }, INPUTS[model.kind]));
    card.append(...[before(place)].filter(Boolean));
    if (!found) {
      card.append(element("p", { class: "soft" }, model.state ? `not answered (${model.state})` : "not answered"));
      return card;
    }
    const scores = element("p", {}, ...data.metrics.flatMap((metric, index) => [score(found.scores[index], metric), " "]));
    if (status !== "ok") scores.prepend(badge(status, "bad"), " ");
    const apart = found.extracted !== undefined; // the response holds more than what was scored
    const parts = [
      block("h4", "ASR transcript", found.heard),
      differences("Transcript beside what is said", found.heardWords),
      block("h4", apart ? "Extracted answer" : "Answer", found.extracted || (apart ? "" : found.response) || "(nothing)"),
      differences("Answer beside the nearest reference", found.words),
      scores,
      block("h4", "Error", found.error),
      found.judge ? element("div", { class: "block" }, element("h4", {}, "Judge"), window.rbaVotes(found.judge)) : null,
      apart ? folded("Raw response", found.response ?? "") : null,
      folded("Reasoning", found.reasoning),
      again(found, model, option),
    ];
    card.append(...parts.filter(Boolean));
    return card;
  }

  // A model that was aligned stands behind the one that it came from.
  function sideBySide() {
    const { data, chosen } = view;
    const ordered = [...chosen].filter((place) => !chosen.has(data.models[place].base));
    for (const place of [...chosen].reverse()) {
      const base = data.models[place].base;
      if (chosen.has(base) && ordered.includes(base)) ordered.splice(ordered.indexOf(base) + 1, 0, place);
    }
    return [...ordered, ...[...chosen].filter((place) => !ordered.includes(place))];
  }

  function references(texts) {
    if (!texts || texts.length < 2) return block("h3", "Reference", (texts ?? []).join(""));
    const lines = texts.map((text, place) => element("li", {}, said(`Reference ${place + 1}`, text)));
    return element("div", { class: "block" }, element("h3", {}, "References"), element("ul", { class: "references" }, ...lines));
  }

  function head(item, tags) {
    const prompt = item.prompt ? said("Prompt as sent", item.prompt) : element("p", { class: "soft" }, "no text beside it");
    const left = element("div", {}, player(item), block("h3", "Gold transcript", item.instruction, "spoken"));
    const right = element("div", {},
      element("div", { class: "block" }, element("h3", {}, "Prompt as sent"), element("p", { class: "clip" }, badge("the clip")), prompt),
      references(item.references), block("h3", "Baseline answer", item.baseline), folded("Further facts for the scorer", item.extra));
    return element("div", {}, element("p", {}, ...tags.map((tag) => badge(tag))), element("div", { class: "pair" }, left, right));
  }

  function title() {
    const { data, at } = view;
    return element("h2", { id: "shown" }, element("a", { title: "Link to this item" }, `Item ${data.numbers[at]}`), " ",
      element("bdi", {}, data.ids[at]));
  }

  function card(place, item) {
    const { data, at } = view;
    const model = data.models[place];
    const found = item.answers[place];
    const facts = [item.option, found, data.statuses[data.status[place][at]], view.verdict(place, at), data.metrics, data.place,
      model.kind, model.command, found ? "" : model.state, data.models[model.base]?.label, model.base < 0 || [view.verdict(model.base, at), view.address(at, new Set([model.base, place]))]];
    return part(`card ${model.label}`, facts, () => answer(found, place, item.option));
  }

  function show(box, item, shown) {
    const other = view === null || box.dataset.number !== String(shown.data.numbers[shown.at]);
    view = shown;
    const { data, at } = view;
    if (other) {
      for (const audio of box.querySelectorAll("audio")) audio.pause();
      kept = new Map();
    }
    box.dataset.number = data.numbers[at];
    const { answers, ...facts } = item;
    const tags = [data.groups[data.group[at]], item.languages, item.seconds ? `${item.seconds.toFixed(1)} s` : ""].filter(Boolean);
    const link = part("title", [data.ids[at]], title);
    link.querySelector("a").href = view.address(at);
    const replies = part("replies", [], () => element("div", { class: "replies" }));
    arrange(replies, sideBySide().map((place) => card(place, item)));
    const held = box.contains(document.activeElement);
    arrange(box, [link, part("head", [facts, tags], () => head(item, tags)), replies]);
    if (held && !box.contains(document.activeElement)) box.focus({ preventScroll: true });
  }

  window.rbaItemView = { colour, show, sign };
})();
