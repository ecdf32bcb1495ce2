"use strict";
// Rollouts lie in the page as gzipped JSON (packing.py). Foreign text reaches the page by textContent alone.
(() => {
  const PAGE = 20;
  const ALL = "";
  const KINDS = { correct: "right", wrong: "wrong", unparsable: "wrong" };
  const MARKS = { right: "\u2713", wrong: "\u2717" };
  const FILTERS = ["iteration", "verdict", "fate", "task", "level"];
  const ORDERS = {
    "as written": null,
    "prompt": (row) => data.prompt(row)[0],
    "most tokens": (row) => -data.columns.tokens[row],
    "fewest tokens": (row) => data.columns.tokens[row],
    "highest reward": (row) => -(data.columns.reward[row] ?? -1),
    "lowest reward": (row) => data.columns.reward[row] ?? 2,
    "least likely": (row) => -(data.columns.surprisal[row] ?? -1),
    "most likely": (row) => data.columns.surprisal[row] ?? Infinity,
  };
  // what cannot be seen, or turns the direction of what follows
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

  const find = (selector) => document.querySelector(selector);
  const form = find("#filters");
  const state = { rows: [], page: 0, compared: null, request: 0 };
  let data = null;

  // ------------------------------------------------------------ reading

  async function unpack(name) {
    const island = document.getElementById(name);
    if (island === null) return null;
    const bytes = Uint8Array.from(atob(island.textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  function remembered(kind, most) {
    const known = new Map();
    return (number) => {
      const found = known.get(number) ?? unpack(`${kind}-${number}`);
      known.delete(number);
      known.set(number, found);
      if (known.size > most) known.delete(known.keys().next().value);
      return found;
    };
  }

  const texts = remembered("texts", 400);
  const tokens = remembered("tokens", 40);

  async function load() {
    const head = await unpack("head");
    const { columns, names, prompts } = head;
    const values = {
      iteration: (row) => columns.iteration[row],
      verdict: (row) => names.verdict[columns.verdict[row]],
      fate: (row) => names.fate[columns.fate[row]],
      reason: (row) => names.reason[columns.reason[row]],
      finish: (row) => names.finish[columns.finish[row]],
      task: (row) => prompts[columns.prompt[row]][1],
      level: (row) => prompts[columns.prompt[row]][2],
    };
    const rows = columns.iteration.map((_, row) => row);
    const visits = prompts.map(() => []);
    for (const row of rows) visits[columns.prompt[row]].push(row);
    const prompt = (row) => prompts[columns.prompt[row]];
    return { ...head, values, rows, prompt, answers: (row) => visits[columns.prompt[row]] };
  }

  // ------------------------------------------------------------ choosing

  function wanted() {
    const chosen = FILTERS.filter((name) => form[name].value !== ALL);
    const prompt = form.prompt.value.trim();
    return data.rows.filter(
      (row) =>
        chosen.every((name) => String(data.values[name](row)) === form[name].value.slice(1)) &&
        (prompt === "" || String(data.prompt(row)[0]) === prompt),
    );
  }

  async function containing(rows, sought, request) {
    const lower = sought.toLowerCase();
    const asked = data.prompts.map((prompt) => prompt[4].toLowerCase().includes(lower));
    const found = [];
    for (const row of rows) {
      const part = await textsAt(row, request);
      if (part === null) return null;
      if (asked[data.columns.prompt[row]] || part.toLowerCase().includes(lower)) found.push(row);
    }
    return found;
  }

  const open = { number: -1, part: null };
  async function textsAt(row, request) {
    const number = Math.floor(row / data.chunk);
    if (open.number !== number) {
      const part = await texts(number);
      if (request !== state.request) return null;
      open.number = number;
      open.part = part;
    }
    return open.part[row % data.chunk];
  }

  async function choose() {
    const request = ++state.request;
    let rows = wanted();
    const sought = form.search.value;
    if (sought !== "") {
      say("searching");
      rows = await containing(rows, sought, request);
      if (rows === null || request !== state.request) return;
    }
    const order = ORDERS[form.order.value];
    if (order) rows.sort((a, b) => order(a) - order(b) || a - b);
    Object.assign(state, { rows, page: 0, compared: null });
    await show();
  }

  // ------------------------------------------------------------ showing

  function make(tag, name, text, ...children) {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined && text !== null) node.textContent = text;
    node.append(...children);
    return node;
  }

  const visible = (text) =>
    text.replace(HIDDEN, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);

  const shade = (logProb) => `rgba(213, 94, 0, ${Math.min(0.7, 0.2 * -logProb).toFixed(3)})`;

  function likelihood(logProb) {
    const p = Math.exp(logProb);
    return `p = ${(100 * p).toPrecision(p > 0.995 ? 3 : 2)}%, log p = ${logProb.toFixed(2)}`;
  }

  async function answer(row) {
    const number = Math.floor(row / data.chunk);
    const text = (await texts(number))[row % data.chunk];
    const response = make("pre", "response");
    const parts = form.colour.checked ? await tokens(number) : null;
    const [lengths, levels] = parts ? parts[row % data.chunk] : ["", ""];
    if (levels === "") response.textContent = visible(text);
    else response.append(...coloured(text, lengths, levels));
    return response;
  }

  function* coloured(text, lengths, levels) {
    let start = 0;
    for (let piece = 0; piece < levels.length; piece++) {
      const length = lengths.charCodeAt(piece) - data.shortest;
      const logProb = -(((levels.charCodeAt(piece) - data.lowest) / data.levels_per_root) ** 2);
      const span = make("span", length ? null : "end", length ? visible(text.slice(start, start + length)) : "end");
      span.style.backgroundColor = shade(logProb);
      span.title = likelihood(logProb);
      start += length;
      yield span;
    }
    if (start < text.length) yield visible(text.slice(start));
  }

  function facts(row) {
    const { columns, values } = data;
    const [start, end] = [columns.version[row], columns.version_end[row]];
    return [
      `answer ${columns.answer[row]}`,
      values.fate(row),
      columns.reward[row] === null ? "no reward" : `reward ${Number(columns.reward[row].toFixed(3))}`,
      `${columns.tokens[row]} tokens${values.finish(row) === "length" ? ", cut off" : ""}`,
      `policy ${start === end ? start : `${start} to ${end}`}`,
      columns.surprisal[row] === null ? null : `mean log p ${(-columns.surprisal[row] / 1000).toFixed(3)}`,
    ].filter((fact) => fact !== null);
  }

  async function entry(row) {
    const verdict = data.values.verdict(row);
    const chip = make("span", `verdict ${KINDS[verdict] ?? "open"}`, `${MARKS[KINDS[verdict]] ?? "?"} ${visible(verdict)}`);
    chip.title = `the grader says: ${visible(data.values.reason(row))}`;
    const line = make("p", "facts", null, chip, " ");
    for (const fact of facts(row)) line.append(make("span", null, visible(fact)), " ");
    return make("div", "answer", null, line, await answer(row));
  }

  function question(row) {
    const [number, task, level, subject, asked, gold] = data.prompt(row);
    const kind = [task, level, subject].filter((word) => word).join(", ");
    return {
      title: visible(`prompt ${number}${kind ? ` (${kind})` : ""}`),
      body: [make("p", "question", visible(asked)), make("p", "soft gold", visible(`right answer: ${gold}`))],
    };
  }

  async function card(row) {
    const all = data.answers(row);
    const iterations = new Set(all.map((other) => data.columns.iteration[other])).size;
    const button = make("button", "compare", `all ${all.length} answers, ${counted(iterations, "iteration")}`);
    button.type = "button";
    button.addEventListener("click", () => guarded(() => compare(row)));
    const { title, body } = question(row);
    const head = make("header", null, null, make("h3", null, `iteration ${data.columns.iteration[row]}, ${title}`), button);
    return make("article", null, null, head, ...body, await entry(row));
  }

  const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

  async function compare(row) {
    state.compared = row;
    await show();
    find("#browser").scrollIntoView();
  }

  async function comparison(row) {
    const all = data.answers(row);
    const back = make("button", "compare", "\u2190 back to the list");
    back.type = "button";
    back.addEventListener("click", () => guarded(() => ((state.compared = null), show())));
    const { title, body } = question(row);
    const parts = [make("header", null, null, make("h3", null, `${title} over the iterations`), back), ...body];
    for (const iteration of [...new Set(all.map((other) => data.columns.iteration[other]))].sort((a, b) => a - b)) {
      const rows = all.filter((other) => data.columns.iteration[other] === iteration);
      const right = rows.filter((other) => data.values.verdict(other) === "correct").length;
      parts.push(make("h4", null, `iteration ${iteration}: ${right} of ${rows.length} correct`));
      parts.push(make("div", "beside", null, ...(await Promise.all(rows.map(entry)))));
    }
    return make("article", "comparison", null, ...parts);
  }

  async function show() {
    const request = ++state.request;
    const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
    const first = state.page * PAGE;
    const comparing = state.compared !== null;
    const cards = comparing
      ? [await comparison(state.compared)]
      : await Promise.all(state.rows.slice(first, first + PAGE).map(card));
    if (request !== state.request) return;
    find("#cards").replaceChildren(...cards);
    const place = `${state.rows.length.toLocaleString("en")} of ${counted(data.rows.length, "rollout")}, page ${state.page + 1} of ${pages.toLocaleString("en")}`;
    say(comparing ? "" : place);
    for (const node of document.querySelectorAll(".pages")) node.hidden = comparing;
    for (const node of document.querySelectorAll(".back")) node.disabled = state.page === 0;
    for (const node of document.querySelectorAll(".forth")) node.disabled = state.page + 1 >= pages;
  }

  function say(words) {
    for (const node of document.querySelectorAll(".where")) node.textContent = words;
  }

  // ------------------------------------------------------------ starting

  function options(select, values, word) {
    const made = [[ALL, word], ...values.map((value) => [`=${value}`, value === "" ? "(none)" : String(value)])];
    select.replaceChildren(...made.map(([value, label]) => {
      const option = make("option", null, visible(label));
      option.value = value;
      return option;
    }));
    select.closest("label").hidden = values.length < 2;
  }

  function prepare() {
    for (const name of FILTERS) {
      const found = [...new Set(data.rows.map(data.values[name]))];
      found.sort((a, b) => (typeof a === "number" ? a - b : a < b ? -1 : 1));
      options(form[name], found, "all");
    }
    const likely = data.columns.surprisal.some((value) => value !== null);
    const orders = Object.keys(ORDERS).filter((name) => likely || !name.endsWith("likely"));
    form.order.replaceChildren(...orders.map((name) => make("option", null, name)));
    const colours = document.querySelector("script[id^='tokens-']") !== null;
    form.colour.closest("label").hidden = !colours;
    form.colour.checked = colours;
    find("#legend").hidden = !colours;
    for (const node of document.querySelectorAll("#legend [data-p]"))
      node.style.backgroundColor = shade(Math.log(Number(node.dataset.p)));
  }

  function listen() {
    let waiting = 0;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      clearTimeout(waiting);
      if (event.target === form.colour) guarded(show);
      else waiting = setTimeout(() => guarded(choose), event.target.tagName === "SELECT" ? 0 : 250);
    });
    form.addEventListener("reset", () => setTimeout(() => guarded(choose)));
    for (const [name, step] of [[".back", -1], [".forth", 1]])
      for (const node of document.querySelectorAll(name))
        node.addEventListener("click", () => guarded(() => ((state.page += step), show())));
  }

  async function guarded(action) {
    try {
      await action();
    } catch (error) {
      const trouble = find("#trouble");
      trouble.textContent = `The rollouts cannot be shown (${error.message}); rollouts/ beside this page holds them.`;
      trouble.hidden = false;
    }
  }

  guarded(async () => {
    if (typeof DecompressionStream === "undefined")
      throw new Error("this browser has no DecompressionStream; take one of 2023 or later");
    data = await load();
    prepare();
    listen();
    find("#browser").hidden = false;
    await choose();
  });
})();
