"use strict";
// The list of runs, while some of them are still being written.
(function () {
  const { element, badge, load, notes, follow } = window.rbaParts;
  const rows = document.getElementById("runs");

  function models(list) {
    return list.flatMap((model, place) => [place ? ", " : "", model.name, ...(model.state ? [" ", badge(model.state)] : [])]);
  }

  function row(section) {
    const link = element("a", { href: `samples/${section.name}/index.html` }, section.name);
    return element("tr", {}, element("th", { scope: "row" }, link), element("td", { class: "text" }, section.facts),
      element("td", {}, section.items), element("td", { class: "text models" }, ...models(section.models)));
  }

  window.rbaRuns = function (now) {
    const held = rows.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    rows.replaceChildren(...now.sections.map(row));
    if (held) [...rows.querySelectorAll("a")].find((link) => link.getAttribute("href") === held)?.focus({ preventScroll: true });
    notes(now.notes);
  };

  follow("", (version) => {
    if (version === rows.dataset.version) return;
    load(`now.js?v=${encodeURIComponent(version)}`, () => {}, () => { rows.dataset.version = version; });
  });
})();
