// A list of any length: only the rows in sight are elements, each HEIGHT px high.

const HEIGHT = 62;
const SPARE = 6;

export class List {
  /** `fill(index)` makes the element of a row. */
  constructor(box, fill) {
    this.box = box;
    this.fill = fill;
    this.length = 0;
    this.chosen = -1;
    this.space = document.createElement("div");
    this.space.className = "space";
    box.append(this.space);
    this.first = this.last = 0;
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
  }

  show(length, { keep = false } = {}) {
    this.length = length;
    this.space.style.height = `${length * HEIGHT}px`;
    if (!keep) this.box.scrollTop = 0;
    this.draw(true);
  }

  draw(anew = false) {
    const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - SPARE);
    const last = Math.min(this.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + SPARE);
    if (!anew && first === this.first && last === this.last) return;
    [this.first, this.last] = [first, last];
    const rows = [];
    for (let index = first; index < last; index++) {
      const row = this.fill(index);
      row.style.transform = `translateY(${index * HEIGHT}px)`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", index === this.chosen);
      rows.push(row);
    }
    this.space.replaceChildren(...rows);
    this.box.classList.toggle("nothing-fits", this.length === 0);
  }

  choose(index) {
    this.chosen = index;
    const top = index * HEIGHT,
      { scrollTop, clientHeight } = this.box;
    if (index >= 0 && top < scrollTop) this.box.scrollTop = top;
    if (index >= 0 && top + HEIGHT > scrollTop + clientHeight) this.box.scrollTop = top + HEIGHT - clientHeight;
    this.draw(true);
  }
}
