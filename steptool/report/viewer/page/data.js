// What the page asks this machine for. Addresses are relative: everything lies below the key in the page's own.

async function ask(path, values = {}, signal) {
  const response = await fetch(`api/${path}?${new URLSearchParams(values)}`, { signal }).catch((error) => {
    throw error.name === "AbortError"
      ? error
      : new Error("steptool view has ended: start it again, and open the address that it prints");
  });
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Error(typeof said.detail === "string" ? said.detail : `the viewer answers ${response.status}`);
  }
  return response;
}

export const project = async () => (await ask("project")).json();
export const task = async (source, id, signal) => (await ask("task", { source, task: id }, signal)).json();
export const tokens = async (source, row) => (await ask("tokens", { source, row })).json();
export const search = async (source, text, signal) =>
  (await (await ask("search", { source, text }, signal)).json()).rows;

const FIELDS = [
  "part",
  "task",
  "group",
  "attempt",
  "solved",
  "stop",
  "steps",
  "tokens",
  "logprob",
  "tools",
  "errors",
  "query",
  "answer",
];

/** Blocks of rows as the files are read, between what else the server says of the source. */
export async function* rows(source, signal) {
  const reader = (await ask("rows", { source }, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "",
    number = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const block = JSON.parse(line);
      if (block.rows) yield { rows: block.rows.map((row) => named(row, number++)) };
      else yield block;
    }
  }
}

function named(row, number) {
  const made = { number };
  FIELDS.forEach((field, index) => {
    made[field] = row[index];
  });
  return made;
}
