// The page: what is chosen, in the address behind the #; the list, and the detail of the chosen task.

import * as data from "./data.js";
import { FACETS, ORDERS, byTask, cellOf, counts, filtered, rate } from "./attempts.js";
import { Detail, verdict, view } from "./detail.js";
import { el } from "./dom.js";
import { List } from "./list.js";

const at = (id) => document.getElementById(id);
const state = { source: "", mode: "tasks", sort: "file", text: "", filters: {}, pair: null, cell: "", task: "", rows: [] };
const CELLS = ["won", "lost", "both", "neither", "unknown"];
let project, source, groundedOf = [], rows = [], isRead = true, found = null, entries = [], asked = [], grounded = null, reading, asking, searching;

const list = new List(at("list"), (index) => (state.mode === "tasks" ? taskLine(entries[index]) : attemptLine(entries[index])));
const detail = new Detail(at("detail"), (row) => data.tokens(state.source, row), () => {
  state.rows = asked = [...detail.chosen];
  remember();
});

// ---------------------------------------------------------------- what is chosen

function remember() {
  const values = new URLSearchParams();
  for (const key of ["source", "mode", "sort", "text", "cell", "task"]) if (state[key]) values.set(key, state[key]);
  if (state.pair) values.set("pair", state.pair.map((part) => source.parts[part].name).join("|"));
  for (const [key, chosen] of Object.entries(state.filters)) for (const value of chosen) values.append(`is.${key}`, value);
  if (state.rows.length) values.set("rows", state.rows.join(","));
  if (view.measure) values.set("colour", view.measure);
  if (view.tokens) values.set("tokens", "1");
  history.replaceState(null, "", `#${values}`);
}

function recall() {
  const values = new URLSearchParams(location.hash.slice(1));
  const asked = project.sources.find((each) => each.key === values.get("source"));
  for (const key of ["text", "cell", "task"]) state[key] = values.get(key) ?? "";
  state.mode = values.get("mode") === "attempts" ? "attempts" : "tasks";
  state.sort = values.get("sort") in ORDERS ? values.get("sort") : "file";
  state.filters = Object.fromEntries(Object.keys(FACETS).map((key) => [key, values.getAll(`is.${key}`)]));
  state.rows = (values.get("rows") ?? "").split(",").filter(Boolean).map(Number);
  view.measure = values.get("colour") ?? "";
  view.tokens = values.has("tokens");
  return [asked ?? project.sources[0], (values.get("pair") ?? "").split("|")];
}

function pairOf(names) {
  const place = (name) => source.parts.findIndex((part) => part.name === name);
  const wanted = [names, ...project.pairs].map((pair) => pair.map(place)).find((pair) => pair.length === 2 && pair.every((part) => part >= 0));
  if (wanted && wanted[0] !== wanted[1]) return wanted;
  return source.parts.length > 1 ? [source.parts.length - 1, 0] : null;
}

// ---------------------------------------------------------------- reading

async function open(wanted, names = []) {
  reading?.abort();
  reading = new AbortController();
  source = wanted;
  state.source = wanted.key;
  state.pair = pairOf(names);
  rows = [];
  isRead = false;
  found = null;
  at("source").value = wanted.key;
  FACETS.part.title = wanted.kind[0].toUpperCase() + wanted.kind.slice(1);
  problem("");
  const { signal } = reading;
  try {
    let next = 0;
    for await (const block of data.rows(wanted.key, signal)) {
      if (block.rows) rows.push(...block.rows);
      if (block.grounded) groundedOf = block.grounded;
      if (block.problems?.length) problem(block.problems.join("\n"));
      const now = performance.now();
      if (rows.length && now > next) {
        refresh({ keep: next > 0 });
        begin();
        next = now + Math.max(200, 5 * (performance.now() - now));  // most of the time is left to reading
      }
    }
  } catch (error) {
    if (signal.aborted) return;
    problem(error.message);
  }
  if (signal.aborted) return;
  isRead = true;
  refresh({ keep: true });
  if (state.text) await search();
  begin();
}

/** Open the task that the address names, or the first; and again where more attempts at it have been read since. */
function begin() {
  if (detail.found && (detail.found.is_whole || !isRead)) return;
  if (detail.found) choose(state.task, asked);
  else if (rows.some((row) => row.task === state.task)) choose(state.task, state.rows);
  else if (entries.length && (isRead || !state.task)) pick(0);
  else if (isRead) detail.empty("Nothing fits these filters.");
}

async function search() {
  searching?.abort();
  searching = new AbortController();
  detail.set("searched", state.text);
  const { signal } = searching;
  try {
    const numbers = state.text ? await data.search(state.source, state.text, signal) : null;
    if (signal.aborted) return;
    found = numbers && new Set(numbers);
  } catch (error) {
    if (!signal.aborted) problem(error.message);
    return;
  }
  refresh();
}

// ---------------------------------------------------------------- the list

function refresh({ keep = false } = {}) {
  const fit = filtered(rows, source.parts, state.filters, found);
  const everyone = byTask(rows);
  const judged = [...everyone.values()].filter((own) => own.some((row) => row.solved !== null)).length;
  grounded = groundedOf.length && judged < everyone.size / 2 ? groundedOf : null;
  drawCompare(fit, everyone);
  const inCell = state.cell && state.pair ? new Set([...everyone].filter(([, own]) => cell(own) === state.cell).map(([task]) => task)) : null;
  const kept = inCell ? fit.filter((row) => inCell.has(row.task)) : fit;
  const { value: order, task: ofTask = (own) => Math.min(...own.map(order)) } = ORDERS[state.sort];
  if (state.mode === "tasks") {
    entries = [...byTask(kept)].map(([task, own]) => ({ task, fit: own, all: everyone.get(task) }));
    if (state.sort !== "file") {
      for (const entry of entries) entry.rank = ofTask(entry.fit);
      entries.sort((one, other) => one.rank - other.rank);
    }
  } else {
    entries = state.sort === "file" ? kept : kept.toSorted((one, other) => order(one) - order(other));
  }
  const tasks = state.mode === "tasks" ? entries.length : new Set(kept.map((row) => row.task)).size;
  at("count").textContent = `${many(tasks, "task")}, ${many(kept.length, "attempt")}${isRead ? "" : " …"}`;
  list.chosen = chosenIndex();
  list.show(entries.length, { keep });
  drawFilters();
  drawModes();
  remember();
}

const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
const cell = (own) => cellOf(...state.pair.map((part) => rate(own, part, grounded)));

function chosenIndex() {
  if (state.mode === "tasks") return entries.findIndex((each) => each.task === state.task);
  const index = entries.findIndex((row) => row.number === state.rows[0]);
  return index >= 0 ? index : entries.findIndex((row) => row.task === state.task);
}

function taskLine(entry) {
  const [first] = entry.all;
  const marks = source.parts.map((part, index) => {
    const own = entry.all.filter((row) => row.part === index);
    if (!own.length) return null;
    const name = source.parts.length > 1 ? `${part.name} ` : "";
    return el("span", "marks", {}, name, own.slice(0, 12).map(verdict), own.length > 12 ? ` of ${own.length}` : "");
  });
  return line(entry.task, first, () => pickTask(entry.task),
    el("span", "what", {}, [first.group.replaceAll("_", " "), entry.task].filter(Boolean).join(" · ")), el("span", "all-marks", {}, marks));
}

function attemptLine(row) {
  const who = `${source.parts[row.part].name} #${row.attempt + 1}`;
  const ended = row.answer === null ? row.stop.replace("_", " ") : row.answer;
  const did = row.tools.map((name) => name.split(".").pop()).join(" → ");
  return line(String(row.number), row, () => pickRow(row),
    el("span", "what", {}, `${who} · ${many(row.steps, "step")}${did ? ` · ${did}` : ""}`, row.errors.length ? el("b", "failed", {}, ` ${row.errors.join(", ")}`) : null),
    el("span", "all-marks", {}, el("span", "ended", {}, ended), verdict(row)));
}

function line(key, row, onclick, ...second) {
  return el("div", "entry", { onclick }, el("p", "", {}, row.query || row.task), el("p", "second", {}, second));
}

// ---------------------------------------------------------------- choosing

/** Show a task, with the attempts `wanted`, or with those that show most. */
async function choose(task, wanted = []) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  asked = wanted;
  state.task = task;
  state.rows = wanted;
  list.choose(chosenIndex());
  remember();
  try {
    const loaded = await data.task(state.source, task, signal);
    if (signal.aborted) return;
    detail.show(loaded, source.parts, state.pair, wanted);
    state.rows = [...detail.chosen];
    remember();
  } catch (error) {
    if (!signal.aborted) detail.empty(error.message);
  }
}

const pickTask = (task) => choose(task);
const pickRow = (row) => choose(row.task, [row.number]);

function pick(index) {
  if (index < 0 || index >= entries.length) return;
  if (state.mode === "tasks") pickTask(entries[index].task);
  else pickRow(entries[index]);
}

// ---------------------------------------------------------------- two parts against each other

function drawCompare(fit, everyone) {
  const box = at("compare");
  const count = Object.fromEntries(CELLS.map((key) => [key, 0]));
  if (state.pair) {
    const tasks = new Set(fit.map((row) => row.task));
    for (const task of tasks) {
      const key = cell(everyone.get(task));
      if (key in count) count[key]++;
    }
  }
  box.hidden = !state.pair || !CELLS.some((key) => count[key] || state.cell === key);
  if (box.hidden) return;
  const [first, second] = state.pair.map((part) => source.parts[part].name);
  const once = rows.every((row) => row.attempt === 0);
  const words = {
    won: once ? `only ${first}` : `${first} more often`,
    lost: once ? `only ${second}` : `${second} more often`,
    both: once ? "both" : "both as often",
    neither: "neither",
    unknown: "no verdict",
  };
  const picker = (place) => el("select", "", {
    "aria-label": place ? "Compared with" : "Compare",
    onchange: (event) => {
      const part = Number(event.target.value);
      state.pair = place ? [state.pair[0] === part ? state.pair[1] : state.pair[0], part] : [part, state.pair[1] === part ? state.pair[0] : state.pair[1]];
      refresh();
    },
  }, source.parts.map((part, index) => el("option", "", { value: index, selected: index === state.pair[place] }, part.name)));
  box.replaceChildren(
    el("p", "", {}, el("span", "hint", {}, grounded ? "Answers grounded: " : "Tasks solved: "), picker(0), " against ", picker(1)),
    el("div", "cells", {}, CELLS.filter((key) => key !== "unknown" || count.unknown).map((key) =>
      el("button", `cell ${key}${state.cell === key ? " on" : ""}`, {
        "aria-pressed": String(state.cell === key),
        onclick: () => { state.cell = state.cell === key ? "" : key; state.mode = "tasks"; refresh(); if (chosenIndex() < 0) pick(0); },
      }, el("b", "", {}, count[key].toLocaleString("en")), el("span", "", {}, words[key])))));
}

// ---------------------------------------------------------------- filters

function drawFilters() {
  const box = at("filters");
  const opened = box.querySelector("details[open]")?.dataset.key;
  const made = Object.entries(FACETS).map(([key, { title }]) => {
    const chosen = state.filters[key] ?? [];
    const menu = el("div", "menu", {});
    const facet = el("details", chosen.length ? "facet on" : "facet", { name: "facet" },
      el("summary", "", {}, chosen.length ? `${title}: ${chosen.join(", ").slice(0, 40)}` : title), menu);
    facet.dataset.key = key;
    facet.addEventListener("toggle", () => { if (facet.open) fillMenu(menu, key); });
    if (key === opened) { facet.open = true; fillMenu(menu, key); }
    return facet;
  });
  const isFiltered = state.text || state.cell || Object.values(state.filters).some((chosen) => chosen.length);
  box.replaceChildren(...made, ...(isFiltered ? [el("button", "quiet", { onclick: clear, title: "show everything" }, "clear")] : []));
}

function fillMenu(menu, key) {
  const others = filtered(rows, source.parts, state.filters, found, key);
  const chosen = state.filters[key];
  const values = counts(others, source.parts, key);
  for (const value of chosen) if (!values.some(([each]) => each === value)) values.push([value, 0]);
  const lines = values.map(([value, count]) => el("label", "", {},
    el("input", "", {
      type: "checkbox", checked: chosen.includes(value),
      onchange: (event) => {
        state.filters[key] = event.target.checked ? [...chosen, value] : chosen.filter((each) => each !== value);
        refresh();
        if (chosenIndex() < 0) pick(0);
      },
    }), el("span", "value", {}, value), el("span", "number", {}, count.toLocaleString("en"))));
  const narrow = values.length > 12 ? el("input", "", {
    type: "search", placeholder: "narrow", "aria-label": "Narrow the list",
    oninput: (event) => lines.forEach((each, index) => { each.hidden = !values[index][0].toLowerCase().includes(event.target.value.toLowerCase()); }),
  }) : null;
  menu.replaceChildren(...[narrow, ...lines].filter(Boolean));
  if (!values.length) menu.replaceChildren(el("p", "note", {}, "none"));
}

function clear() {
  Object.assign(state, { text: "", cell: "", filters: Object.fromEntries(Object.keys(FACETS).map((key) => [key, []])) });
  at("search").value = "";
  found = null;
  detail.set("searched", "");
  refresh();
  list.choose(chosenIndex());
}

function drawModes() {
  at("mode").replaceChildren(...["tasks", "attempts"].map((mode) =>
    el("button", state.mode === mode ? "on" : "", {
      "aria-pressed": String(state.mode === mode),
      onclick: () => { state.mode = mode; refresh(); list.choose(chosenIndex()); },
    }, mode)));
}

function problem(said) {
  at("problem").hidden = !said;
  at("problem").textContent = said;
}

// ---------------------------------------------------------------- keys

const KEYS = [
  ["j, k, ↓, ↑", "next and previous of the list"], ["/", "search"], ["Esc", "leave the search, close a menu"],
  ["t", "tokens of the steps"], ["c", "next colour"], ["o", "open and close what attempts have in common"],
  ["1 … 9", "add or remove an attempt"], ["m", "tasks or attempts in the list"], ["?", "this help"],
];

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input[type=search], select, textarea");
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.facet[open]")) menu.open = false;
    if (typing) event.target.blur();
    return;
  }
  if (typing) return;
  const act = {
    j: () => pick(chosenIndex() + 1), k: () => pick(chosenIndex() - 1),
    ArrowDown: () => pick(chosenIndex() + 1), ArrowUp: () => pick(chosenIndex() - 1),
    "/": () => at("search").focus(),
    t: () => { detail.set("tokens", !view.tokens); remember(); },
    c: () => nextColour(),
    o: () => { detail.set("common", !view.common); },
    m: () => { state.mode = state.mode === "tasks" ? "attempts" : "tasks"; refresh(); list.choose(chosenIndex()); },
    "?": () => at("help").showModal(),
  }[event.key];
  const attempt = /^[1-9]$/.test(event.key) && detail.found?.attempts[Number(event.key) - 1];
  if (act) act();
  else if (attempt) detail.toggle(attempt.row);
  else return;
  event.preventDefault();
}

function nextColour() {
  const buttons = [...document.querySelectorAll(".controls .choice button")];
  const now = buttons.findIndex((button) => button.classList.contains("on"));
  buttons[(now + 1) % buttons.length]?.click();
}

// ---------------------------------------------------------------- start

async function start() {
  project = await data.project();
  document.title = `${project.name} · StepTool viewer`;
  at("project").textContent = project.name;
  at("source").replaceChildren(...project.sources.map((each) =>
    el("option", "", { value: each.key }, each.parts.length === 1 && each.kind === "file" ? each.title : `${each.title}: ${each.parts.map((part) => part.name).join(", ").slice(0, 60)}`)));
  at("sort").replaceChildren(...Object.entries(ORDERS).map(([key, { title }]) => el("option", "", { value: key }, title)));
  at("help").append(el("h2", "", {}, "Keys"), el("dl", "", {}, KEYS.map(([key, what]) => [el("dt", "", {}, key), el("dd", "", {}, what)])),
    el("button", "", { onclick: () => at("help").close() }, "close"));
  const [wanted, names] = recall();
  at("search").value = state.text;
  at("sort").value = state.sort;

  at("source").addEventListener("change", (event) => {
    clear();
    Object.assign(state, { task: "", rows: [] });
    detail.empty("reading …");
    open(project.sources.find((each) => each.key === event.target.value));
  });
  at("sort").addEventListener("change", (event) => { state.sort = event.target.value; refresh(); });
  at("search").addEventListener("input", (event) => { state.text = event.target.value.trim(); search(); });
  at("help-button").addEventListener("click", () => at("help").showModal());
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.facet[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  detail.empty("reading …");
  await open(wanted, names);
}

start().catch((error) => problem(error.message));
