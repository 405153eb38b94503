// A backend for the vectors of awq_ref in one file of JavaScript, no package: levels L0 to L3, layout gemm.
// docs/conformance.md says what is asked, docs/layouts.md where bits lie, docs/equations.md what [AWQ-n] is.
// Every number is a double: a code times a float32 is exact in it, and what is left to do is to round once.
import { createInterface } from "node:readline";

// ---- Refusals, which become the answers "invalid" and "unsupported" ----
function need(holds, what) {
  if (!holds) throw { status: "invalid", message: what };
}
function know(known, what) {
  if (!known) throw { status: "unsupported", message: what };
}

// ---- Rounding, to the nearest, ties to even ----
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const rint = (x) => (Math.abs(x) < 2 ** 51 ? x + 1.5 * 2 ** 52 - 1.5 * 2 ** 52 : x); // no bit for a fraction
const rounded = (x, dtype) => (dtype === "float16" ? fromHalf(toHalf(x)) : Math.fround(x));
function toHalf(x) {
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x))), -14);
  const bits = (exponent + 14) * 1024 + rint(Math.abs(x) * 2 ** (10 - exponent)); // a carry goes up
  return (x < 0 ? 0x8000 : 0) | Math.min(bits, 0x7c00);
}
function fromHalf(raw) {
  const [exponent, mantissa] = [(raw >> 10) & 31, raw & 1023];
  const size = exponent ? (1024 + mantissa) * 2 ** (exponent - 25) : mantissa * 2 ** -24;
  return exponent === 31 ? NaN : raw >> 15 ? -size : size; // an infinity is refused as a NaN is
}

// ---- Arrays: {dtype, shape, data}, data a Float64Array whatever the dtype ----
const TYPES = { uint8: Uint8Array, int8: Int8Array, int32: Int32Array, float32: Float32Array };
TYPES.float16 = Uint16Array; // little-endian, as every machine that runs node
const array = (dtype, ...shape) => ({ dtype, shape, data: new Float64Array(shape.reduce((n, m) => n * m)) });
// An input of the request, finite. A null in `shape` is any size; "float" is float16 or float32.
function input({ inputs }, name, dtype, ...shape) {
  const given = inputs[name];
  need(given?.dtype.startsWith(dtype) && given.dtype in TYPES, `${name}: dtype`);
  need(`${given.shape}` === `${shape.map((size, axis) => size ?? given.shape[axis])}`, `${name}: shape`);
  const bytes = Uint8Array.from(Buffer.from(given.data, "hex"));
  const elements = new TYPES[given.dtype](bytes.buffer);
  const data = Float64Array.from(elements, given.dtype === "float16" ? fromHalf : Number);
  need(data.length === array("", ...given.shape).data.length, `${name}: number of elements`);
  need(data.every((x) => Number.isFinite(x) || (x > 0 && name === "clip")), `${name}: not finite`);
  return { ...given, data };
}
function encoded({ dtype, shape, data }) { // integers lose what is above their width
  const elements = TYPES[dtype].from(dtype === "float16" ? Array.from(data, toHalf) : data);
  return { dtype, shape, data: Buffer.from(elements.buffer).toString("hex") };
}

// ---- A linear: O outputs, I inputs, G groups; codes (O, I), scales and zeros (O, G), groups (I) ----
function sizesOf({ params: { bits, group_size }, inputs }, O, I) {
  know([2, 3, 4, 8].includes(bits), "bits");
  need(group_size === -1 || (Number.isInteger(group_size) && group_size > 0), "group_size");
  const group = group_size === -1 ? I : group_size;
  need(I % group === 0 || inputs.g_idx, "group_size");
  return { O, I, G: Math.ceil(I / group), group, bits, qmax: 2 ** bits - 1 };
}
function linear(request, l, codes, scales, zeros) { // zeros are zero points, or offsets if they are floats
  need(codes.data.every((code) => code <= l.qmax), "int_weight: does not fit");
  need(zeros.dtype !== "uint8" || zeros.data.every((zero) => zero <= l.qmax), "zero_point: does not fit");
  const groups = request.inputs.g_idx ? input(request, "g_idx", "int32", l.I) : array("int32", l.I);
  if (!request.inputs.g_idx) groups.data = groups.data.map((_, i) => Math.floor(i / l.group));
  need(groups.data.every((g) => g >= 0 && g < l.G), "g_idx: no such group");
  return { ...l, codes, scales, zeros, groups, isOffset: zeros.dtype !== "uint8" };
}
function plainLinear(request) {
  const codes = input(request, "int_weight", "uint8", null, null);
  const l = sizesOf(request, ...codes.shape);
  const scales = input(request, "scales", "float", l.O, l.G);
  const [name, dtype] = request.inputs.offset ? ["offset", scales.dtype] : ["zero_point", "uint8"];
  return linear(request, l, codes, scales, input(request, name, dtype, l.O, l.G));
}

// ---- L0, layout gemm: words (rows, O / 8), codes (O, rows), a row is an input or a group ----
const SHIFTS = [0, 16, 4, 20, 8, 24, 12, 28]; // where the eight outputs of a word lie
function unpackWords({ shape: [rows, width], data }) {
  const codes = array("uint8", width * 8, rows);
  codes.data.forEach((_, k) => {
    const [o, row] = [Math.floor(k / rows), k % rows];
    codes.data[k] = (data[row * width + (o >> 3)] >> SHIFTS[o & 7]) & 15;
  });
  return codes;
}
function packWords({ shape: [outputs, rows], data }) {
  const words = array("int32", rows, outputs / 8);
  data.forEach((code, k) => {
    const [o, row] = [Math.floor(k / rows), k % rows];
    words.data[(row * outputs) / 8 + (o >> 3)] += code * 2 ** SHIFTS[o & 7];
  });
  return words;
}
function transposed({ dtype, shape: [n, m], data }) {
  return { dtype, shape: [m, n], data: data.map((_, k) => data[(k % n) * m + Math.floor(k / n)]) };
}
function sizesOfLayout(request) {
  const { layout, bits, out_features, in_features } = request.params;
  know(layout === "gemm" && bits === 4 && out_features % 8 === 0, "layout, bits, out_features");
  return sizesOf(request, out_features, in_features);
}
function packedLinear(request) {
  const l = sizesOfLayout(request);
  const codes = unpackWords(input(request, "qweight", "int32", l.I, l.O / 8));
  const zeros = unpackWords(input(request, "qzeros", "int32", l.G, l.O / 8));
  return linear(request, l, codes, transposed(input(request, "scales", "float16", l.G, l.O)), zeros);
}
function unpack(request) {
  const { codes, scales, zeros } = packedLinear(request);
  return { int_weight: codes, scales, zero_point: zeros };
}
function pack(request) {
  const [{ O, I }, l] = [sizesOfLayout(request), plainLinear(request)];
  need(l.O === O && l.I === I, "int_weight: shape");
  know(!l.isOffset && l.scales.dtype === "float16", "offsets, scales in float32");
  return { qweight: packWords(l.codes), qzeros: packWords(l.zeros), scales: transposed(l.scales) };
}

// ---- L1 [AWQ-4], L3 [AWQ-10] ----
const linearOf = (request) => (request.params.layout ? packedLinear : plainLinear)(request);
const weightsOf = (l) => l.codes.data.map((code, k) => {
  const g = Math.floor(k / l.I) * l.G + l.groups.data[k % l.I];
  return l.isOffset ? code * l.scales.data[g] + l.zeros.data[g] : (code - l.zeros.data[g]) * l.scales.data[g];
});
function dequantize(request) {
  const [l, dtype] = [linearOf(request), request.params.weight_dtype];
  know(/^float(16|32)$/.test(dtype), "weight_dtype");
  return { weight: { dtype, shape: [l.O, l.I], data: weightsOf(l) } };
}
function roundActivations(request) { // d = max |x| / 127 of `size` neighbours, and the codes rint(x / d)
  const [x, size] = [input(request, "x", "float32", null, null), request.params.act_group_size];
  need(size > 0 && x.shape[1] % size === 0, "act_group_size");
  const [d, codes] = [array("float32", x.shape[0], x.shape[1] / size), array("int8", ...x.shape)];
  for (let k = 0; k < x.data.length; k += size) {
    const group = x.data.subarray(k, k + size);
    const step = (d.data[k / size] = Math.fround(Math.max(...group.map(Math.abs)) / 127));
    codes.data.set(group.map((v) => (step ? clamp(rint(Math.fround(v / step)), -127, 127) : 0)), k);
  }
  return { act_codes: codes, act_scales: d };
}
function matmul(request) { // with int8 activations x is a code times d
  const [l, { precision, act_group_size: size }] = [linearOf(request), request.params];
  know(size || ["float32", "float16_weights", "float16"].includes(precision), "precision");
  let { data: x, shape } = input(request, "x", "float", null, l.I);
  const bias = request.inputs.bias ? input(request, "bias", "float32", l.O).data : new Float64Array(l.O);
  need(!size || l.group % size === 0, "act_group_size");
  const { act_codes, act_scales } = size ? roundActivations(request) : {};
  if (size) x = act_codes.data.map((code, k) => code * act_scales.data[Math.floor(k / size)]);
  const [y, weights] = [array("float32", shape[0], l.O), weightsOf(l)];
  const row = (t) => x.slice(t * l.I, (t + 1) * l.I);
  const dot = (t, o) => row(t).reduce((sum, v, i) => sum + v * weights[o * l.I + i], bias[o]);
  return { y: { ...y, data: y.data.map((_, k) => dot(Math.floor(k / l.O), k % l.O)) } };
}

// ---- L2 [AWQ-1] to [AWQ-3]: each step rounded to float32 ----
function gridOf(group, { bits, qmax }, { symmetric, range_rule, scale_dtype }) {
  const reached = range_rule === "zero" ? [0, ...group] : group;
  const [low, high] = [Math.min(...reached), Math.max(...reached)];
  const width = Math.max(Math.fround(symmetric ? Math.max(-low, high) : high - low), Math.fround(1e-5));
  const scale = rounded(Math.fround(width / (symmetric ? 2 ** (bits - 1) - 1 : qmax)), scale_dtype);
  return [scale, symmetric ? 2 ** (bits - 1) : clamp(-rint(Math.fround(low / scale)), 0, qmax)];
}
function quantize(request) { // a grid, codes on the grid that is given, or both
  const [choose, params] = [request.op !== "quantize", request.params];
  know(!choose || ["zero", "minmax"].includes(params.range_rule), "range_rule");
  know(!choose || ["float16", "float32"].includes(params.scale_dtype), "scale_dtype");
  const weight = input(request, "weight", "float32", null, null);
  const l = sizesOf(request, ...weight.shape);
  const clip = request.inputs.clip && input(request, "clip", "float32", l.O, l.G).data;
  const scales = choose ? array(params.scale_dtype, l.O, l.G) : input(request, "scales", "float", l.O, l.G);
  const zero_point = choose ? array("uint8", l.O, l.G) : input(request, "zero_point", "uint8", l.O, l.G);
  const int_weight = array("uint8", l.O, l.I);
  for (let g = 0; g < l.O * l.G; g++) {
    const start = Math.floor(g / l.G) * l.I + (g % l.G) * l.group;
    const bounded = (w) => (clip ? clamp(w, -clip[g], clip[g]) : w);
    const group = weight.data.slice(start, start + l.group).map(bounded);
    if (choose) [scales.data[g], zero_point.data[g]] = gridOf(group, l, params);
    const [scale, zero] = [scales.data[g], zero_point.data[g]];
    need(scale > 0 && scale < Infinity && zero <= l.qmax && !(clip?.[g] < 0), "a grid that is none");
    int_weight.data.set(group.map((w) => clamp(rint(Math.fround(w / scale)) + zero, 0, l.qmax)), start);
  }
  return { ...(choose && { scales, zero_point }), ...(request.op !== "choose_grid" && { int_weight }) };
}

// ---- The loop ----
const OPS = { pack, unpack, dequantize, matmul, quantize, quantize_activations: roundActivations };
Object.assign(OPS, { dequantize_packed: dequantize, choose_grid: quantize, quantize_linear: quantize });
Object.assign(OPS, { matmul_packed: matmul, matmul_w4a8: matmul });
const HELLO = { name: "awq_ref example, JavaScript", version: "1", layouts: ["gemm"] };
function answer(request) {
  if (request.op === "hello") return { status: "ok", protocol: 1, ...HELLO };
  try {
    know(Object.hasOwn(OPS, request.op), "op");
    const outputs = Object.entries(OPS[request.op](request)).map(([name, value]) => [name, encoded(value)]);
    return { status: "ok", outputs: Object.fromEntries(outputs) };
  } catch ({ status, message }) {
    return { status: status ?? "error", message };
  }
}
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => console.log(JSON.stringify(answer(JSON.parse(line)))));
