// The page: it reads a source, shows what fits in the list, and the task that is chosen.

import { FACETS, ORDERS, byTask, filtered } from "./attempts.js";
import { many } from "./colour.js";
import { cell, drawCompare, firstPair, measureOf } from "./compare.js";
import * as data from "./data.js";
import { Detail } from "./detail.js";
import { el } from "./dom.js";
import { attemptLine, taskLine } from "./entries.js";
import { closeMenus, drawFilters } from "./filters.js";
import { fillHelp, listen } from "./keys.js";
import { List } from "./list.js";
import { noFilters, recall, remember, state, view } from "./state.js";

const at = (id) => document.getElementById(id);
let project, source;
/** What is read of the source: its rows, whether that is all, what its search found, and grounded answers by part. */
const read = { rows: [], isAll: true, found: null, grounded: [] };
/** What the list shows: tasks with their rows, or rows. */
let entries = [];
/** Attempts that were asked for, where not those that show most. */
let asked = [];
let reading, asking, searching;

const list = new List(at("list"), (index) => {
  const draw = state.mode === "tasks" ? taskLine : attemptLine;
  return draw(entries[index], source.parts, () => pick(index));
});
const detail = new Detail(
  at("detail"),
  (row) => data.tokens(state.source, row),
  () => {
    state.rows = asked = [...detail.chosen];
    remember(source.parts);
  },
);

// ---------------------------------------------------------------- reading

async function open(wanted, names = []) {
  reading?.abort();
  reading = new AbortController();
  const { signal } = reading;
  source = wanted;
  state.source = wanted.key;
  state.pair = firstPair(wanted.parts, [names, ...project.pairs]);
  Object.assign(read, { rows: [], isAll: false, found: null, grounded: [] });
  at("source").value = wanted.key;
  FACETS.part.title = wanted.kind[0].toUpperCase() + wanted.kind.slice(1);
  problem("");
  try {
    let next = 0;
    for await (const block of data.rows(wanted.key, signal)) {
      read.rows.push(...(block.rows ?? []));
      read.grounded = block.grounded ?? read.grounded;
      if (block.problems?.length) problem(block.problems.join("\n"));
      const now = performance.now();
      if (read.rows.length && now > next) {
        refresh({ keep: next > 0 });
        begin();
        next = now + Math.max(200, 5 * (performance.now() - now)); // most of the time is left to reading
      }
    }
  } catch (error) {
    if (signal.aborted) return;
    problem(error.message);
  }
  if (signal.aborted) return;
  read.isAll = true;
  refresh({ keep: true });
  if (state.text) await search();
  begin();
}

/** Open the task that the address names, or the first; and again where more attempts at it have been read since. */
function begin() {
  if (detail.found && (detail.found.is_whole || !read.isAll)) return;
  if (detail.found) choose(state.task, asked);
  else if (read.rows.some((row) => row.task === state.task)) choose(state.task, state.rows);
  else if (entries.length && (read.isAll || !state.task)) pick(0);
  else if (read.isAll) detail.empty("Nothing fits these filters.");
}

async function search() {
  searching?.abort();
  searching = new AbortController();
  const { signal } = searching;
  detail.set("searched", state.text);
  try {
    const numbers = state.text ? await data.search(state.source, state.text, signal) : null;
    if (signal.aborted) return;
    read.found = numbers && new Set(numbers);
    refresh();
  } catch (error) {
    if (!signal.aborted) problem(error.message);
  }
}

// ---------------------------------------------------------------- the list

function refresh({ keep = false } = {}) {
  const tasks = byTask(read.rows);
  const fit = filtered(read.rows, source.parts, state.filters, read.found);
  const grounded = measureOf(tasks, read.grounded);
  const counted = [...byTask(fit).keys()].map((task) => tasks.get(task));
  drawCompare(at("compare"), source.parts, counted, {
    grounded,
    once: read.rows.every((row) => row.attempt === 0),
    changed,
  });
  const inCell = (row) => cell(tasks.get(row.task), grounded) === state.cell;
  const kept = state.cell && state.pair ? fit.filter(inCell) : fit;
  entries = state.mode === "tasks" ? sortedTasks(byTask(kept), tasks) : sortedRows(kept);
  const count = state.mode === "tasks" ? entries.length : byTask(kept).size;
  at("count").textContent = `${many(count, "task")}, ${many(kept.length, "attempt")}${read.isAll ? "" : " …"}`;
  list.chosen = place();
  list.show(entries.length, { keep });
  drawFilters(at("filters"), read.rows, source.parts, read.found, { changed, clear });
  drawModes();
  remember(source.parts);
}

function sortedTasks(fit, tasks) {
  const { value, task: rank = (own) => Math.min(...own.map(value)) } = ORDERS[state.sort];
  const found = [...fit].map(([task, own]) => ({ task, all: tasks.get(task), rank: rank(own) }));
  return state.sort === "file" ? found : found.sort((one, other) => one.rank - other.rank);
}

function sortedRows(rows) {
  const { value } = ORDERS[state.sort];
  return state.sort === "file" ? rows : rows.toSorted((one, other) => value(one) - value(other));
}

/** Of what is chosen, in the list; -1 where it is not in it. */
function place() {
  const row = state.mode === "attempts" ? entries.findIndex((each) => each.number === state.rows[0]) : -1;
  return row >= 0 ? row : entries.findIndex((each) => each.task === state.task);
}

/** After another filter: what is shown is in the list. */
function changed() {
  refresh();
  if (place() < 0) pick(0);
}

function clear() {
  Object.assign(state, { text: "", cell: "", filters: noFilters() });
  at("search").value = "";
  read.found = null;
  detail.set("searched", "");
  refresh();
  list.choose(place());
}

function setMode(mode) {
  state.mode = mode;
  refresh();
  list.choose(place());
}

function drawModes() {
  at("mode").replaceChildren(
    ...["tasks", "attempts"].map((mode) =>
      el(
        "button",
        state.mode === mode ? "on" : "",
        { "aria-pressed": String(state.mode === mode), onclick: () => setMode(mode) },
        mode,
      ),
    ),
  );
}

function problem(said) {
  at("problem").hidden = !said;
  at("problem").textContent = said;
}

// ---------------------------------------------------------------- choosing

function pick(index) {
  const entry = entries[index];
  if (entry) choose(entry.task, state.mode === "attempts" ? [entry.number] : []);
}

/** Show a task, with the attempts `wanted`, or with those that show most. */
async function choose(task, wanted) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  Object.assign(state, { task, rows: wanted });
  asked = wanted;
  list.choose(place());
  remember(source.parts);
  try {
    const loaded = await data.task(state.source, task, signal);
    if (signal.aborted) return;
    detail.show(loaded, source.parts, state.pair, wanted);
    state.rows = [...detail.chosen];
    remember(source.parts);
  } catch (error) {
    if (!signal.aborted) detail.empty(error.message);
  }
}

// ---------------------------------------------------------------- start

function titleOf({ title, kind, parts }) {
  return parts.length === 1 && kind === "file"
    ? title
    : `${title}: ${parts
        .map((part) => part.name)
        .join(", ")
        .slice(0, 60)}`;
}

async function start() {
  project = await data.project();
  document.title = `${project.name} · StepTool viewer`;
  at("project").textContent = project.name;
  at("source").replaceChildren(...project.sources.map((each) => el("option", "", { value: each.key }, titleOf(each))));
  at("sort").replaceChildren(
    ...Object.entries(ORDERS).map(([key, { title }]) => el("option", "", { value: key }, title)),
  );
  fillHelp(at("help"));
  const names = recall();
  at("search").value = state.text;
  at("sort").value = state.sort;

  at("source").addEventListener("change", (event) => {
    clear();
    Object.assign(state, { task: "", rows: [] });
    detail.empty("reading …");
    open(project.sources.find((each) => each.key === event.target.value));
  });
  at("sort").addEventListener("change", (event) => {
    state.sort = event.target.value;
    refresh();
  });
  at("search").addEventListener("input", (event) => {
    state.text = event.target.value.trim();
    search();
  });
  at("help-button").addEventListener("click", () => at("help").showModal());
  document.addEventListener("click", (event) => closeMenus(event.target));
  const [next, previous] = [() => pick(place() + 1), () => pick(place() - 1)];
  listen({
    j: next,
    k: previous,
    ArrowDown: next,
    ArrowUp: previous,
    "/": () => at("search").focus(),
    t: () => {
      detail.set("tokens", !view.tokens);
      remember(source.parts);
    },
    c: () => {
      detail.nextMeasure();
      remember(source.parts);
    },
    o: () => detail.set("common", !view.common),
    m: () => setMode(state.mode === "tasks" ? "attempts" : "tasks"),
    "?": () => at("help").showModal(),
    digit: (number) => detail.toggleNumber(number),
  });
  detail.empty("reading …");
  await open(project.sources.find((each) => each.key === state.source) ?? project.sources[0], names);
}

start().catch((error) => problem(error.message));
