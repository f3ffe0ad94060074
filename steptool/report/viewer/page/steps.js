// A step in words, elements and numbers.

import { OUTCOMES, outcomeOf } from "./attempts.js";
import { largest, number, paint, signed } from "./colour.js";
import { el, folded } from "./dom.js";

/** What a call did and what came back. `differs(name)`: whether the argument is another in the attempt beside it. */
export function called(call, differs) {
  if (call.finish) {
    return call.answer === null
      ? [el("p", "label", {}, "gives up")]
      : [el("p", "label", {}, "answers"), folded("p", "answer", call.answer)];
  }
  const values = call.arguments.map(([name, value]) => [
    el("dt", "", {}, name),
    folded("dd", differs(name) ? "differs" : "", value, 800),
  ]);
  const made = el("div", "call", {}, el("b", "", {}, call.name), el("dl", "", {}, values));
  if (call.reply === null) return [made, el("p", "label", {}, "no reply: the attempt ended here")];
  const reply = folded("pre", call.error ? "reply failed" : "reply", spaced(call.reply));
  return call.error ? [made, el("p", "label failed", {}, call.error), reply] : [made, reply];
}

/** Scores, reward and the like of a step, below the name of its attempt where one is given. */
export function scores(step, name = "") {
  const score = (title, text, background) => el("span", "score", {}, `${title} `, el("b", "", { background }, text));
  const given = step.scores.map(([key, value]) =>
    score(
      key,
      value === null ? "?" : number(value, Number.isInteger(value) ? 0 : 2),
      paint(key === "contribution" ? "amount" : "verdict", value, 1),
    ),
  );
  const earned = [
    ["reward", step.reward],
    ["return", step.return],
    ["advantage", largest(step.advantages)],
  ]
    .filter(([, value]) => value !== null)
    .map(([title, value]) => score(title, signed(value), paint("sign", value, 1)));
  return el(
    "p",
    "scores",
    {},
    name && el("span", "of", {}, name),
    given,
    earned,
    step.logprob !== null && score("log-prob.", number(step.logprob), paint("doubt", step.logprob, 1)),
    step.votes > 1 && el("span", "score", {}, `${step.votes} votes`),
    step.reason && el("span", "reason", {}, step.reason),
  );
}

export function verdict(attempt) {
  const outcome = outcomeOf(attempt.solved);
  const value = outcome === "partly" ? ` ${number(attempt.solved)}` : "";
  return el("span", `verdict ${outcome}`, { title: OUTCOMES[outcome].title }, OUTCOMES[outcome].glyph + value);
}

/** How an attempt ended: its answer, or why there is none. */
export function ending(attempt, before = "") {
  if (attempt.answer === null) return attempt.stop.replace("_", " ");
  return [before, el("b", "", {}, attempt.answer.length > 300 ? `${attempt.answer.slice(0, 300)} …` : attempt.answer)];
}

export const fails = (step) => step.unreadable !== null || step.calls.some((call) => call.error);

/** A word or two for a square. */
export function label(step) {
  if (step.unreadable !== null) return "unreadable";
  if (step.message !== null) return "message";
  return step.calls
    .map((call) => (call.finish ? (call.answer === null ? "gives up" : "answer") : call.name.split(".").pop()))
    .join(" + ");
}

export function inWords(step) {
  const calls = step.calls.map((call) =>
    [call.name, ...call.arguments.map(([name, value]) => `${name}: ${value}`)].join("\n"),
  );
  return (calls.join("\n") || step.message || step.unreadable || "").slice(0, 400);
}

/** JSON of some length with a line for each value. Only spaces change: a number that JavaScript would round stays. */
export function spaced(text) {
  if (text.length < 90 || text.length > 200_000 || !isJson(text)) return text;
  let depth = 0;
  const line = () => `\n${" ".repeat(depth)}`;
  return text.replace(
    /("(?:\\.|[^"\\])*")|\s+|([[{])(?:\s*([\]}]))?|([\]}])|(,)|(:)/g,
    (all, string, opens, closed, closes, comma, colon) => {
      if (string) return string;
      if (closed) return opens + closed;
      if (opens) {
        depth++;
        return opens + line();
      }
      if (closes) {
        depth--;
        return line() + closes;
      }
      return comma ? `,${line()}` : colon ? ": " : "";
    },
  );
}

function isJson(text) {
  if (!/^\s*[[{]/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
