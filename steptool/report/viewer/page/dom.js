// Elements from values. Whatever stands in a text becomes text nodes: nothing in this page parses markup.

// Control characters, and those that change the direction or hide in a text (as `steptool.core.errors.printable`).
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** A text with every character that would be invisible, or move others, shown by its number. */
export function shown(text) {
  const parts = document.createDocumentFragment();
  let done = 0;
  for (const match of text.matchAll(HIDDEN)) {
    parts.append(text.slice(done, match.index));
    const mark = document.createElement("span");
    mark.className = "hidden-character";
    mark.textContent = "U+" + match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    mark.title = "a character that cannot be seen";
    parts.append(mark);
    done = match.index + match[0].length;
  }
  parts.append(text.slice(done));
  return parts;
}

/** An element: its class, properties (`on…` are listeners, `aria-…` and `data-…` attributes), and children. */
export function el(tag, name = "", properties = {}, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key.startsWith("aria-") || key === "role") made.setAttribute(key, value);
    else if (key === "background") made.style.background = value;
    else made[key] = value;
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    made.append(typeof child === "string" ? shown(child) : child);
  }
  return made;
}

/** Paint the words of a search wherever they stand in an element, without changing it; in browsers that can. */
export function highlight(box, text) {
  if (!globalThis.CSS?.highlights) return;
  const words = [...text.toLowerCase().matchAll(/"([^"]+)"|(\S+)/g)].map((match) => match[1] ?? match[2]);
  const ranges = [];
  const nodes = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
  for (let node = nodes.nextNode(); node && words.length; node = nodes.nextNode()) {
    const said = node.data.toLowerCase();
    for (const word of words) {
      for (let at = said.indexOf(word); at >= 0 && ranges.length < 1000; at = said.indexOf(word, at + word.length)) {
        if (at + word.length <= node.length)
          ranges.push(
            new StaticRange({ startContainer: node, startOffset: at, endContainer: node, endOffset: at + word.length }),
          );
      }
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

/** A long text, folded; `open` shows the rest of it. */
export function folded(tag, name, text, most = 1600) {
  if (text.length <= most) return el(tag, name, {}, text);
  const box = el(tag, name, {}, text.slice(0, most) + " … ");
  const rest = text.length - most;
  box.append(
    el(
      "button",
      "more",
      {
        onclick: (event) => {
          event.stopPropagation();
          box.replaceChildren(shown(text));
        },
      },
      `show ${rest.toLocaleString("en")} more characters`,
    ),
  );
  return box;
}
