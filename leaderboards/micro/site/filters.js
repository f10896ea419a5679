"use strict";
// What a reader has chosen on the front page: filters, search, order and the models to compare. It stands in the address.
(function () {
  const DEFAULTS = { q: "", track: "", setting: "", decoding: "", type: "", provenance: "", show: "scores", sort: "", order: "" };
  const SELECTS = ["track", "setting", "decoding", "type", "provenance", "show"];

  function distinct(values) {
    return [...new Set(values)].sort().map((value) => [value, value]);
  }

  // The choices of the form.
  //   shows: keys and names of what can be shown of several settings; changed: called when a choice has changed, with
  //   whether the table begins anew.
  function filters(board, form, shows, changed) {
    let state = { ...DEFAULTS, compare: [] };
    const choicesOf = (name) => [...form.elements[name].options].map((option) => option.value);

    function fill(name, choices, all) {
      const select = form.elements[name];
      const options = choices.length > 1 && all ? [["", all], ...choices] : choices;
      select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
      select.disabled = options.length < 2;
      select.closest("label").hidden = select.disabled; // nothing to choose
    }

    // Whether a model has a score in a setting, of the provenance that is asked for.
    function has(place, model) {
      return board.scores[place].has(model) && (!state.provenance || board.origins[place].get(model)[0] === state.provenance);
    }

    function settings() {
      return [...board.settings.keys()].filter((place) => {
        const setting = board.settings[place];
        return (!state.track || setting.track === state.track) && (!state.setting || setting.section === state.setting) &&
          (!state.decoding || setting.decoding === state.decoding);
      });
    }

    function models(places) {
      const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
      return [...board.models.keys()].filter((model) => {
        const each = board.models[model], text = (each.label + " " + each.type).toLowerCase();
        return words.every((word) => text.includes(word)) && (!state.type || each.type === state.type) &&
          places.some((place) => has(place, model));
      });
    }

    // False where the address names a place on the page.
    function readAddress() {
      const text = location.hash.slice(1);
      if (text && !text.includes("=")) return false;
      const asked = new URLSearchParams(text);
      state = { ...DEFAULTS, compare: asked.getAll("compare").slice(0, 2) };
      for (const name of Object.keys(DEFAULTS)) if (asked.has(name)) state[name] = asked.get(name);
      for (const name of SELECTS) {
        const choices = choicesOf(name);
        if (!choices.includes(state[name])) state[name] = choices.includes(DEFAULTS[name]) ? DEFAULTS[name] : choices[0];
      }
      if (!["ascending", "descending"].includes(state.order)) state.order = state.sort ? "descending" : "";
      for (const name of ["q", ...SELECTS]) form.elements[name].value = state[name];
      changed(true);
      return true;
    }

    function writeAddress() {
      const asked = new URLSearchParams();
      const only = (name) => form.elements[name]?.options?.length === 1;
      for (const [name, value] of Object.entries(DEFAULTS)) if (state[name] !== value && !only(name)) asked.set(name, state[name]);
      for (const label of state.compare) asked.append("compare", label);
      const text = asked.toString();
      history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
    }

    function change(changes, anew = false) {
      Object.assign(state, changes);
      writeAddress();
      changed(anew);
    }

    function start() {
      fill("track", distinct(board.settings.map((setting) => setting.track)), "all");
      fill("setting", board.settings.map((setting) => [setting.section, setting.title]), "all");
      fill("decoding", distinct(board.settings.map((setting) => setting.decoding)), "all");
      fill("type", distinct(board.models.map((model) => model.type)), "all");
      fill("provenance", distinct(board.provenances.map((origin) => origin[0])), "all");
      fill("show", [...shows]);
      form.hidden = false;
      form.addEventListener("submit", (event) => event.preventDefault());
      form.addEventListener("input", (event) => change({ [event.target.name]: event.target.value }, true));
      form.addEventListener("reset", () => {
        history.replaceState(null, "", location.pathname + location.search);
        setTimeout(readAddress); // when the fields have been reset
      });
      window.addEventListener("hashchange", readAddress);
      if (!readAddress()) changed(true);
    }

    return { get state() { return state; }, has, settings, models, change, start };
  }

  window.rbaFilters = filters;
})();
