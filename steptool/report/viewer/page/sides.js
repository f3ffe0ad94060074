// The chosen attempts: what they have in common once, then side by side from where they part.

import { parting } from "./attempts.js";
import { many, signed } from "./colour.js";
import { el, folded } from "./dom.js";
import { view } from "./state.js";
import { called, ending, label, scores, verdict } from "./steps.js";
import { stream } from "./tokens.js";

export function sideBySide(of) {
  const sides = of.sides;
  const { common, why, differs } = parting(sides);
  const grid = el("div", "sides", {});
  grid.style.setProperty("--sides", sides.length);
  grid.append(
    ...sides.map((side) => el("h2", "", {}, of.name(side), verdict(side))),
    ...sides.map((side) => head(of, side)),
  );
  const shared = sides.length > 1 ? common : 0;
  if (shared) grid.append(inCommon(of, sides, shared, why));
  if (sides.length > 1) {
    const said = why ? `step ${shared + 1}: ${why}` : "the same steps to the end";
    grid.append(
      el(
        "p",
        why ? "parting" : "parting same",
        {},
        why ? (shared ? "they part at " : "they part at once, ") : "",
        el("b", "", {}, said),
      ),
    );
  }
  const longest = Math.max(...sides.map((side) => side.steps.length));
  for (let place = shared; place < longest; place++) {
    for (const side of sides) {
      grid.append(
        side.steps[place]
          ? stepBox(of, side, place, { differs: sides.length > 1 && place === shared && why ? differs : null })
          : el("div", "gap", {}),
      );
    }
  }
  if (!longest) grid.append(el("p", "parting", {}, "no step was taken"));
  return el("section", "attempts", {}, grid, credit(of, sides));
}

function head(of, side) {
  const tokens = side.steps.reduce((sum, step) => sum + step.sampled, 0);
  const total = side.steps[0]?.return;
  const numbers = [
    many(side.steps.length, "step"),
    tokens ? `${tokens} tokens` : "",
    total === null || total === undefined ? "" : `return ${signed(total)}`,
  ];
  return el(
    "div",
    "head",
    {},
    el("p", "", {}, ending(side, "answered ")),
    side.evidence ? folded("p", "evidence", side.evidence, 300) : null,
    side.error ? folded("p", "broke", side.error, 300) : null,
    el("p", "numbers", {}, numbers.filter(Boolean).join(" · ")),
    el(
      "details",
      "",
      {},
      el("summary", "", {}, "how it was made"),
      el(
        "dl",
        "",
        {},
        side.facts.map(([key, value]) => [el("dt", "", {}, key), el("dd", "", {}, value)]),
      ),
    ),
  );
}

function inCommon(of, sides, count, why) {
  const [first] = sides;
  const names = first.steps.slice(0, count).map(label).join(" → ");
  const title = `${many(count, "step")} in common`;
  const box = el(
    "details",
    "shared",
    { open: view.common || !why },
    el("summary", "", { onclick: () => (view.common = !box.open) }, el("b", "", {}, title), ` ${names}`),
  );
  for (let place = 0; place < count; place++) {
    const lines = sides.map((side) => scores(side.steps[place], of.name(side)));
    box.append(stepBox(of, first, place, { lines }));
  }
  return box;
}

/** `differs`: of the step where attempts part, whether an argument of a call is another in each; `lines`: its scores. */
function stepBox(of, side, place, { differs = null, lines = [scores(side.steps[place])] } = {}) {
  const step = side.steps[place];
  const box = el("section", differs ? "step parts" : "step", { id: `step-${side.row}-${place}` });
  const strip = el("span", "strip", { background: of.paint(step) });
  box.append(strip, el("span", "place", {}, String(place + 1)));
  if (step.thought) box.append(folded("p", "thought", step.thought));
  step.calls.forEach((call, index) => box.append(...called(call, (name) => differs?.(index, name))));
  if (step.message !== null) box.append(folded("p", "message", step.message));
  if (step.unreadable !== null)
    box.append(el("p", "unreadable", {}, el("b", "", {}, "could not be read: "), step.unreadable));
  if (step.hint !== null) box.append(folded("pre", "reply failed", step.hint));
  if (step.reply !== null) box.append(el("p", "label", {}, "the user replies"), folded("pre", "reply", step.reply));
  if (view.tokens) box.append(streamOf(of, side, place));
  box.append(...lines);
  return box;
}

function streamOf(of, side, place) {
  const loaded = of.streams.get(side.row);
  if (!loaded) return el("p", "note", {}, "…");
  const notes = place === 0 && loaded.missing ? el("p", "note", {}, loaded.missing) : null;
  const found = loaded.steps[place];
  if (!found || (!found.context_size && !found.sampled.length))
    return el("p", "note", {}, notes ?? "no tokens were recorded: this step was not sampled here");
  const measure = of.measure === "advantage" ? "advantage" : "logprob";
  return el("div", "tokens", {}, notes, stream(found, side.steps[place], measure, of.scale));
}

function credit(of, sides) {
  const notes = sides.flatMap((side) => of.found.notes[of.parts[side.part].name]);
  return el(
    "footer",
    "credit",
    {},
    [...new Set(notes)].map((note) => el("p", "", {}, note)),
  );
}
