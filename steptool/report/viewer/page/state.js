// What is chosen. All of it stands in the address behind the #, so that a view can be opened again.

import { FACETS, ORDERS } from "./attempts.js";

/** Of the list. `filters`: key → chosen values; `pair`: two parts to compare; `rows`: the attempts that are shown. */
export const state = {
  source: "",
  mode: "tasks",
  sort: "file",
  text: "",
  filters: {},
  pair: null,
  cell: "",
  task: "",
  rows: [],
};
/** Of the detail; it stays from task to task. */
export const view = { measure: "", tokens: false, common: false, searched: "" };

export const noFilters = () => Object.fromEntries(Object.keys(FACETS).map((key) => [key, []]));

export function remember(parts) {
  const values = new URLSearchParams();
  for (const key of ["source", "mode", "sort", "text", "cell", "task"]) if (state[key]) values.set(key, state[key]);
  if (state.pair) values.set("pair", state.pair.map((part) => parts[part].name).join("|"));
  for (const [key, chosen] of Object.entries(state.filters))
    for (const value of chosen) values.append(`is.${key}`, value);
  if (state.rows.length) values.set("rows", state.rows.join(","));
  if (view.measure) values.set("colour", view.measure);
  if (view.tokens) values.set("tokens", "1");
  history.replaceState(null, "", `#${values}`);
}

/** Choose what the address says; the names of the pair, whose places follow from the source. */
export function recall() {
  const values = new URLSearchParams(location.hash.slice(1));
  for (const key of ["source", "text", "cell", "task"]) state[key] = values.get(key) ?? "";
  state.mode = values.get("mode") === "attempts" ? "attempts" : "tasks";
  state.sort = values.get("sort") in ORDERS ? values.get("sort") : "file";
  state.filters = Object.fromEntries(Object.keys(FACETS).map((key) => [key, values.getAll(`is.${key}`)]));
  state.rows = (values.get("rows") ?? "").split(",").filter(Boolean).map(Number);
  view.measure = values.get("colour") ?? "";
  view.tokens = values.has("tokens");
  return (values.get("pair") ?? "").split("|");
}
