// All attempts at a task at a glance: a line each, a square for each step, painted by a measure.

import { MEASURES, number, paint } from "./colour.js";
import { el } from "./dom.js";
import { view } from "./state.js";
import { ending, fails, inWords, label, verdict } from "./steps.js";

export function glance(of, measures) {
  const { attempts, all } = of.found;
  const before = new Set();
  const lines = attempts.map((attempt, index) => {
    const squares = attempt.steps.map((step, place) => {
      const square = el(
        "button",
        before.has(step.path) ? "square known" : "square",
        {
          background: of.paint(step),
          title: `step ${place + 1}: ${inWords(step)}`,
          onclick: () => of.reveal(attempt, place),
        },
        label(step),
      );
      if (fails(step)) square.classList.add("fails");
      return square;
    });
    attempt.steps.forEach((step) => before.add(step.path));
    const is = of.chosen.has(attempt.row);
    return el(
      "div",
      is ? "line chosen" : "line",
      {},
      el("input", "", {
        type: "checkbox",
        checked: is,
        onchange: () => of.toggle(attempt.row),
        "aria-label": `show ${of.name(attempt)}`,
      }),
      el(
        "button",
        "who",
        {
          onclick: () => of.toggle(attempt.row, true),
          title: index < 9 ? `show it alone; key ${index + 1} adds and removes it` : "show it alone",
        },
        of.name(attempt),
      ),
      verdict(attempt),
      el("div", "squares", {}, squares),
      el("span", "ending", {}, ending(attempt)),
    );
  });
  const more =
    all > attempts.length
      ? el("p", "note", {}, `the first ${attempts.length} of ${all.toLocaleString("en")} attempts at this task`)
      : null;
  return el("section", "map", {}, controls(of, measures), el("div", "lines", {}, lines), more);
}

function controls(of, measures) {
  const choice =
    measures.length > 0 &&
    el(
      "div",
      "choice",
      { role: "group", "aria-label": "Colour" },
      measures.map((key) =>
        el(
          "button",
          key === of.measure ? "on" : "",
          { "aria-pressed": String(key === of.measure), onclick: () => of.set("measure", key) },
          MEASURES[key].title,
        ),
      ),
    );
  const tokens = el(
    "button",
    view.tokens ? "toggle on" : "toggle",
    { "aria-pressed": String(view.tokens), title: "key t", onclick: () => of.set("tokens", !view.tokens) },
    "tokens",
  );
  return el("div", "controls", {}, choice, of.measure && legend(of), tokens);
}

function legend(of) {
  const kind = MEASURES[of.measure].kind;
  const [low, high] = { sign: [-of.scale, of.scale], verdict: [0, 1], amount: [0, 1], doubt: [-3, 0] }[kind];
  const parts = Array.from({ length: 7 }, (_, index) => low + ((high - low) * index) / 6);
  return el(
    "span",
    "legend",
    {},
    number(low),
    el(
      "span",
      "ramp",
      {},
      parts.map((value) => el("i", "", { background: paint(kind, value, of.scale) })),
    ),
    number(high),
  );
}
