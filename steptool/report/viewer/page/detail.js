// One task: the question, all attempts at a glance, and the chosen ones side by side.

import { contrast } from "./attempts.js";
import { MEASURES, measuresOf, paint, scaleOf } from "./colour.js";
import { el, highlight } from "./dom.js";
import { glance } from "./glance.js";
import { question } from "./question.js";
import { sideBySide } from "./sides.js";
import { view } from "./state.js";

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
    this.measure = measures.includes(view.measure) ? view.measure : (measures[0] ?? "");
    this.scale = this.measure ? scaleOf(this.measure, this.found.attempts) : 1;
    this.box.replaceChildren(question(this), glance(this, measures), sideBySide(this));
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

  paint(step) {
    return this.measure ? paint(MEASURES[this.measure].kind, MEASURES[this.measure].step(step), this.scale) : "";
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
