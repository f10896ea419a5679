"use strict";
// One item of a page of samples: the clip, what is known of it, and the answers of the chosen models side by side.
// Texts of records are set as text, never as markup. `samples.js` calls window.rbaItemView.
(function () {
  const LONG = 900; // letters of a text that scrolls
  const SPEEDS = [0.75, 1, 1.25, 1.5];
  const NO_SIGN = "·";
  const INPUTS = { ceiling: "reads the transcript instead of the clip", cascade: "a recogniser, then a text model",
    constant: "one constant answer" };
  let speed = 1; // of all players
  let view = null; // what is shown: { data, at, chosen, verdict, address }, see `samples.js`

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function hidden(text) {
    return element("span", { class: "hidden" }, text);
  }

  const sign = (failed) => (failed === null ? NO_SIGN : failed ? "✗" : "✓");
  const words = (failed) => (failed === null ? "no verdict" : failed ? "failure" : "no failure");
  const colour = (failed) => (failed === null ? "" : failed ? "fails" : "passes");

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
    const { data, at } = view;
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

  function answer(found, place, option) {
    const { data, at } = view;
    const model = data.models[place];
    const failed = view.verdict(place, at);
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
      differences("Answer beside the nearest reference", found.words),
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
    const { data, chosen } = view;
    const ordered = [...chosen].filter((place) => !chosen.has(data.models[place].base));
    for (const place of [...chosen].reverse()) {
      const base = data.models[place].base;
      if (chosen.has(base) && ordered.includes(base)) ordered.splice(ordered.indexOf(base) + 1, 0, place);
    }
    return [...ordered, ...[...chosen].filter((place) => !ordered.includes(place))];
  }

  function show(box, item, shown) {
    view = shown;
    const { data, at } = view;
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
      element("h2", { id: "shown" }, element("a", { href: view.address(at), title: "Link to this item" },
        `Item ${data.numbers[at]}`), ` ${data.ids[at]}`),
      element("p", {}, ...tags.filter(Boolean).map((tag) => element("span", { class: "badge" }, tag))),
      element("div", { class: "pair" }, left, right),
      element("div", { class: "replies" }, ...sideBySide().map((place) => answer(item.answers[place], place, item.option))));
  }

  window.rbaItemView = { colour, element, hidden, show, sign };
})();
