// Rows of the list: what they can be filtered, sorted, grouped and compared by. No element of the page is touched here.

export const OUTCOMES = {
  solved: { glyph: "✓", title: "solved" },
  partly: { glyph: "◐", title: "partly solved" },
  unsolved: { glyph: "✗", title: "not solved" },
  unknown: { glyph: "?", title: "no verdict" },
};

export function outcomeOf(solved) {
  if (solved === null) return "unknown";
  return solved === 1 ? "solved" : solved === 0 ? "unsolved" : "partly";
}

/** Filters by key: what each is called, and the values that a row has of it. */
export const FACETS = {
  part: { title: "Part", values: (row, parts) => [parts[row.part].name] },
  group: { title: "Group", values: (row) => (row.group ? [row.group] : []) },
  outcome: { title: "Outcome", values: (row) => [OUTCOMES[outcomeOf(row.solved)].title] },
  tool: { title: "Tool", values: (row) => row.tools },
  error: { title: "Error", values: (row) => row.errors },
  stop: { title: "Ended", values: (row) => [row.stop.replace("_", " ")] },
};

export const ORDERS = {
  file: { title: "as in the files", value: (row) => row.number },
  steps: { title: "most steps", value: (row) => -row.steps },
  tokens: { title: "most tokens", value: (row) => -row.tokens },
  unsure: { title: "least sure", value: (row) => row.logprob ?? 1 },
  errors: { title: "most kinds of errors", value: (row) => -row.errors.length },
  mixed: { title: "outcomes differ", value: () => 0, task: (rows) => -spread(rows) },
};

/** Variance of the verdicts: largest where half of the attempts solved the task. */
function spread(rows) {
  const known = rows.map((row) => row.solved).filter((solved) => solved !== null);
  const middle = mean(known);
  return known.length ? mean(known.map((solved) => (solved - middle) ** 2)) : 0;
}

/** The rows that have one of the chosen values of every filter, and are among `found` where something is searched. */
export function filtered(rows, parts, chosen, found, without = "") {
  const tests = Object.entries(chosen)
    .filter(([key, values]) => values.length && key !== without)
    .map(([key, values]) => ({ read: FACETS[key].values, wanted: new Set(values) }));
  return rows.filter(
    (row) =>
      (!found || found.has(row.number)) &&
      tests.every(({ read, wanted }) => read(row, parts).some((value) => wanted.has(value))),
  );
}

/** How many rows have each value of a filter, most first. */
export function counts(rows, parts, key) {
  const count = new Map();
  for (const row of rows)
    for (const value of FACETS[key].values(row, parts)) count.set(value, (count.get(value) ?? 0) + 1);
  return [...count].sort((one, other) => other[1] - one[1] || (one[0] < other[0] ? -1 : 1));
}

/** Task → its rows, in the order in which tasks first come. */
export function byTask(rows) {
  const tasks = new Map();
  for (const row of rows) {
    const own = tasks.get(row.task);
    if (own) own.push(row);
    else tasks.set(row.task, [row]);
  }
  return tasks;
}

/** Mean verdict of the attempts of one part at a task, or where `grounded` is given, the share of grounded answers;
 * null where there is none, undefined without attempts. */
export function rate(rows, part, grounded) {
  const own = rows.filter((row) => row.part === part);
  if (!own.length) return undefined;
  if (grounded) return grounded[part]?.[own[0].task] ?? null;
  return own.some((row) => row.solved === null) ? null : own.reduce((sum, row) => sum + row.solved, 0) / own.length;
}

/** Where a task stands between two parts: won by the first, lost by it, both or neither solve it, unknown. */
export function cellOf(first, second) {
  if (first === undefined || second === undefined) return "apart";
  if (first === null || second === null) return "unknown";
  if (first !== second) return first > second ? "won" : "lost";
  return first > 0 ? "both" : "neither";
}

/** The attempts that show most at first: one of each part of a pair, or one that solved the task and one that did not. */
export function contrast(attempts, pair) {
  if (pair) {
    const [first, second] = pair.map((part) => attempts.filter((each) => each.part === part));
    if (first.length && second.length) {
      const score = (each) => each.solved ?? 0;
      const wins = mean(first.map(score)) >= mean(second.map(score)) ? 1 : -1;
      const pick = (own, sign) => own.reduce((kept, each) => (sign * (score(each) - score(kept)) > 0 ? each : kept));
      return [pick(second, -wins), pick(first, wins)];
    }
  }
  const good = attempts.find((each) => each.solved === 1);
  const bad = attempts.find((each) => each.solved !== 1);
  if (good && bad) return attempts.filter((each) => each === good || each === bad);
  return attempts.slice(0, 2);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

const ARGUMENTS = "other arguments";

/** How many first steps all have in common, and in what the next ones differ: in words, and whether in an argument. */
export function parting(attempts) {
  const [first, ...others] = attempts.map((each) => each.steps);
  let common = 0;
  while (common < first.length && others.every((steps) => steps[common]?.path === first[common].path)) common++;
  if (!others.length || (common === first.length && others.every((steps) => steps.length === common))) {
    return { common, why: "", differs: () => false };
  }
  const next = attempts.map((each) => each.steps[common]);
  const why = difference(next);
  return {
    common,
    why,
    differs: (place, name) =>
      why === ARGUMENTS && several(next, (step) => step.calls[place].arguments.find(([key]) => key === name)),
  };
}

const several = (steps, read) => new Set(steps.map((step) => JSON.stringify(read(step)))).size > 1;

function difference(steps) {
  if (steps.some((step) => !step)) return "one ends, another goes on";
  const distinct = (read) => several(steps, read);
  const kind = (step) => {
    if (step.unreadable !== null) return "unreadable";
    if (step.message !== null) return "message";
    if (!step.calls[0].finish) return "call";
    return step.calls[0].answer === null ? "end" : "answer";
  };
  if (distinct(kind)) {
    const words = {
      unreadable: "text that could not be read",
      message: "a message",
      answer: "an answer",
      end: "giving up",
      call: "a call",
    };
    return [...new Set(steps.map((step) => words[kind(step)]))].join(" against ");
  }
  if (distinct((step) => step.calls.map((call) => call.name))) return "another tool";
  if (distinct((step) => step.calls.map((call) => call.arguments))) {
    return kind(steps[0]) === "answer" ? "another answer" : ARGUMENTS;
  }
  if (distinct((step) => [step.message, step.unreadable])) return "other words";
  if (distinct((step) => [step.calls.map((call) => [call.reply, call.error]), step.reply]))
    return "the same action, another reply";
  return "another thought, the same action";
}
