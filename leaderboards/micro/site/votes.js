"use strict";
// What judges said of an answer: each vote with its order, its reason and its raw reply, and what else a record holds.
(function () {
  const { element, badge, said } = window.rbaParts;
  const ORDERS = { baseline_first: "baseline answer first", model_first: "this answer first" };
  const VOTE = ["order", "reply", "reason", "failures", "seed", "top_logprobs"]; // what has a place of its own in a vote
  const NAMES = { preference: "preference for this answer" };

  const isObject = (value) => value !== null && typeof value === "object";

  function text(value) {
    return typeof value === "number" ? String(Number(value.toFixed(4))) : String(value);
  }

  // Likeliest first tokens; what a record holds is somebody else's, so anything may stand there.
  function tokens(list) {
    if (!Array.isArray(list) || !list.every((each) => Array.isArray(each) && typeof each[1] === "number")) return facts(list);
    const line = element("span", {});
    list.forEach(([token, logprob], place) => {
      line.append(place ? ", " : "", element("code", { dir: "auto" }, JSON.stringify(token)), ` ${(100 * Math.exp(logprob)).toFixed(1)} %`);
    });
    return line;
  }

  function vote(value, place) {
    const title = [`Vote ${place + 1}`, ORDERS[value.order] ?? value.order].filter((each) => each !== undefined).map(text).join(", ");
    const box = element("li", {}, element("p", { class: "vote" }, element("b", { dir: "auto" }, title), " "));
    const rest = Object.fromEntries(Object.entries(value).filter(([name]) => !VOTE.includes(name)));
    const short = Object.entries(rest).filter(([, each]) => !isObject(each) && text(each).length < 40);
    for (const [name, each] of short) {
      box.firstChild.append(badge(`${NAMES[name] ?? name} ${text(each)}`), " ");
      delete rest[name];
    }
    if (value.failures !== undefined) {
      box.firstChild.append(badge("no vote", "bad"));
      for (const failure of [value.failures].flat()) box.append(isObject(failure) ? facts(failure) : said(title, text(failure)));
    }
    const parts = [["reason", "Reason"], ["reply", "Raw reply"]].filter(([name]) => value[name] !== undefined);
    for (const [name, heading] of parts) {
      box.append(element("h5", {}, heading), isObject(value[name]) ? facts(value[name]) : said(heading, text(value[name])));
    }
    if (Object.keys(rest).length) box.append(facts(rest));
    const small = element("p", { class: "soft" });
    if (value.top_logprobs !== undefined) small.append("Likeliest first tokens: ", tokens(value.top_logprobs), ". ");
    if (value.seed !== undefined) small.append(`Seed ${text(value.seed)}.`);
    if (small.childNodes.length) box.append(small);
    return box;
  }

  // Any JSON, as names and values.
  function facts(value) {
    if (!isObject(value)) return element("span", { dir: "auto" }, text(value));
    const lines = element("dl", { class: "votes" });
    for (const [name, each] of Object.entries(value)) {
      const title = Array.isArray(value) ? String(Number(name) + 1) : name;
      lines.append(element("dt", { dir: "auto" }, title), element("dd", {}, facts(each)));
    }
    return lines;
  }

  // What one judge said: its votes over the whole width, then the rest.
  function judge([name, said]) {
    const { votes, ...rest } = isObject(said) && !Array.isArray(said) ? said : { said };
    const known = Array.isArray(votes) && votes.every((one) => isObject(one) && !Array.isArray(one));
    if (votes !== undefined && !known) rest.votes = votes;
    return [element("h5", { dir: "auto" }, name), known ? element("ol", { class: "ballots" }, ...votes.map(vote)) : null,
      Object.keys(rest).length ? facts(isObject(said) ? rest : said) : null].filter(Boolean);
  }

  window.rbaVotes = (judges) => element("div", { class: "judges" }, ...Object.entries(judges).flatMap(judge));
})();
