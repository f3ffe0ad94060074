// The menus of filters: the values that there are under the other filters, with how many rows have each.

import { FACETS, counts, filtered } from "./attempts.js";
import { el } from "./dom.js";
import { state } from "./state.js";

const MANY = 12;

/** Fill the box; a menu that is open stays so. `found`: rows of a search; `changed` and `clear` are called. */
export function drawFilters(box, rows, parts, found, { changed, clear }) {
  const opened = box.querySelector("details[open]")?.dataset.key;
  const made = Object.entries(FACETS).map(([key, { title }]) => {
    const chosen = state.filters[key];
    const menu = el("div", "menu", {});
    const fill = () => fillMenu(menu, key, filtered(rows, parts, state.filters, found, key), parts, changed);
    const facet = el(
      "details",
      chosen.length ? "facet on" : "facet",
      { name: "facet", ontoggle: () => facet.open && fill() },
      el("summary", "", {}, chosen.length ? `${title}: ${chosen.join(", ").slice(0, 40)}` : title),
      menu,
    );
    facet.dataset.key = key;
    if (key === opened) {
      facet.open = true;
      fill();
    }
    return facet;
  });
  const isFiltered = state.text || state.cell || Object.values(state.filters).some((chosen) => chosen.length);
  if (isFiltered) made.push(el("button", "quiet", { onclick: clear, title: "show everything" }, "clear"));
  box.replaceChildren(...made);
}

export function closeMenus(but = null) {
  for (const menu of document.querySelectorAll("details.facet[open]")) if (!menu.contains(but)) menu.open = false;
}

function fillMenu(menu, key, rows, parts, changed) {
  const chosen = state.filters[key];
  const values = counts(rows, parts, key);
  for (const value of chosen) if (!values.some(([each]) => each === value)) values.push([value, 0]);
  const choose = (value, is) => {
    state.filters[key] = is ? [...chosen, value] : chosen.filter((each) => each !== value);
    changed();
  };
  const lines = values.map(([value, count]) =>
    el(
      "label",
      "",
      {},
      el("input", "", {
        type: "checkbox",
        checked: chosen.includes(value),
        onchange: (event) => choose(value, event.target.checked),
      }),
      el("span", "value", {}, value),
      el("span", "number", {}, count.toLocaleString("en")),
    ),
  );
  const narrow = (text) =>
    lines.forEach((line, index) => {
      line.hidden = !values[index][0].toLowerCase().includes(text.toLowerCase());
    });
  const input = el("input", "", {
    type: "search",
    placeholder: "narrow",
    "aria-label": "Narrow the list",
    oninput: (event) => narrow(event.target.value),
  });
  if (!lines.length) menu.replaceChildren(el("p", "note", {}, "none"));
  else menu.replaceChildren(...(lines.length > MANY ? [input] : []), ...lines);
}
