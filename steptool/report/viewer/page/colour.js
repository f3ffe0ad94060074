// Numbers as colours: what a measure is, and how strong a value is painted.

/** Measures by key. `step` reads a step, `token` a token with its advantage; `kind` says how it is painted. */
export const MEASURES = {
  reward: { title: "reward", kind: "sign", step: (step) => step.reward },
  advantage: {
    title: "advantage",
    kind: "sign",
    step: (step) => largest(step.advantages),
    token: (token, advantage) => advantage,
  },
  return: { title: "return", kind: "sign", step: (step) => step.return },
  success: { title: "success", kind: "verdict", step: (step) => score(step, "success") },
  contribution: { title: "contribution", kind: "amount", step: (step) => score(step, "contribution") },
  logprob: { title: "log-probability", kind: "doubt", step: (step) => step.logprob, token: (token) => token.logprob },
};

const score = (step, name) => step.scores.find(([key]) => key === name)?.[1] ?? null;

/** The value furthest from 0: where the advantages of a step's tokens differ, the token that is pushed most. */
export function largest(values) {
  return values?.length ? values.reduce((kept, value) => (Math.abs(value) > Math.abs(kept) ? value : kept)) : null;
}

/** The measures that the attempts have. */
export function measuresOf(attempts) {
  const steps = attempts.flatMap((each) => each.steps);
  return Object.keys(MEASURES).filter((key) => steps.some((step) => MEASURES[key].step(step) !== null));
}

const LEAST = 0.1;
/** The largest size of a measure: what is painted fully. Where all are small, the cost of a step is not painted so. */
export function scaleOf(key, attempts) {
  if (MEASURES[key].kind !== "sign") return 1;
  const values = attempts.flatMap((each) => each.steps.map((step) => Math.abs(MEASURES[key].step(step) ?? 0)));
  return Math.max(...values, LEAST);
}

/** A CSS background; empty for a value that there is none of. `kind`: a sign around 0 up to ± `scale`, a verdict or an
 * amount from 0 to 1, or the doubt in a log-probability. */
export function paint(kind, value, scale) {
  if (value === null || value === undefined) return "";
  if (kind === "sign") return mix(value < 0 ? "--minus" : "--plus", Math.abs(value) / scale);
  if (kind === "verdict")
    return value < 0.5 ? mix("--minus", 0.7 * (1 - 2 * value)) : mix("--plus", 0.7 * (2 * value - 1));
  if (kind === "amount") return mix("--plus", 0.7 * value);
  return mix("--doubt", Math.min(1, -value / 3) ** 0.6);
}

function mix(name, share) {
  return share < 0.02 ? "" : `color-mix(in oklab, var(${name}) ${Math.round(Math.min(1, share) * 78)}%, transparent)`;
}

export function number(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** `1 step`, `2 steps` */
export const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

export const signed = (value, digits = 2) => (Number(value.toFixed(digits)) > 0 ? "+" : "") + number(value, digits);
