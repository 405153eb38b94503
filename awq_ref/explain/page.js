// Shows the numbers that stand in the page, step by step.
const record = JSON.parse(document.getElementById("numbers").textContent);
const byId = (id) => document.getElementById(id);
const about = record.about;
const sections = [...document.querySelectorAll("section[data-name]")];
const state = { step: 0, alpha: record.chosen, weight: loudest(), layout: "gemm" };
const trial = () => record.trials[state.alpha];
const rounded = () => record.trials[0];
const input = (k) => about.first + k;

function loudest() {
  return record.act_mean_abs.indexOf(Math.max(...record.act_mean_abs));
}

function shown(value) { // four digits: what a sentence needs; tables have all of them
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 0.0001 && size < 100000 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

// ---- the steps: what is drawn, what is said of the chosen weight, the table ----

const columns = {
  weight: ["weight w", () => record.weights], heard: ["mean |x|", () => record.act_mean_abs], x: ["x of the token", () => record.x],
  scale: ["scale s", () => trial().scales], scaled: ["w s", () => trial().scaled], landed: ["level", () => trial().landed],
  code: ["code q", () => trial().codes], restored: ["w restored", () => trial().restored], error: ["error", () => trial().error],
  met: ["x / s", () => trial().dot.x], felt: ["|error| mean |x|", () => trial().felt],
  roundedError: ["error, nearest", () => rounded().error], roundedFelt: ["the same, nearest", () => rounded().felt],
};

function perWeight(...names) {
  const chosen = names.map((name) => columns[name]);
  return () => table(["input", ...chosen.map(([head]) => head)],
    record.weights.map((_, k) => [input(k), ...chosen.map(([, values]) => values()[k])]));
}

function codes() {
  const cells = trial().codes.map((code, k) => {
    const cell = element("span", k === state.weight ? { class: "chosen" } : {}, String(code));
    cell.addEventListener("pointerenter", () => choose(k));
    return cell;
  });
  return element("div", { class: "codes" }, ...cells);
}

function wordGrid(layout) {
  const values = trial().words[layout.name];
  const label = "Words of " + layout.name + ", high end first; arrow keys go from bit to bit";
  const cells = [];
  const rows = layout.words.map((word, at) => {
    const head = element("span", { role: "rowheader" }, `${layout.tensor}[${word.row}, ${word.column}] = ${values[at].hex}`);
    const runs = word.runs.map(([low, size, first, o, i], which) => {
      const own = o === about.row && i >= about.first && i < about.first + about.group_size;
      const size_class = layout.width === 8 ? " byte" : layout.width === 16 ? " half" : "";
      const run = element("span", { class: "run" + size_class + (own ? " own" : "") });
      for (let bit = low + size - 1; bit >= low; bit--) {
        const text = `bit ${bit} of ${layout.tensor}[${word.row}, ${word.column}] is bit ${first + bit - low} of the code of row ${o}, input ${i}: code ${values[at].codes[which]}`;
        const cell = element("span", { role: "gridcell", tabindex: "-1", "aria-label": text }, values[at].bits[layout.width - 1 - bit]);
        for (const kind of ["pointerenter", "focus"]) cell.addEventListener(kind, () => { byId("said").textContent = text + (own ? ", of this group." : "."); });
        run.append(cell);
      }
      run.append(element("span", { class: "owner", "aria-hidden": "true" }, String(values[at].codes[which]), element("span", { class: "whose" }, ` of ${o},${i}`)));
      return run;
    }).reverse();
    cells.push(runs.flatMap((run) => [...run.querySelectorAll("[role=gridcell]")]));
    return element("div", { role: "row", class: "word" }, head, ...runs);
  });
  cells[0][0].tabIndex = 0;
  const made = element("div", { role: "grid", "aria-label": label }, ...rows);
  made.addEventListener("keydown", (event) => walk(event, cells));
  return made;
}

function walk(event, cells) {
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (!(event.key in moves)) return;
  event.preventDefault();
  event.stopPropagation();
  const row = cells.findIndex((word) => word.includes(event.target)), at = cells[row].indexOf(event.target);
  const [down, right] = moves[event.key];
  const next = cells[row + down]?.[at + right];
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function words() {
  const able = record.layouts.filter((layout) => layout.words), unable = record.layouts.filter((layout) => !layout.words);
  const layout = able.find((each) => each.name === state.layout) || able[0];
  if (!layout) return [caption("No layout can hold this layer.")];
  const select = element("select", { id: "layout" }, ...able.map((each) => element("option", { value: each.name }, each.name)));
  select.value = layout.name;
  select.addEventListener("change", () => { state.layout = select.value; draw(); byId("layout").focus(); });
  const more = layout.count > layout.words.length ? `the first ${layout.words.length} of ${layout.count} words` : `${layout.count} words`;
  return [
    element("p", {}, element("label", { for: "layout" }, "layout "), select),
    caption(`${layout.tensor}, ${layout.word}: ${more} that hold codes of this group, high end first; below each nibble its code and whose it is (row, input).`),
    wordGrid(layout),
    unable.length ? element("details", {}, element("summary", {}, `${unable.length} layouts cannot hold this layer`),
      element("ul", {}, ...unable.map((each) => element("li", {}, each.why_not)))) : "",
  ];
}

function product() {
  const { bytes, dot, delta, zero_point: z } = trial(), start = record.block;
  const parts = [];
  if (start === null) parts.push(caption("The inputs of this layer do not fill blocks of 32; its codes stay bytes in memory."));
  else {
    const rows = bytes.map(({ byte, low, high }, j) => [start + j, byte.toString(2).padStart(8, "0"), low, high, start + j + 16]);
    const made = element("table", { class: "bytes" }, ...table(["input j", "byte", "& 15", ">> 4", "input j + 16"], rows));
    const k = input(state.weight) - start;
    if (k >= 0 && k < 32) made.querySelectorAll("tbody tr")[k % 16].classList.add("chosen");
    parts.push(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Bytes of the block" }, made));
    if (about.group_size > 32) parts.push(caption("The first block of the group."));
  }
  const sums = [
    ["sum of q x over the group", dot.codes_x], ["sum of x over the group", dot.sum_x], ["step delta", delta], ["zero point z", z],
    ["the group's part: delta (sum q x - z sum x)", dot.group], ["the float group's part", record.float_group],
    [`output ${about.row}, all ${about.groups} groups`, dot.output], ["the float row's output", record.float_output],
  ];
  parts.push(element("table", { class: "sums" }, element("tbody", {}, ...sums.map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, String(value)))))));
  return parts;
}

function compared() {
  const rows = [["loss of the layer", "loss"], ["loss of this row", "row_loss"]].map(([name, field]) => [name, ...[rounded(), trial()].map((each) => each[field].toPrecision(6))]);
  rows.push([`one token's output; the float row's: ${record.float_output}`, rounded().dot.output, trial().dot.output]);
  const [head, body] = table(["", "nearest", "alpha " + trial().alpha], rows);
  head.querySelector("th").replaceWith(element("td"));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Losses" }, element("table", { class: "compared" }, head, body));
}

const of = (k) => `Weight ${k}, input ${input(k)}: `;
const steps = [
  { draw: (w) => [bars(w, "the weights of the group", record.weights), caption(key("main", "w"), `, row ${about.row}, inputs ${input(0)} to ${input(about.group_size - 1)}`)],
    say: (k) => of(k) + `w = ${shown(record.weights[k])}.`, table: perWeight("weight") },
  { draw: (w) => [bars(w, "mean |x| of every input", record.act_mean_abs), caption(key("main", "mean |x|"), ` over ${about.tokens} tokens of calibration; this group holds the loudest input of the layer`)],
    say: (k) => of(k) + `mean |x| = ${shown(record.act_mean_abs[k])}` + (k === loudest() ? ", the loudest input of the layer." : "."), table: perWeight("weight", "heard") },
  { draw: (w) => [curve(w), caption("loss of all layers that read this input (" + about.shared.join(", ") + "), relative to rounding to nearest"),
      bars(w, "the scale of every input", trial().scales), caption(key("main", "s"), " at this alpha")],
    say: (k) => `alpha ${trial().alpha}: loss ${shown(trial().loss)}, ${shown(trial().relative)} of rounding to nearest` + (state.alpha === record.chosen ? ", the least of all that were tried. " : ". ") +
      of(k) + `s = ${shown(trial().scales[k])}.` + (about.fixed ? " Nothing before this layer can absorb a scale, so alpha stays 0." : ""), table: perWeight("heard", "scale") },
  { draw: (w) => [bars(w, "weights before and after scaling", trial().scaled, record.weights), caption(key("main", "w s"), " and ", key("other", "w"), ` (frame); ${about.producer || "nothing"} is divided by s`)],
    say: (k) => of(k) + `${shown(record.weights[k])} times ${shown(trial().scales[k])} is ${shown(trial().scaled[k])}.`, table: perWeight("weight", "scale", "scaled") },
  { draw: (w) => [grid(w), caption(key("main", "w s"), ", its level and ", key("other", "the way to it")), bars(w, "the error of every weight", trial().error), caption(key("main", "error"), " of w, the scale taken out again")],
    say: (k) => `From ${shown(trial().low)} to ${shown(trial().high)}: delta = ${shown(trial().delta)}, z = ${trial().zero_point}. ` + of(k) + `${shown(trial().scaled[k])} goes to ${shown(trial().landed[k])}; error of w: ${shown(trial().error[k])}.`,
    table: perWeight("scaled", "landed", "restored", "error") },
  { draw: () => [codes(), caption(`codes of the inputs ${input(0)} to ${input(about.group_size - 1)}`)],
    say: (k) => of(k) + `${shown(trial().scaled[k])} / ${shown(trial().delta)}, rounded, + ${trial().zero_point} is code ${trial().codes[k]}. Back: (${trial().codes[k]} - ${trial().zero_point}) times ${shown(trial().delta)} / ${shown(trial().scales[k])} = ${shown(trial().restored[k])}, for ${shown(record.weights[k])}.`,
    table: perWeight("scaled", "code", "landed", "restored") },
  { draw: words, say: () => "Point at a bit, or press Tab and the arrow keys.", table: perWeight("code") },
  { draw: product, say: (k) => (about.piece === null ? "A token" : `The token ${JSON.stringify(about.piece)}`) + ` of the calibration brings x. ` + of(k) + `x / s = ${shown(trial().dot.x[k])} meets code ${trial().codes[k]}.`, table: perWeight("x", "scale", "met", "code") },
  { draw: (w) => [bars(w, "error times mean |x|, with and without scales", trial().felt, rounded().felt), caption("|error| times mean |x|: ", key("main", "alpha " + trial().alpha), ", ", key("other", "rounding to nearest"), " (frame)"), compared()],
    say: (k) => of(k) + `error ${shown(trial().error[k])}, rounded to nearest ${shown(rounded().error[k])}. The layer's loss is ${shown(trial().relative)} of rounding to nearest's.`, table: perWeight("error", "felt", "roundedError", "roundedFelt") },
];

// ---- moving ----

function choose(k) {
  state.weight = k;
  draw();
}

function draw() {
  const step = steps[state.step], section = sections[state.step];
  const picture = section.querySelector(".picture");
  picture.replaceChildren(...step.draw(picture.clientWidth));
  byId("said").textContent = step.say(state.weight);
  byId("table").querySelector("table").replaceChildren(...step.table());
  byId("alpha").value = state.alpha;
  byId("alpha-said").textContent = trial().alpha + (state.alpha === record.chosen ? ", chosen" : state.alpha === 0 ? ", nearest" : "");
  byId("alpha").setAttribute("aria-valuetext", byId("alpha-said").textContent);
  byId("weight").value = state.weight;
  byId("weight-said").textContent = `input ${input(state.weight)}`;
  byId("weight").setAttribute("aria-valuetext", byId("weight-said").textContent);
}

function go(step) {
  state.step = Math.min(Math.max(step, 0), sections.length - 1);
  sections.forEach((section, at) => { section.hidden = at !== state.step; });
  sections[state.step].querySelector(".picture").before(byId("controls"));
  byId("alpha-control").hidden = !("alpha" in sections[state.step].dataset);
  byId("where").textContent = `step ${state.step + 1} of ${sections.length}`;
  byId("back").setAttribute("aria-disabled", state.step === 0);
  byId("next").setAttribute("aria-disabled", state.step === sections.length - 1);
  [...byId("steps").querySelectorAll("button")].forEach((button, at) => {
    if (at === state.step) button.setAttribute("aria-current", "step"); else button.removeAttribute("aria-current");
  });
  draw();
}

function start() {
  byId("about").textContent = `${about.layer} of ${about.model}, ${about.rows} x ${about.inputs}; row ${about.row}, group ${about.group} of ${about.groups} (${about.group_size} weights), ${about.bits} bits; calibrated on ${about.tokens} tokens: ${about.source}.`;
  sections.forEach((section, at) => {
    const button = element("button", { type: "button" }, `${at + 1}`, element("span", { class: "name" }, ` ${section.dataset.name}`));
    button.addEventListener("click", () => go(at));
    byId("steps").append(element("li", {}, button));
  });
  byId("alpha").max = record.trials.length - 1;
  byId("weight").max = record.weights.length - 1;
  byId("alpha").addEventListener("input", () => { state.alpha = Number(byId("alpha").value); draw(); });
  byId("weight").addEventListener("input", () => choose(Number(byId("weight").value)));
  byId("back").addEventListener("click", () => go(state.step - 1));
  byId("next").addEventListener("click", () => go(state.step + 1));
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest("input, select, .scroll, pre, [role=grid]") || event.altKey || event.ctrlKey || event.metaKey;
    if (!busy && event.key === "ArrowLeft") go(state.step - 1);
    if (!busy && event.key === "ArrowRight") go(state.step + 1);
  });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
  go(0);
}

start();
