"use strict";
// The page of a study: tables that sort, one search for methods over the whole page, and training curves. Without this
// script the page shows the same tables in their first order, and the loss of every method.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const POINTS = 8; // of a line up to which each is marked
  const SIZE = { width: 260, height: 150, left: 40, right: 12, top: 8, bottom: 32 }; // as in study/pictures.py

  // Sorting -----------------------------------------------------------------------------------------------------------

  function number(cell) {
    const value = Number.parseFloat((cell?.dataset.sort ?? cell?.textContent ?? "").replace("\u2212", "-"));
    return Number.isNaN(value) ? null : value;
  }

  function compareCells(left, right, sign) {
    const [a, b] = [number(left), number(right)];
    if (a !== null && b !== null) return sign * (a - b);
    if (a !== null || b !== null) return a === null ? 1 : -1; // what is no number comes last either way
    return sign * left.textContent.localeCompare(right.textContent);
  }

  function sortBy(table, head) {
    const ascending = head.getAttribute("aria-sort");
    const lowFirst = head.cellIndex === 0 || head.textContent.includes("lower is better");
    const first = lowFirst ? "ascending" : "descending";
    const order = ascending === null ? first : ascending === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.sort((a, b) => compareCells(a.cells[head.cellIndex], b.cells[head.cellIndex], sign));
    body.append(...rows);
  }

  function makeSortable(table) {
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sortBy(table, head));
      head.append(button);
    }
  }

  // One search over the page ------------------------------------------------------------------------------------------

  function wordsOf(text) {
    return text.toLowerCase().split(/[\s,;]+/).filter(Boolean);
  }

  function filterMethods(text) {
    const words = wordsOf(text);
    const fits = (name) => words.length === 0 || words.some((word) => name.toLowerCase().includes(word));
    const seen = new Map();
    for (const table of document.querySelectorAll("main table")) {
      const column = [...table.tHead.rows[0].cells].findIndex((head) => head.textContent.startsWith("method"));
      if (column < 0) continue;
      for (const body of table.tBodies) {
        for (const row of body.rows) {
          if (row.classList.contains("block")) continue;
          const name = row.cells[column].textContent;
          row.hidden = !fits(name);
          if (table.closest(".grid")) seen.set(name, fits(name));
        }
      }
    }
    for (const figure of document.querySelectorAll("#curves figure")) figure.hidden = !fits(figure.dataset.method);
    const shown = [...seen.values()].filter(Boolean).length;
    document.getElementById("count").textContent = words.length === 0 ? "" : `${shown} of ${seen.size} rows`;
  }

  const filter = document.getElementById("filter");
  filter.hidden = false;
  filter.addEventListener("submit", (event) => event.preventDefault());
  filter.elements.q.addEventListener("input", () => filterMethods(filter.elements.q.value));
  for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);

  // Training curves ---------------------------------------------------------------------------------------------------

  function element(name, attributes, ...content) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...content);
    return made;
  }

  // Round numbers around `values`, as leaderboard/site/axes.py chooses them.
  function axisOf(values, count) {
    let low = Math.min(...values);
    let high = Math.max(...values);
    if (high - low < 1e-9) [low, high] = [low - (Math.abs(low) || 1), high + (Math.abs(high) || 1)];
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= raw * 0.999);
    const first = Math.floor(low / step + 1e-6);
    const last = Math.ceil(high / step - 1e-6);
    const ticks = Array.from({ length: last - first + 1 }, (_, place) => Number(((first + place) * step).toPrecision(9)));
    return { ticks, share: (value) => (value - ticks[0]) / (ticks.at(-1) - ticks[0]) };
  }

  function tickText(value) {
    const size = Math.abs(value);
    const text = size !== 0 && (size >= 1e5 || size < 1e-3) ? value.toExponential() : String(value);
    return text.replaceAll("-", "\u2212").replace("e+", "e");
  }

  function frame(xAxis, yAxis, xName) {
    const { width, height, left, right, top, bottom } = SIZE;
    const made = [];
    for (const tick of yAxis.ticks) {
      const y = height - bottom - yAxis.share(tick) * (height - top - bottom);
      made.push(element("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }));
      made.push(element("text", { x: left - 5, y: y + 3.5, "text-anchor": "end" }, tickText(tick)));
    }
    for (const tick of xAxis.ticks) {
      const x = left + xAxis.share(tick) * (width - left - right);
      made.push(element("line", { class: "grid", x1: x, x2: x, y1: height - bottom, y2: height - bottom + 4 }));
      made.push(element("text", { x, y: height - bottom + 15, "text-anchor": "middle" }, tickText(tick)));
    }
    made.push(element("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, xName));
    return made;
  }

  function lineOf(line, xAxis, yAxis, seeds, seedWays) {
    const { width, height, left, right, top, bottom } = SIZE;
    const spots = line.values.map(([x, y]) => [
      left + xAxis.share(x) * (width - left - right),
      height - bottom - yAxis.share(y) * (height - top - bottom),
    ]);
    const group = element("g", { class: `seed-${seeds.indexOf(line.seed) % seedWays}` });
    group.append(element("title", {}, `seed ${line.seed}`));
    group.append(element("polyline", { class: "curve", points: spots.map((spot) => spot.map((each) => each.toFixed(1))).join(" ") }));
    if (spots.length <= POINTS) {
      for (const [cx, cy] of spots) group.append(element("circle", { cx: cx.toFixed(1), cy: cy.toFixed(1), r: 2.2 }));
    }
    return group;
  }

  function picture(title, lines, xAxis, yAxis, xName, seeds) {
    const made = element("svg", { class: "figure", viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img" });
    const texts = lines.map(({ seed, values }) => {
      const [start, end] = [values[0], values.at(-1)];
      return `seed ${seed}: ${start[1]} at ${start[0]}, ${end[1]} at ${end[0]}`;
    });
    made.append(element("title", {}, title), element("desc", {}, texts.join("; ")));
    made.append(...frame(xAxis, yAxis, xName), ...lines.map((line) => lineOf(line, xAxis, yAxis, seeds, 5)));
    return made;
  }

  // The lines of every method that has the figure: pairs of place and value.
  function linesOf(data, figure, against, budget) {
    const found = new Map();
    for (const run of data.runs) {
      if (run.budget !== budget || !run[figure] || !run[against]) continue;
      const values = run[against].map((x, place) => [x, run[figure][place]]).filter(([x, y]) => x !== null && y !== null);
      if (values.length === 0) continue;
      if (!found.has(run.method)) found.set(run.method, []);
      found.get(run.method).push({ seed: run.seed, values });
    }
    return found;
  }

  function drawNumbers(found, title) {
    const table = document.getElementById("curve-numbers");
    table.caption.firstChild.textContent = `${title}, at five points of each run; all points: `;
    const rows = [];
    for (const [method, lines] of found) {
      for (const { seed, values } of lines) {
        const row = document.createElement("tr");
        const head = document.createElement("th");
        head.scope = "row";
        head.textContent = `${method}, seed ${seed}`;
        row.append(head);
        for (const share of [0, 0.25, 0.5, 0.75, 1]) {
          row.insertCell().textContent = String(Number(values[Math.round(share * (values.length - 1))][1].toPrecision(4)));
        }
        rows.push(row);
      }
    }
    table.tBodies[0].replaceChildren(...rows);
  }

  function draw(data, controls) {
    const figure = data.figures.find((each) => each.name === controls.figure.value);
    const against = controls.against.value;
    const budget = controls.budget.value;
    const xName = against === "step" ? "training step" : "training time, s";
    const found = linesOf(data, figure.name, against, budget);
    const panels = [];
    const all = [...found.values()].flat().flatMap((line) => line.values);
    if (all.length > 0) {
      const xAxis = axisOf([0, ...all.map(([x]) => x)], 3);
      const shared = figure.shared ? axisOf(all.map(([, y]) => y), 3) : null;
      for (const method of data.methods.filter((each) => found.has(each))) {
        const lines = found.get(method);
        const yAxis = shared ?? axisOf(lines.flatMap((line) => line.values.map(([, y]) => y)), 3);
        const panel = document.createElement("figure");
        panel.dataset.method = method;
        const caption = document.createElement("figcaption");
        caption.textContent = method;
        panel.append(caption, picture(`${method}: ${figure.title} by ${xName}`, lines, xAxis, yAxis, xName, data.seeds));
        panels.push(panel);
      }
    } else {
      const none = document.createElement("p");
      none.className = "soft";
      none.textContent = "No run under this budget has this figure.";
      panels.push(none);
    }
    document.getElementById("curves").replaceChildren(...panels);
    const budgetName = controls.budget.selectedOptions[0].textContent;
    drawNumbers(found, `${figure.title[0].toUpperCase()}${figure.title.slice(1)}, ${budgetName}`);
    filterMethods(filter.elements.q.value);
  }

  function fill(select, pairs) {
    select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
  }

  // Called by site/curves.js, which runs behind this script.
  window.rbaCurves = (data) => {
    const form = document.getElementById("curve-controls");
    const controls = form.elements;
    fill(controls.figure, data.figures.map((each) => [each.name, each.title]));
    fill(controls.budget, data.budgets);
    form.hidden = false;
    form.addEventListener("change", () => draw(data, controls));
    draw(data, controls);
  };
})();
