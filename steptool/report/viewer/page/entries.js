// The lines of the list.

import { many } from "./colour.js";
import { el } from "./dom.js";
import { verdict } from "./steps.js";

const MOST_MARKS = 12;

/** A task with the verdicts of its attempts, by part. */
export function taskLine({ task, all }, parts, onclick) {
  const [first] = all;
  const marks = parts.map((part, index) => {
    const own = all.filter((row) => row.part === index);
    const more = own.length > MOST_MARKS && ` of ${own.length}`;
    return (
      own.length > 0 &&
      el("span", "marks", {}, parts.length > 1 && `${part.name} `, own.slice(0, MOST_MARKS).map(verdict), more)
    );
  });
  const what = [first.group.replaceAll("_", " "), task].filter(Boolean).join(" · ");
  return line(first, onclick, el("span", "what", {}, what), el("span", "all-marks", {}, marks));
}

export function attemptLine(row, parts, onclick) {
  const did = row.tools.map((name) => name.split(".").pop()).join(" → ");
  const what = [`${parts[row.part].name} #${row.attempt + 1}`, many(row.steps, "step"), did]
    .filter(Boolean)
    .join(" · ");
  const failed = row.errors.length > 0 && el("b", "failed", {}, ` ${row.errors.join(", ")}`);
  const ended = el("span", "ended", {}, row.answer === null ? row.stop.replace("_", " ") : row.answer);
  return line(row, onclick, el("span", "what", {}, what, failed), el("span", "all-marks", {}, ended, verdict(row)));
}

const line = (row, onclick, ...second) =>
  el("div", "entry", { onclick }, el("p", "", {}, row.query || row.task), el("p", "second", {}, second));
