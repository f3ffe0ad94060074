// The token stream of a step: what came in, folded, and each sampled token by its measure.

import { MEASURES, many, number, paint, signed } from "./colour.js";
import { el } from "./dom.js";

/** `measure` is logprob or advantage; advantages are painted against `scale`. */
export function stream(found, { advantages, sampled: count }, measure, scale) {
  const { kind, token: read } = MEASURES[measure];
  const sampled = found.sampled.map(([id, text, isControl, logprob], index) => {
    const advantage = advantages[index] ?? null;
    const lines = [`token ${id}`, `probability ${(Math.exp(logprob) * 100).toFixed(2)} %, log ${number(logprob, 4)}`];
    if (advantage !== null) lines.push(`advantage ${signed(advantage, 4)}`);
    return el(
      "span",
      isControl ? "token control" : "token",
      {
        title: lines.join("\n"),
        background: paint(kind, read({ logprob }, advantage), scale),
      },
      text || "·",
    );
  });
  const context = found.context.map(([text, isControl]) => el("span", isControl ? "control" : "", {}, text));
  const rest = found.left_out ? ` … ${found.left_out.toLocaleString("en")} more characters` : "";
  return el(
    "div",
    "stream",
    {},
    el(
      "details",
      "",
      {},
      el("summary", "", {}, `${many(found.context_size, "token")} came in`),
      el("pre", "context", {}, context, rest),
    ),
    el(
      "p",
      "label",
      {},
      `${many(count, "token")} sampled, ${sampled.length < count ? `the first ${sampled.length.toLocaleString("en")} ` : ""}painted by ${MEASURES[measure].title}`,
    ),
    el("pre", "sampled", {}, sampled),
  );
}
