#!/usr/bin/env node
// A backend for the vectors of awq_ref, levels L0 to L3, in JavaScript (node >= 18, no package).
// docs/conformance.md says what is asked, docs/layouts.md where the bits lie (layouts.mjs), docs/equations.md
// what [AWQ-n] is.
// Every number is a double: a code times a float32 is exact in it, and what is left to do is to round once.
import { pack, packedLinear, plainLinear, sizesOf, unpack } from "./layouts.mjs";
import { anyInput, array, input, know, need, rint, round, serve } from "./protocol.mjs";

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const FLOATS = ["float16", "float32"];
const PRECISIONS = ["float32", "float16_weights", "float16"];

// [AWQ-4]
function dequantize(l, { weight_dtype }) {
  know(FLOATS.includes(weight_dtype), "weight_dtype");
  const weight = array(weight_dtype, l.O, l.I);
  l.codes.data.forEach((code, k) => {
    const g = Math.floor(k / l.I) * l.G + l.groups.data[k % l.I];
    const [scale, zero] = [l.scales.data[g], l.zeros.data[g]];
    weight.data[k] = l.hasOffset ? code * scale + zero : (code - zero) * scale;
  });
  return { weight };
}

// [AWQ-1], [AWQ-2]: scale and zero point of one group, each step rounded to float32.
function gridOf(group, { qmax, middle, symmetric }, { range_rule, scale_dtype }) {
  const fromZero = range_rule === "zero" ? [0] : [];
  const low = Math.min(...fromZero, ...group);
  const high = Math.max(...fromZero, ...group);
  const width = Math.max(Math.fround(symmetric ? Math.max(-low, high) : high - low), Math.fround(1e-5));
  const scale = round(Math.fround(width / (symmetric ? middle - 1 : qmax)), scale_dtype);
  return [scale, symmetric ? middle : clamp(-rint(Math.fround(low / scale)), 0, qmax)];
}

// A grid, codes on the grid that is given, or both: `outputs` are their names.
function quantize(request, outputs) {
  const { params } = request;
  const given = !outputs.includes("scales");
  const weight = input(request, "weight", "float32", null, null);
  const l = sizesOf(request, ...weight.shape);
  know(
    given || (["zero", "minmax"].includes(params.range_rule) && FLOATS.includes(params.scale_dtype)),
    "params",
  );
  const clips = request.inputs.clip && anyInput(request, "clip", "float32", l.O, l.G).data;
  need(clips?.every((clip) => clip >= 0) ?? true, "clip");
  const scales = given ? input(request, "scales", "float", l.O, l.G) : array(params.scale_dtype, l.O, l.G);
  const zero_point = given ? input(request, "zero_point", "uint8", l.O, l.G) : array("uint8", l.O, l.G);
  const int_weight = array("uint8", l.O, l.I);
  for (let g = 0; g < l.O * l.G; g++) {
    const row = Math.floor(g / l.G) * l.I;
    const first = (g % l.G) * l.group;
    const [start, end] = [row + first, row + Math.min(first + l.group, l.I)];
    const group = weight.data.slice(start, end).map((w) => (clips ? clamp(w, -clips[g], clips[g]) : w));
    if (!given) [scales.data[g], zero_point.data[g]] = gridOf(group, l, params);
    const [scale, zero] = [scales.data[g], zero_point.data[g]];
    need(scale > 0 && Number.isFinite(scale) && zero <= l.qmax, "a grid that is none");
    group.forEach((w, i) => {
      int_weight.data[start + i] = clamp(rint(Math.fround(w / scale)) + zero, 0, l.qmax); // [AWQ-3]
    });
  }
  return Object.fromEntries(
    Object.entries({ scales, zero_point, int_weight }).filter(([name]) => outputs.includes(name)),
  );
}

// d = max |x| / 127 of `size` neighbours, and the codes rint(x / d).
function roundActivations(x, size) {
  const [T, I] = x.shape;
  need(Number.isInteger(size) && size > 0 && I % size === 0, "act_group_size");
  const act_scales = array("float32", T, I / size);
  const act_codes = array("int8", T, I);
  act_scales.data.forEach((_, g) => {
    const group = x.data.subarray(g * size, (g + 1) * size);
    const d = Math.fround(group.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127);
    act_scales.data[g] = d;
    // more than 127 only where d is subnormal
    group.forEach(
      (value, i) => (act_codes.data[g * size + i] = d && clamp(rint(Math.fround(value / d)), -127, 127)),
    );
  });
  return { act_codes, act_scales };
}

// [AWQ-10] y = bias + sum over groups of s (sum of (q - z) x), or of s (sum of q x) + offset (sum of x).
// With int8 activations x is d times a code and the inner sum an integer, in doubles as exact as in int32.
function matmul(l, request, runLength) {
  const x = input(request, "x", "float", null, l.I);
  const bias = request.inputs.bias && input(request, "bias", "float32", l.O).data;
  const act = runLength && roundActivations(x, runLength);
  const size = runLength || 1;
  need(l.group % size === 0, "act_group_size");
  const values = act ? act.act_codes.data : x.data;
  const y = array("float32", x.shape[0], l.O);
  y.data.forEach((_, k) => {
    const [t, o] = [Math.floor(k / l.O), k % l.O];
    let sum = bias ? bias[o] : 0;
    for (let start = 0; start < l.I; start += size) {
      const g = o * l.G + l.groups.data[start];
      const [zero, offset] = l.hasOffset ? [0, l.zeros.data[g]] : [l.zeros.data[g], 0];
      let [coded, plain] = [0, 0];
      for (let i = start; i < start + size; i++) {
        coded += (l.codes.data[o * l.I + i] - zero) * values[t * l.I + i];
        plain += values[t * l.I + i];
      }
      sum +=
        (l.scales.data[g] * coded + offset * plain) *
        (act ? act.act_scales.data[(t * l.I + start) / size] : 1);
    }
    y.data[k] = sum;
  });
  return { y };
}

function floatMatmul(l, request) {
  know(PRECISIONS.includes(request.params.precision), "precision");
  return matmul(l, request, 0);
}

const OPS = {
  pack,
  unpack,
  dequantize: (request) => dequantize(plainLinear(request), request.params),
  dequantize_packed: (request) => dequantize(packedLinear(request), request.params),
  choose_grid: (request) => quantize(request, ["scales", "zero_point"]),
  quantize: (request) => quantize(request, ["int_weight"]),
  quantize_linear: (request) => quantize(request, ["scales", "zero_point", "int_weight"]),
  matmul: (request) => floatMatmul(plainLinear(request), request),
  matmul_packed: (request) => floatMatmul(packedLinear(request), request),
  quantize_activations: (request) =>
    roundActivations(input(request, "x", "float32", null, null), request.params.act_group_size),
  matmul_w4a8: (request) => matmul(plainLinear(request), request, request.params.act_group_size),
};

serve("awq_ref example, JavaScript", (request) => {
  know(Object.hasOwn(OPS, request.op), "op");
  return OPS[request.op](request);
});
