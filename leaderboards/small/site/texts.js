"use strict";
// How the front page writes numbers, names and addresses. A minus is a minus, and a zero has no sign.
(function () {
  const { element } = window.rbaParts;
  const UNITS = [["B", 1e9], ["M", 1e6], ["k", 1e3]];

  function number(value, digits, signed) {
    const text = Math.abs(value).toFixed(digits);
    const sign = Number(text) === 0 ? "" : value < 0 ? "\u2212" : signed ? "+" : "";
    return sign + text;
  }

  // Value and ends as two texts: `12.3`, `[11.0, 13.6]`.
  function interval(ends, digits, signed) {
    const [value, low, high] = ends.slice(0, 3).map((end) => number(end, digits, signed));
    return [value, "[" + low + ", " + high + "]"];
  }

  function band(best, worst) {
    return best === worst ? String(best) : best + "\u2013" + worst;
  }

  function size(parameters) {
    for (const [unit, amount] of UNITS) {
      if (parameters >= amount * 0.9995) return Number((parameters / amount).toPrecision(3)) + "\u00a0" + unit;
    }
    return String(parameters);
  }

  function breakable(text) {
    return text.split(/(?<=_)/).flatMap((part, i) => (i ? [element("wbr", {}), part] : [part]));
  }

  function address(path) {
    return path.split("/").map(encodeURIComponent).join("/");
  }

  function sampleAddress(setting, labels) {
    return "samples/" + encodeURIComponent(setting.section) + "/index.html#models=" + labels.map(encodeURIComponent).join(",");
  }

  const VERDICTS = { "1": "better", "-1": "worse", "0": "not told apart" };

  window.rbaTexts = { number, interval, band, size, breakable, address, sampleAddress, VERDICTS };
})();
