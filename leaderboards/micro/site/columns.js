"use strict";
// The columns of the main table: a heading, and for each model what stands in its cell and what it is sorted by.
(function () {
  const { element, hidden, badge } = window.rbaParts;
  const { number, interval, band, size, address, sampleAddress, VERDICTS } = window.rbaTexts;
  const SHOWS = {
    scores: "scores and ranks", differences: "differences from the baseline", gaps: "gap to the text ceiling",
    failures: "not ok", speed: "speed (RTFx)", size: "parameters",
  };

  function cell(parts, sort, attributes = {}) {
    return { parts, sort, attributes };
  }

  const NOTHING = cell(["\u2013"], null, { class: "none" });

  function textCell(text) {
    return cell([text], text, { class: "text" });
  }

  function small(...children) {
    return element("span", { class: "ends" }, ...children);
  }

  // Cells of one setting's details, see `setting_data` in facts.py.

  function differenceCell(setting, gap) {
    if (!gap) return NOTHING;
    const [value, ends] = interval(gap, setting.digits, true);
    const mark = gap[3] ? element("span", { class: "told" }, "*", hidden(" " + VERDICTS[gap[3]])) : null;
    return cell([element("b", {}, value), mark, small(ends)], gap[0]);
  }

  function failuresCell(row) {
    const total = Object.values(row.failures).reduce((sum, n) => sum + n, 0);
    const reasons = Object.entries(row.failures).map(([status, n]) => status + " " + n).join(", ");
    const share = total ? number((100 * total) / row.items, 1) + " %" : "0";
    return cell([element("b", {}, share), reasons ? small(reasons) : null], total / row.items);
  }

  function retainedCell(row, control) {
    if (!(control in row.retained)) return NOTHING;
    const [value, ends] = interval(row.retained[control], 1, false);
    return cell([element("b", {}, value + " %"), small(ends)], row.retained[control][0]);
  }

  function sizeCell(row) {
    if (row.size === null) return NOTHING;
    const parts = row.parts.map(([name, parameters]) => name + " " + size(parameters)).join(" + ");
    return cell([element("b", {}, size(row.size)), parts ? small(parts) : null], row.size);
  }

  const DETAILED = {
    differences: (setting, row) => (row.baseline ? cell(["baseline"], 0, { class: "none" }) : differenceCell(setting, row.versus)),
    gaps: (setting, row) => ({ ...differenceCell(setting, row.gap), attributes: row.ceiling ? { title: "from " + row.ceiling } : {} }),
    failures: (setting, row) => failuresCell(row),
    speed: (setting, row) => (row.rtfx === null ? NOTHING : cell([String(row.rtfx)], row.rtfx)),
    size: (setting, row) => sizeCell(row),
  };

  // Key and name of all that can be shown of several settings.
  function shows(board) {
    const controls = [...new Set(board.settings.flatMap((setting) => setting.controls))];
    return new Map([...Object.entries(SHOWS), ...controls.map((name) => ["retained " + name, "retained without the speech: " + name])]);
  }

  function detailed(show, setting, row) {
    return show.startsWith("retained ") ? retainedCell(row, show.slice("retained ".length)) : DETAILED[show](setting, row);
  }

  // For sorting: whether the lowest is the best, and so comes first.
  function heading(setting, kind) {
    const ofScore = kind === "scores" || kind === "differences" || kind === "gaps";
    const lower = kind === "gaps" ? !setting.lower : ofScore ? setting.lower : kind !== "speed";
    return { metric: setting.metric + (setting.lower ? ", lower is better" : ""), ofScore, lower };
  }

  // What is shown of the chosen settings.
  //   board: what the page knows from the start; filters: see filters.js; places: of the settings;
  //   loaded: their details, null for one that could not be read, empty where only scores are shown.
  function columns(board, filters, places, loaded) {
    const names = shows(board);
    const rowOrigins = new Map(); // by model

    function scoreCell(place, model) {
      const setting = board.settings[place], row = board.scores[place].get(model);
      if (!row) return NOTHING;
      const [value, ends] = interval(row.slice(1, 4), setting.digits, false);
      const rank = row.length > 4 ? element("span", { class: "rank" }, hidden("rank "), band(row[4], row[5])) : null;
      const label = board.models[model].label;
      const main = setting.samples
        ? element("a", { href: sampleAddress(setting, [label]), title: "Answers of " + label }, value)
        : element("b", {}, value);
      const partial = setting.partial.includes(model) ? badge("partial", "bad") : null;
      const without = setting.speechless[model] ?? null; // the best score in silence or with another clip
      const speechless = without === null ? null : small("no speech: " + number(without, setting.digits));
      return cell([rank, partial, main, small(ends), speechless], row[1]);
    }

    // Where a score comes from: a label and the facts behind it. A row has the weakest label of the scores that it shows.

    function rowOrigin(model) {
      if (!rowOrigins.has(model)) {
        const found = places.filter((place) => filters.has(place, model)).map((place) => board.origins[place].get(model));
        const label = board.trust.find((each) => found.some((origin) => origin[0] === each));
        const same = found.filter((origin) => origin[0] === label), facts = [...new Set(same.map((origin) => origin[1]))];
        const share = found.length > 1 ? `${same.length} of ${found.length} scores: ` : "";
        rowOrigins.set(model, [label, share + (facts.length === 1 ? facts[0] : "each with facts of its own")]);
      }
      return rowOrigins.get(model);
    }

    function originBadge([label, facts]) {
      const made = badge(label, label === board.trust.at(-1) ? "good" : "");
      made.title = facts;
      return made;
    }

    // A score whose provenance is not that of its row says so.
    function withOrigin(made, place, model) {
      const origin = board.origins[place].get(model);
      if (origin[0] !== rowOrigin(model)[0]) made.parts.push(small(originBadge(origin)));
      return made;
    }

    function originCell(place, model, file) {
      const [label, facts] = board.origins[place].get(model);
      const name = file ? element("a", { href: address(file) }, label) : label;
      return cell([name, element("span", { class: "ends facts" }, facts)], board.trust.indexOf(label), { class: "text" });
    }

    function ofSetting(place, details) {
      const setting = board.settings[place], { metric, ofScore, lower } = heading(setting, filters.state.show);
      return {
        key: setting.section, title: setting.title, metric: ofScore ? metric : names.get(filters.state.show), lower,
        cell: (model) => {
          if (!filters.has(place, model)) return NOTHING;
          if (filters.state.show === "scores") return withOrigin(scoreCell(place, model), place, model);
          const row = details?.rows.get(model);
          return row ? detailed(filters.state.show, setting, row) : NOTHING;
        },
      };
    }

    // One setting alone: all that is known of it.
    function oneSetting(place, details) {
      const setting = board.settings[place];
      const column = (key, title, make, lower = false, metric = "") => ({
        key, title, metric, lower,
        cell: (model) => {
          const row = details?.rows.get(model);
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

    const model = { key: "model", title: "model", metric: "", lower: true, cell: (place) => textCell(board.models[place].label) };
    const list = places.length === 1 ? oneSetting(places[0], loaded[0]) : places.map((place, order) => ofSetting(place, loaded[order]));
    return { model, list, badge: (place) => originBadge(rowOrigin(place)) };
  }

  window.rbaColumns = { columns, shows, heading };
})();
