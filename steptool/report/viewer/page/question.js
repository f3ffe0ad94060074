// What is asked, and with which tools.

import { many } from "./colour.js";
import { el, folded } from "./dom.js";

export function question(of) {
  const { task } = of.found;
  const facts = [el("span", "", {}, task.id)];
  if (task.group) facts.unshift(el("span", "", {}, task.group.replaceAll("_", " ")));
  if (task.expected) facts.push(el("span", "", {}, "expected: ", el("b", "", {}, task.expected)));
  else if (task.goal) facts.push(el("span", "", {}, "goal: ", task.goal));
  const query =
    task.query ?? "No file of tasks here says what this task asks; the tokens of the first step hold the prompt.";
  const box = el(
    "header",
    "task",
    {},
    el("p", "facts", {}, facts),
    folded("h1", task.query === null ? "unknown" : query.length > 180 ? "long" : "", query, 1200),
  );
  if (task.system)
    box.append(
      el("details", "system", {}, el("summary", "", {}, "what the system says"), folded("p", "", task.system)),
    );
  if (task.tools.length) {
    const list = task.tools.map((tool) => [
      el(
        "dt",
        task.relevant.includes(tool.name) ? "relevant" : "",
        { title: task.relevant.includes(tool.name) ? "leads to the answer" : "" },
        tool.name,
      ),
      el("dd", "", {}, tool.description || "no description"),
    ]);
    const helps = task.relevant.length
      ? `, ${task.relevant.length} of them lead${task.relevant.length === 1 ? "s" : ""} to the answer`
      : "";
    box.append(
      el(
        "details",
        "tools",
        {},
        el("summary", "", {}, `${many(task.tools.length, "tool")} offered${helps}`),
        el("dl", "", {}, list),
      ),
    );
  }
  return box;
}
