// What keys do.

import { el } from "./dom.js";
import { closeMenus } from "./filters.js";

const KEYS = [
  ["j, k, ↓, ↑", "next and previous of the list"],
  ["/", "search"],
  ["Esc", "leave the search, close a menu"],
  ["t", "tokens of the steps"],
  ["c", "next colour"],
  ["o", "open and close what attempts have in common"],
  ["1 … 9", "add or remove an attempt"],
  ["m", "tasks or attempts in the list"],
  ["?", "this help"],
];

/** `acts`: key → what it does; a digit is given to `acts.digit`. */
export function listen(acts) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input[type=search], select, textarea");
    if (event.key === "Escape") {
      closeMenus();
      if (typing) event.target.blur();
    } else if (!typing && /^[1-9]$/.test(event.key)) acts.digit(Number(event.key));
    else if (!typing && Object.hasOwn(acts, event.key)) {
      acts[event.key]();
      event.preventDefault();
    }
  });
}

export function fillHelp(dialog) {
  const lines = KEYS.map(([key, what]) => [el("dt", "", {}, key), el("dd", "", {}, what)]);
  dialog.append(
    el("h2", "", {}, "Keys"),
    el("dl", "", {}, lines),
    el("button", "", { onclick: () => dialog.close() }, "close"),
  );
}
