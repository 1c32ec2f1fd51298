"use strict";
// Elements, text, and unpacking. Foreign text enters the page in `element` alone, as text nodes.

const byId = (id) => document.getElementById(id);

const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

// Characters that hide or reorder text, written as escapes.
function visible(text) {
  return String(text).replace(INVISIBLE, (one) =>
    one === "\n" || one === "\t" ? one : `\\u{${one.codePointAt(0).toString(16)}}`);
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.map((one) => (one instanceof Node ? one : visible(one))));
  return made;
}

// An option a value; the chosen one stays chosen if it is still there.
function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  if (options.some(([value]) => value === before)) select.value = before;
}

function table(header, rows) {
  const cells = (tag, row) => element("tr", {}, ...row.map((cell) => element(tag, {}, cell)));
  return element("table", {},
    element("thead", {}, cells("th", header)),
    element("tbody", {}, ...rows.map((row) => cells("td", row))));
}

async function unpacked(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place += 1) bytes[place] = text.charCodeAt(place);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}
