// One task: the question, all attempts at a glance, and the chosen ones side by side from where they part.

import { contrast, parting } from "./attempts.js";
import { MEASURES, measuresOf, number, paint, scaleOf, signed } from "./colour.js";
import { el, folded, highlight } from "./dom.js";
import { view } from "./state.js";
import { called, ending, fails, inWords, label, scores, verdict } from "./steps.js";
import { stream } from "./tokens.js";

const MOST_SIDES = 6;

export class Detail {
  /** `tokensOf(row)` gives the token stream of an attempt; `changed` is called when other attempts are chosen. */
  constructor(box, tokensOf, changed) {
    Object.assign(this, { box, tokensOf, changed, found: null });
  }

  empty(...said) {
    this.found = null;
    this.box.replaceChildren(el("div", "nothing", {}, ...said));
  }

  /** `rows`: attempts to show first; else those that show most. */
  show(found, parts, pair, rows = []) {
    Object.assign(this, { found, parts, streams: new Map() });
    const asked = found.attempts.filter((each) => rows.includes(each.row));
    this.chosen = new Set((asked.length ? asked : contrast(found.attempts, pair)).map((each) => each.row));
    this.box.scrollTop = 0;
    this.draw();
  }

  toggle(row, alone = false) {
    if (alone) this.chosen = new Set([row]);
    else if (!this.chosen.delete(row)) this.chosen.add(row);
    if (!this.chosen.size) this.chosen.add(row);
    while (this.chosen.size > MOST_SIDES) this.chosen.delete(this.chosen.values().next().value);
    this.changed();
    this.draw();
  }

  toggleNumber(number) {
    const attempt = this.found?.attempts[number - 1];
    if (attempt) this.toggle(attempt.row);
  }

  nextMeasure() {
    const measures = this.found ? measuresOf(this.found.attempts) : [];
    if (measures.length) this.set("measure", measures[(measures.indexOf(this.measure) + 1) % measures.length]);
  }

  set(name, value) {
    view[name] = value;
    if (this.found) this.draw();
  }

  get sides() {
    return this.found.attempts.filter((each) => this.chosen.has(each.row));
  }

  /** Part and number of an attempt, where there are several; of an agent that rewrote its history also the stream. */
  name(attempt) {
    const ofPart = this.found.attempts.filter((each) => each.part === attempt.part);
    const streams = ofPart.filter((each) => each.attempt === attempt.attempt);
    const number = ofPart.length > streams.length || attempt.attempt ? ` #${attempt.attempt + 1}` : "";
    const stream = streams.length > 1 ? `, stream ${streams.indexOf(attempt) + 1}` : "";
    return this.parts[attempt.part].name + number + stream;
  }

  draw() {
    const measures = measuresOf(this.found.attempts);
    this.measure = measures.includes(view.measure) ? view.measure : measures[0] ?? "";
    this.scale = this.measure ? scaleOf(this.measure, this.found.attempts) : 1;
    this.box.replaceChildren(this.task(), this.map(measures), this.columns());
    highlight(this.box, view.searched);
    if (view.tokens) this.load();
  }

  async load() {
    const waiting = this.sides.filter((each) => !this.streams.has(each.row));
    if (!waiting.length) return;
    const found = this.found;
    for (const each of waiting) {
      const loaded = await this.tokensOf(each.row).catch((error) => ({ missing: error.message, steps: [] }));
      this.streams.set(each.row, loaded);
    }
    if (found === this.found && view.tokens) this.draw();
  }

  task() {
    const { task } = this.found;
    const facts = [el("span", "", {}, task.id)];
    if (task.group) facts.unshift(el("span", "", {}, task.group.replaceAll("_", " ")));
    if (task.expected) facts.push(el("span", "", {}, "expected: ", el("b", "", {}, task.expected)));
    else if (task.goal) facts.push(el("span", "", {}, "goal: ", task.goal));
    const query = task.query ?? "No file of tasks here says what this task asks; the tokens of the first step hold the prompt.";
    const box = el("header", "task", {}, el("p", "facts", {}, facts), folded("h1", task.query === null ? "unknown" : query.length > 180 ? "long" : "", query, 1200));
    if (task.system) box.append(el("details", "system", {}, el("summary", "", {}, "what the system says"), folded("p", "", task.system)));
    if (task.tools.length) {
      const list = task.tools.map((tool) => [
        el("dt", task.relevant.includes(tool.name) ? "relevant" : "", { title: task.relevant.includes(tool.name) ? "leads to the answer" : "" }, tool.name),
        el("dd", "", {}, tool.description || "no description"),
      ]);
      const helps = task.relevant.length ? `, ${task.relevant.length} of them lead${task.relevant.length === 1 ? "s" : ""} to the answer` : "";
      box.append(el("details", "tools", {}, el("summary", "", {}, `${task.tools.length} tool${task.tools.length === 1 ? "" : "s"} offered${helps}`), el("dl", "", {}, list)));
    }
    return box;
  }

  // All attempts, a line each; a square for each step.
  map(measures) {
    const { attempts, all } = this.found;
    const before = new Set();
    const lines = attempts.map((attempt, index) => {
      const squares = attempt.steps.map((step, place) => {
        const square = el("button", before.has(step.path) ? "square known" : "square", {
          background: this.paint(step),
          title: `step ${place + 1}: ${inWords(step)}`,
          onclick: () => this.reveal(attempt, place),
        }, label(step));
        if (fails(step)) square.classList.add("fails");
        return square;
      });
      attempt.steps.forEach((step) => before.add(step.path));
      const is = this.chosen.has(attempt.row);
      return el("div", is ? "line chosen" : "line", {},
        el("input", "", { type: "checkbox", checked: is, onchange: () => this.toggle(attempt.row), "aria-label": `show ${this.name(attempt)}` }),
        el("button", "who", { onclick: () => this.toggle(attempt.row, true), title: index < 9 ? `show it alone; key ${index + 1} adds and removes it` : "show it alone" }, this.name(attempt)),
        verdict(attempt), el("div", "squares", {}, squares), el("span", "ending", {}, ending(attempt)));
    });
    const more = all > attempts.length ? el("p", "note", {}, `the first ${attempts.length} of ${all.toLocaleString("en")} attempts at this task`) : null;
    return el("section", "map", {}, this.controls(measures), el("div", "lines", {}, lines), more);
  }

  controls(measures) {
    const choice = measures.length > 0 && el("div", "choice", { role: "group", "aria-label": "Colour" }, measures.map((key) =>
      el("button", key === this.measure ? "on" : "", { "aria-pressed": String(key === this.measure), onclick: () => this.set("measure", key) }, MEASURES[key].title)));
    const legend = this.measure ? this.legend() : null;
    const tokens = el("button", view.tokens ? "toggle on" : "toggle", { "aria-pressed": String(view.tokens), title: "key t", onclick: () => this.set("tokens", !view.tokens) }, "tokens");
    return el("div", "controls", {}, choice, legend, tokens);
  }

  legend() {
    const kind = MEASURES[this.measure].kind;
    const [low, high] = { sign: [-this.scale, this.scale], verdict: [0, 1], amount: [0, 1], doubt: [-3, 0] }[kind];
    const parts = Array.from({ length: 7 }, (_, index) => low + ((high - low) * index) / 6);
    return el("span", "legend", {}, number(low), el("span", "ramp", {}, parts.map((value) => el("i", "", { background: paint(kind, value, this.scale) }))), number(high));
  }

  paint(step) {
    return this.measure ? paint(MEASURES[this.measure].kind, MEASURES[this.measure].step(step), this.scale) : "";
  }

  // The chosen attempts: what they have in common once, then side by side.
  columns() {
    const sides = this.sides;
    const { common, why, differs } = parting(sides);
    const grid = el("div", "sides", {});
    grid.style.setProperty("--sides", sides.length);
    grid.append(...sides.map((side) => el("h2", "", {}, this.name(side), verdict(side))), ...sides.map((side) => this.head(side)));
    const shared = sides.length > 1 ? common : 0;
    if (shared) grid.append(this.shared(sides, shared, why));
    if (sides.length > 1) {
      const said = why ? `step ${shared + 1}: ${why}` : "the same steps to the end";
      grid.append(el("p", why ? "parting" : "parting same", {}, why ? (shared ? "they part at " : "they part at once, ") : "", el("b", "", {}, said)));
    }
    const longest = Math.max(...sides.map((side) => side.steps.length));
    for (let place = shared; place < longest; place++) {
      for (const side of sides) {
        grid.append(side.steps[place] ? this.step(side, place, sides.length > 1 && place === shared && why ? differs : null) : el("div", "gap", {}));
      }
    }
    if (!longest) grid.append(el("p", "parting", {}, "no step was taken"));
    return el("section", "attempts", {}, grid, this.credit(sides));
  }

  head(side) {
    const counted = `${side.steps.length} step${side.steps.length === 1 ? "" : "s"}`;
    const tokens = side.steps.reduce((sum, step) => sum + step.sampled, 0);
    const total = side.steps[0]?.return;
    const numbers = [counted, tokens ? `${tokens} tokens` : "", total === null || total === undefined ? "" : `return ${signed(total)}`];
    return el("div", "head", {},
      el("p", "", {}, ending(side, "answered ")),
      side.evidence ? folded("p", "evidence", side.evidence, 300) : null,
      side.error ? folded("p", "broke", side.error, 300) : null,
      el("p", "numbers", {}, numbers.filter(Boolean).join(" · ")),
      el("details", "", {}, el("summary", "", {}, "how it was made"), el("dl", "", {}, side.facts.map(([key, value]) => [el("dt", "", {}, key), el("dd", "", {}, value)]))));
  }

  shared(sides, count, why) {
    const [first] = sides;
    const names = first.steps.slice(0, count).map(label).join(" → ");
    const title = `${count} step${count === 1 ? "" : "s"} in common`;
    const box = el("details", "shared", { open: view.common || !why, ontoggle: () => { view.common = box.open; } },
      el("summary", "", {}, el("b", "", {}, title), ` ${names}`));
    for (let place = 0; place < count; place++) {
      const step = this.step(first, place);
      step.querySelector(".scores")?.remove();
      step.append(...sides.map((side) => scores(side.steps[place], this.name(side))));
      box.append(step);
    }
    return box;
  }

  /** `differs`: of the step where attempts part, whether an argument of a call is another in each. */
  step(side, place, differs = null) {
    const step = side.steps[place];
    const box = el("section", differs ? "step parts" : "step", { id: `step-${side.row}-${place}` });
    const strip = el("span", "strip", { background: this.paint(step) });
    box.append(strip, el("span", "place", {}, String(place + 1)));
    if (step.thought) box.append(folded("p", "thought", step.thought));
    step.calls.forEach((call, index) => box.append(...called(call, (name) => differs?.(index, name))));
    if (step.message !== null) box.append(folded("p", "message", step.message));
    if (step.unreadable !== null) box.append(el("p", "unreadable", {}, el("b", "", {}, "could not be read: "), step.unreadable));
    if (step.hint !== null) box.append(folded("pre", "reply failed", step.hint));
    if (step.reply !== null) box.append(el("p", "label", {}, "the user replies"), folded("pre", "reply", step.reply));
    if (view.tokens) box.append(this.tokens(side, place));
    box.append(scores(step));
    return box;
  }

  tokens(side, place) {
    const loaded = this.streams.get(side.row);
    if (!loaded) return el("p", "note", {}, "…");
    const notes = place === 0 && loaded.missing ? el("p", "note", {}, loaded.missing) : null;
    const found = loaded.steps[place];
    if (!found || (!found.context_size && !found.sampled.length)) return el("p", "note", {}, notes ?? "no tokens were recorded: this step was not sampled here");
    const measure = this.measure === "advantage" ? "advantage" : "logprob";
    return el("div", "tokens", {}, notes, stream(found, side.steps[place], measure, this.scale));
  }

  credit(sides) {
    const notes = sides.flatMap((side) => this.found.notes[this.parts[side.part].name]);
    return el("footer", "credit", {}, [...new Set(notes)].map((note) => el("p", "", {}, note)));
  }

  reveal(attempt, place) {
    if (!this.chosen.has(attempt.row)) this.toggle(attempt.row);
    const own = document.getElementById(`step-${attempt.row}-${place}`);
    const box = own ?? this.box.querySelector(".shared");
    if (!own && box) box.open = true;
    box?.scrollIntoView({ block: "center" });
    box?.animate?.([{ background: "var(--flash)" }, { background: "transparent" }], 900);
  }
}
