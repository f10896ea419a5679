"use strict";
// What the pages share: elements, scripts that bring data, and looks at runs that are still being written. Texts of records are set as text, never as markup.
(function () {
  const POLL = 2000; // milliseconds between two looks at the runs
  const LONG = 900; // letters of a text that scrolls
  const LINES = 12; // the same

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  // For readers who hear the page; of its own direction, so that it does not decide the direction of a text around it.
  function hidden(text) {
    return element("span", { class: "hidden", dir: "ltr" }, text);
  }

  function badge(text, kind = "") {
    return element("span", { class: `badge ${kind}`.trim(), dir: "auto" }, text);
  }

  // A text of a record; a long one scrolls in a group of its own, which has a name and can be reached by keyboard.
  function said(title, text, kind = "") {
    const long = text.length > LONG || text.split("\n", LINES + 1).length > LINES;
    const group = long ? { tabindex: "0", role: "group", "aria-label": title } : {};
    return element("p", { class: `said ${long ? "long" : ""} ${kind}`.replace(/ +/g, " ").trim(), dir: "auto", ...group }, text || "(nothing)");
  }

  // Children that stay are not touched: a clip goes on playing, and what has the focus keeps it.
  function arrange(parent, children) {
    for (const child of [...parent.childNodes]) {
      if (!children.includes(child)) child.remove();
    }
    children.forEach((child, place) => {
      if (parent.childNodes[place] !== child) parent.insertBefore(child, parent.childNodes[place] ?? null);
    });
  }

  // A page on a disk may not fetch files, but it may load a script that calls a function with its data.
  function load(address, failed, done = () => {}) {
    const script = element("script", { src: address });
    const end = (then) => () => {
      script.remove();
      then();
    };
    script.addEventListener("load", end(done));
    script.addEventListener("error", end(failed));
    document.head.append(script);
  }

  function note(id, text) {
    const line = document.getElementById(id);
    if (line.textContent !== text) line.textContent = text; // an alert is read out again when it is set again
    line.hidden = !text;
  }

  function notes(texts) {
    arrange(document.getElementById("notes"), texts.map((text) => element("p", { class: "note" }, text)));
  }

  // Looks again and again at the version of the runs, below `top`, and calls `looked` with it and the names of sections.
  function follow(top, looked) {
    let turn = 0;
    const again = () => setTimeout(look, POLL);
    function look() {
      load(`${top}live.js?n=${(turn += 1)}`, () => {
        note("server", "The server does not answer: it may have ended.");
        again();
      }, again);
    }
    window.rbaLive = (version, sections) => {
      note("server", "");
      looked(version, sections);
    };
    look();
  }

  window.rbaParts = { element, hidden, badge, said, arrange, load, note, notes, follow };
})();
