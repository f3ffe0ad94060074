// Two parts of a source against each other: on how many tasks which of them is better.

import { cellOf, rate } from "./attempts.js";
import { el } from "./dom.js";
import { state } from "./state.js";

const CELLS = ["won", "lost", "both", "neither", "unknown"];

/** The pair to begin with: of those that are asked for, the first whose parts there are; else the last and the first part. */
export function firstPair(parts, asked) {
  const place = (name) => parts.findIndex((part) => part.name === name);
  const known = asked
    .map((names) => names.map(place))
    .filter((pair) => pair.length === 2 && pair.every((part) => part >= 0));
  return known.find(([first, second]) => first !== second) ?? (parts.length > 1 ? [parts.length - 1, 0] : null);
}

/** What decides: the grounded answers of an evaluation where most tasks have no verdict, else the verdicts. */
export function measureOf(tasks, grounded) {
  const judged = [...tasks.values()].filter((own) => own.some((row) => row.solved !== null)).length;
  return grounded.length && judged < tasks.size / 2 ? grounded : null;
}

export const cell = (own, grounded) => cellOf(...state.pair.map((part) => rate(own, part, grounded)));

/** Fill the box. `fit`: the tasks that are counted, `once`: whether each was attempted once. */
export function drawCompare(box, parts, fit, { grounded, once, changed }) {
  const count = Object.fromEntries(CELLS.map((key) => [key, 0]));
  for (const own of state.pair ? fit : []) {
    const key = cell(own, grounded);
    if (key in count) count[key]++;
  }
  box.hidden = !state.pair || !CELLS.some((key) => count[key] || state.cell === key);
  if (box.hidden) return;
  const [first, second] = state.pair.map((part) => parts[part].name);
  const words = {
    won: once ? `only ${first}` : `${first} more often`,
    lost: once ? `only ${second}` : `${second} more often`,
    both: once ? "both" : "both as often",
    neither: "neither",
    unknown: "no verdict",
  };
  const boxes = CELLS.filter((key) => key !== "unknown" || count.unknown).map((key) =>
    el(
      "button",
      `cell ${key}${state.cell === key ? " on" : ""}`,
      {
        "aria-pressed": String(state.cell === key),
        onclick: () => {
          state.cell = state.cell === key ? "" : key;
          state.mode = "tasks";
          changed();
        },
      },
      el("b", "", {}, count[key].toLocaleString("en")),
      el("span", "", {}, words[key]),
    ),
  );
  const what = el("span", "hint", {}, grounded ? "Answers grounded: " : "Tasks solved: ");
  box.replaceChildren(
    el("p", "", {}, what, picker(parts, 0, changed), " against ", picker(parts, 1, changed)),
    el("div", "cells", {}, boxes),
  );
}

/** Chooses one of the pair; the other changes places with it where both would be the same. */
function picker(parts, place, changed) {
  const choose = (part) => {
    const other = state.pair[1 - place] === part ? state.pair[place] : state.pair[1 - place];
    state.pair = place ? [other, part] : [part, other];
    changed();
  };
  return el(
    "select",
    "",
    { "aria-label": place ? "Compared with" : "Compare", onchange: (event) => choose(Number(event.target.value)) },
    parts.map((part, index) => el("option", "", { value: index, selected: index === state.pair[place] }, part.name)),
  );
}
