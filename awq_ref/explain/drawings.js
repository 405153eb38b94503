"use strict";
// Drawings and elements, of the numbers in the page (page.js has them). Sizes are all that is computed here.

// ---- elements ----

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, String(cell)))));
  return [element("thead", {}, head), element("tbody", {}, ...body)];
}

function caption(...parts) {
  return element("p", { class: "caption" }, ...parts);
}

function key(kind, text) {
  return element("b", { class: "key-" + kind }, text);
}

// ---- drawings: a column for each weight of the group ----

const LEFT = 66, RIGHT = 6, TOP = 14, BOTTOM = 20;

function chart(width, height, low, high, label) {
  const svg = drawn("svg", { width, height, role: "img", "aria-label": label });
  const n = record.weights.length;
  const step = (width - LEFT - RIGHT) / n;
  const y = (value) => TOP + (high - value) / (high - low || 1) * (height - TOP - BOTTOM);
  const x = (k) => LEFT + step * k;
  svg.append(drawn("rect", { class: "band", x: x(state.weight), y: 0, width: step, height }));
  for (const value of new Set([low, Math.min(Math.max(0, low), high), high])) {
    svg.append(drawn("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    svg.append(drawn("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, shown(value)));
  }
  for (const k of [0, n - 1]) {
    svg.append(drawn("text", { x: x(k + 0.5), y: height - 4, "text-anchor": k ? "end" : "start" }, (k ? "" : "input ") + input(k)));
  }
  const point = (event) => {
    const k = Math.floor((event.clientX - svg.getBoundingClientRect().left - LEFT) / step);
    if (k >= 0 && k < n && k !== state.weight) choose(k);
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  return { svg, x, y, step };
}

function range(...lists) {
  const all = lists.flat();
  return [Math.min(0, ...all), Math.max(0, ...all)];
}

function bars(width, label, values, behind) {
  const { svg, x, y, step } = chart(width, 190, ...range(values, behind || []), label);
  const bar = (value, k, kind, inset) => drawn("rect", {
    class: kind, x: x(k) + inset, width: Math.max(1, step - 2 * inset),
    y: Math.min(y(value), y(0)), height: Math.max(0.5, Math.abs(y(value) - y(0))),
  });
  values.forEach((value, k) => svg.append(bar(value, k, "main", step * 0.22)));
  (behind || []).forEach((value, k) => svg.append(bar(value, k, "frame", step * 0.08)));
  return svg;
}

function grid(width) {
  const { levels, scaled, landed } = trial();
  const [low, high] = range(levels, scaled);
  const { svg, x, y, step } = chart(width, 320, low, high, "16 levels; each scaled weight and the level that it goes to");
  levels.forEach((level, code) => {
    svg.append(drawn("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(level), y2: y(level) }));
    svg.append(drawn("text", { x: LEFT + 2, y: y(level) - 2 }, String(code)));
  });
  scaled.forEach((value, k) => {
    const at = x(k + 0.5);
    svg.append(drawn("line", { class: "stem", x1: at, x2: at, y1: y(value), y2: y(landed[k]) }));
    svg.append(drawn("circle", { class: "main", cx: at, cy: y(value), r: Math.max(1.5, Math.min(4, step * 0.35)) }));
  });
  return svg;
}

function curve(width) {
  const height = 200, trials = record.trials;
  const values = trials.map((each) => each.relative);
  const low = Math.min(...values), high = Math.max(...values, low + 0.01);
  const svg = drawn("svg", { width, height, role: "img", "aria-label": "the loss against alpha" });
  const x = (alpha) => LEFT + alpha * (width - LEFT - 16), y = (value) => TOP + (high - value) / (high - low) * (height - TOP - 34);
  for (const value of new Set([low, 1, high])) {
    svg.append(drawn("line", { class: "axis", x1: LEFT, x2: width - 10, y1: y(value), y2: y(value) }));
    if (value === 1 || Math.abs(y(value) - y(1)) > 14) svg.append(drawn("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, shown(value)));
  }
  for (const alpha of [0, 0.5, 1]) svg.append(drawn("text", { x: x(alpha), y: height - 16, "text-anchor": "middle" }, String(alpha)));
  svg.append(drawn("text", { x: x(0.5), y: height - 2, "text-anchor": "middle" }, "alpha"));
  const line = trials.map((each) => x(each.alpha) + "," + y(each.relative)).join(" ");
  svg.append(drawn("polyline", { class: "curve", points: line }));
  trials.forEach((each, at) => {
    const dot = drawn("circle", { class: at === state.alpha ? "other" : "main", cx: x(each.alpha), cy: y(each.relative), r: at === state.alpha ? 7 : 4 });
    dot.addEventListener("click", () => { state.alpha = at; draw(); });
    svg.append(dot);
  });
  return svg;
}
