"use strict";
// Two models beside each other: their paired differences in each setting.
(function () {
  const { element, hidden } = window.rbaParts;
  const { number, interval, breakable, sampleAddress, VERDICTS } = window.rbaTexts;
  const SVG = "http://www.w3.org/2000/svg";

  // Value, ends and mark of `a` minus `b`, from the details of a setting; null where the page does not hold it.
  function difference(details, a, b) {
    for (const [first, second, value, low, high, mark] of details.pairs) {
      if (first === a && second === b) return [value, low, high, mark];
      if (first === b && second === a) return [-value, -high, -low, -mark];
    }
    const [left, right] = [details.rows.get(a), details.rows.get(b)];
    if ([...details.rows.values()].filter((row) => row.baseline).length !== 1) return null; // which one, is not known
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

  function row(board, place, gap, pair, reach) {
    const setting = board.settings[place];
    const texts = pair.map((model) => number(board.scores[place].get(model)[1], setting.digits));
    const title = setting.samples
      ? [element("a", { href: sampleAddress(setting, pair.map((model) => board.models[model].label)) }, ...breakable(setting.title))]
      : breakable(setting.title);
    const metric = window.rbaColumns.heading(setting, "scores").metric;
    return element("tr", {}, element("th", { scope: "row" }, ...title, element("span", { class: "ends" }, metric)),
      element("td", {}, texts[0]), element("td", {}, texts[1]),
      element("td", { class: "plot" }, ...(gap ? [mark(gap, setting, reach)] : [])),
      element("td", {}, gap ? interval(gap, setting.digits, true).join(" ") : "\u2013"),
      element("td", { class: "text verdict" }, gap ? VERDICTS[gap[3]] : "not known here"));
  }

  function summary(gaps, n, a, b) {
    const better = gaps.filter((gap) => gap[3] > 0).length, worse = gaps.filter((gap) => gap[3] < 0).length;
    const line = element("p", { class: "soft" }, gaps.length
      ? `Paired differences: ${better} better, ${worse} worse, ${gaps.length - better - worse} not told apart, each tested for itself. Right of the line, ${a.label} is better. `
      : n ? "This page holds no differences of these two. " : "The two have no setting in common. ");
    if (n) line.append("In the folder of this board: ", element("code", {}, `rba-bench compare ${a.folder} ${b.folder}`));
    return line;
  }

  // What stands below the table for two models.
  //   places: of the settings in which both have a score; details: of these settings, null for one that cannot be read.
  function comparison(board, pair, places, details) {
    const [a, b] = pair.map((model) => board.models[model]);
    const all = places.map((_, i) => details[i] && difference(details[i], ...pair)), gaps = all.filter(Boolean);
    const reach = Math.max(1, ...gaps.flatMap((gap) => gap.slice(1, 3).map(Math.abs)));
    const column = (text, kind = null) => element("th", { scope: "col", class: kind }, text);
    const head = element("tr", {}, column(hidden("setting")), column(a.label), column(b.label), column(hidden("interval"), "plot"),
      column("difference, 95 %"), column(a.label + " is", "text"));
    return [
      element("h3", {}, a.label + " minus " + b.label),
      summary(gaps, places.length, a, b),
      element("div", { class: "scroll forest compared", tabindex: "0", role: "region", "aria-label": "Differences" },
        element("table", {}, element("thead", {}, head),
          element("tbody", {}, ...places.map((place, i) => row(board, place, all[i], pair, reach))))),
    ];
  }

  window.rbaComparison = comparison;
})();
