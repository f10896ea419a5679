"use strict";
// The address of a view of samples: the item, the models side by side, and the filters, by names that stay the same when
// items and models are added.
(function () {
  function decoded(text) {
    try {
      return decodeURIComponent(text.replaceAll("+", " "));
    } catch {
      return ""; // not an address of this page
    }
  }

  // What stands for a choice whose value is a place in a list: `=2` in the field, its text in the address.
  function lists(data) {
    return { group: data.groups, status: data.statuses };
  }

  function write(data, place, chosen, fields) {
    const parts = data.numbers.length ? [`item=${data.numbers[place]}`] : [];
    if (chosen.size !== data.models.length) {
      parts.push("models=" + [...chosen].map((model) => encodeURIComponent(data.models[model].label)).join(","));
    }
    for (const [name, value] of Object.entries(fields)) {
      const texts = lists(data)[name];
      parts.push(`${name}=${encodeURIComponent(texts ? texts[Number(value.slice(1))] : value)}`);
    }
    return "#" + parts.join("&");
  }

  // The place is undefined where the address names no item, and null where the page does not have it.
  function read(hash, data, names) {
    const parts = new Map(hash.slice(1).split("&").map((part) => {
      const cut = part.indexOf("=");
      return cut < 0 ? [part, ""] : [part.slice(0, cut), part.slice(cut + 1)];
    }));
    const fields = names.filter((name) => parts.has(name)).map((name) => {
      const value = decoded(parts.get(name));
      const texts = lists(data)[name];
      return [name, !texts ? value : texts.includes(value) ? `=${texts.indexOf(value)}` : ""];
    });
    const labels = (parts.get("models") ?? "").split(",").map(decoded);
    const models = [...data.models.keys()].filter((place) => labels.includes(data.models[place].label));
    const place = data.numbers.indexOf(Number(decoded(parts.get("item") ?? "") || NaN));
    return { fields, models, place: !parts.has("item") ? undefined : place < 0 ? null : place };
  }

  window.rbaAddresses = { write, read };
})();
