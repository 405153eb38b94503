// Level L0 in JavaScript: the layouts of docs/layouts.md, as a table and one pair of functions.
//
//     sizesOf                   sizes and widths that a request names
//     plainLinear, packedLinear the linear of a request, from plain arrays or from a layout's tensors
//     pack, unpack              the two operations
import { array, input, know, need, round } from "./protocol.mjs";

// Of codes, zero points and scales: the tensor, its order, T if out_features are its columns. `bits` and
// `floats` are what a layout can hold; a `ragged` one has part-full words and no symmetric zero points.
const ALL = { bits: [2, 3, 4, 8], floats: ["float16", "float32"] };
const AWQ = { bits: [4], floats: ["float16"] };
const FAST = { ...AWQ, padded: true, codes: "qweight fast", scales: "scales floats T" };
const GPTQ = { ...ALL, codes: "qweight columns T", zeros: "qzeros rows T", scales: "scales floats T" };
Object.assign(GPTQ, { floats: ["float16"], index: "g_idx" });
const PACKED = { ...ALL, codes: "weight_packed rows", zeros: "weight_zero_point columns", ragged: true };
const LAYOUTS = {
  gemm: { ...AWQ, codes: "qweight gemm T", zeros: "qzeros gemm T", scales: "scales floats T" },
  gemv: { ...AWQ, padded: true, codes: "qweight rows", zeros: "qzeros rows", scales: "scales floats" },
  gemv_fast: { ...FAST, zeros: "qzeros floats T" },
  "llm-awq": { ...FAST, zeros: "scaled_zeros floats T" },
  gptq: { ...GPTQ, lessOne: true },
  gptq_v2: GPTQ,
  "pack-quantized": { ...PACKED, scales: "weight_scale floats", index: "weight_g_idx" },
  mlx: { ...ALL, codes: "weight rows", zeros: "biases floats", scales: "scales floats", word: "uint32" },
};

export function sizesOf({ params, inputs }, O, I) {
  const { layout, bits, group_size, symmetric } = params;
  know([2, 3, 4, 8].includes(bits), "bits");
  need(Number.isInteger(group_size) && (group_size > 0 || group_size === -1), "group_size");
  const group = group_size === -1 ? I : group_size;
  const G = Math.ceil(I / group);
  const anySize = inputs.g_idx || inputs.weight_g_idx || layout === "gptq" || layout === "gptq_v2";
  need(anySize || I % group === 0, "group_size");
  return { O, I, G, group, bits, qmax: 2 ** bits - 1, middle: 2 ** (bits - 1), symmetric, padded: G };
}

function layoutOf(request) {
  const { params } = request;
  know(Object.hasOwn(LAYOUTS, params.layout), "layout");
  const layout = LAYOUTS[params.layout];
  const sizes = sizesOf(request, params.out_features, params.in_features);
  const block = sizes.group >= 128 ? 8 : { 64: 16, 32: 32 }[sizes.group];
  know(layout.bits.includes(sizes.bits) && (!layout.padded || block), "bits, group_size");
  know(layout !== LAYOUTS.mlx || [32, 64, 128].includes(sizes.group), "group_size");
  know(layout.codes !== "qweight fast" || (sizes.O % 8 === 0 && sizes.I % 64 === 0), "sizes");
  if (layout.padded) sizes.padded = Math.ceil(sizes.G / block) * block;
  const storesOffsets = layout.zeros.includes("floats");
  return { ...sizes, layout, storesOffsets, storesZeros: !(layout.ragged && sizes.symmetric) };
}

// Where bit t of the b-bit field (row, column) lies in a tensor of `width` words a row: word, bit in it.
const PLACES = {
  rows: (row, column, t, b, width) => [row * width + ((column * b + t) >> 5), (column * b + t) & 31],
  columns: (row, column, t, b, width) => [((row * b + t) >> 5) * width + column, (row * b + t) & 31],
  gemm: (row, column, t, b, width) => [
    row * width + (column >> 3),
    4 * (((column & 7) >> 1) + 4 * (column & 1)) + t,
  ],
  fast: (row, k, t, b, width) => [
    (row >> 2) * width + 64 * (k >> 6) + 16 * (row & 3) + 8 * ((k & 63) >> 5) + (k & 7),
    4 * ((k & 31) >> 3) + t,
  ],
};

function storedShape(l, order, rows, columns) {
  const words = (fields) => {
    know(l.layout.ragged || (fields * l.bits) % 32 === 0, "a word that is part full");
    return Math.ceil((fields * l.bits) / 32);
  };
  if (order === "floats") return [rows, columns];
  if (order === "fast") return [rows / 4, columns];
  return order === "columns" ? [words(rows), columns] : [rows, words(columns)];
}

// A field of a layout as it is stored: `columns` are its inputs or groups, `floats` the dtype of scales.
// gptq stores z - 1: one less in all fields of a word at once (`ones`); at 3 bits in each field, modulo 8.
function fieldOf(l, field, columns, floats) {
  const [name, order, transposed] = field.split(" ");
  const shape = storedShape(l, order, transposed ? columns : l.O, transposed ? l.O : columns);
  const dtype = { floats, fast: "int16" }[order] ?? l.layout.word ?? "int32";
  const lessOne = l.layout.lessOne && field === l.layout.zeros;
  const modulo = lessOne && l.bits === 3 ? 1 : 0;
  return {
    name,
    order,
    transposed,
    shape,
    dtype,
    modulo,
    ones: lessOne && !modulo ? (2 ** 32 - 1) / l.qmax : 0,
  };
}

// Calls visit(k, row, column) for every element k of a plain array: where it stands in the stored tensor.
function eachElement({ data, shape }, transposed, visit) {
  for (let k = 0; k < data.length; k++) {
    const [o, i] = [Math.floor(k / shape[1]), k % shape[1]];
    visit(k, transposed ? i : o, transposed ? o : i);
  }
}

function store(l, outputs, field, plain, columns) {
  const { name, order, transposed, shape, dtype, modulo, ones } = fieldOf(l, field, columns, plain.dtype);
  const words = array(dtype, ...shape);
  words.data.fill(-ones);
  eachElement(plain, transposed, (k, row, column) => {
    if (order === "floats") words.data[row * shape[1] + column] = plain.data[k];
    for (let t = 0; order !== "floats" && t < l.bits; t++) {
      const [word, bit] = PLACES[order](row, column, t, l.bits, shape[1]);
      words.data[word] += (((plain.data[k] - modulo) >> t) & 1) * 2 ** bit;
    }
  });
  outputs[name] = words;
}

function load(l, request, field, columns, plainColumns) {
  const floats = request.inputs[field.split(" ")[0]]?.dtype;
  const { name, order, transposed, shape, dtype, modulo, ones } = fieldOf(l, field, columns, floats);
  const words = input(request, name, dtype, ...shape).data;
  need(order !== "floats" || l.layout.floats.includes(dtype), `${name}: dtype`);
  const plain = array(order === "floats" ? dtype : "uint8", l.O, plainColumns);
  eachElement(plain, transposed, (k, row, column) => {
    if (order === "floats") plain.data[k] = words[row * shape[1] + column];
    for (let t = 0; order !== "floats" && t < l.bits; t++) {
      const [word, bit] = PLACES[order](row, column, t, l.bits, shape[1]);
      plain.data[k] += (((words[word] + ones) >> bit) & 1) << t;
    }
    if (modulo) plain.data[k] = (plain.data[k] + modulo) & l.qmax;
  });
  return plain;
}

// What every linear must keep to; `index` names the input with the group of every input channel.
function checked(l, request, codes, scales, zeros, hasOffset, index) {
  need(
    codes.data.every((code) => code <= l.qmax),
    "int_weight: a code that does not fit",
  );
  need(hasOffset || zeros.data.every((zero) => zero <= l.qmax), "zero_point: a code that does not fit");
  const given = request.inputs[index] !== undefined;
  const groups = given ? input(request, index, "int32", l.I) : array("int32", l.I);
  if (!given) groups.data.forEach((_, i) => (groups.data[i] = Math.floor(i / l.group)));
  need(
    groups.data.every((group) => group >= 0 && group < l.G),
    `${index}: no such group`,
  );
  return { ...l, codes, scales, zeros, hasOffset, groups, hasIndex: given };
}

export function plainLinear(request) {
  const codes = input(request, "int_weight", "uint8", null, null);
  const l = sizesOf(request, ...codes.shape);
  const scales = input(request, "scales", "float", l.O, l.G);
  const hasOffset = "offset" in request.inputs;
  const zeros = hasOffset
    ? input(request, "offset", scales.dtype, l.O, l.G)
    : input(request, "zero_point", "uint8", l.O, l.G);
  return checked(l, request, codes, scales, zeros, hasOffset, "g_idx");
}

export function packedLinear(request) {
  const l = layoutOf(request);
  const codes = load(l, request, l.layout.codes, l.I, l.I);
  const scales = load(l, request, l.layout.scales, l.padded, l.G);
  const zeros = l.storesZeros ? load(l, request, l.layout.zeros, l.padded, l.G) : array("uint8", l.O, l.G);
  if (!l.storesZeros) zeros.data.fill(l.middle);
  need(!l.storesOffsets || zeros.dtype === scales.dtype, "offsets: dtype");
  if (l.layout.ragged) {
    const shape = input(request, "weight_shape", "int64", 2).data;
    need(shape[0] === l.O && shape[1] === l.I, "weight_shape");
  }
  return checked(l, request, codes, scales, zeros, l.storesOffsets, l.layout.index);
}

export function unpack(request) {
  const { codes, scales, zeros, hasOffset, groups, hasIndex } = packedLinear(request);
  const outputs = { int_weight: codes, scales, [hasOffset ? "offset" : "zero_point"]: zeros };
  return hasIndex ? { ...outputs, g_idx: groups } : outputs;
}

export function pack(request) {
  const l = layoutOf(request);
  const { codes, scales, zeros, hasOffset, groups, hasIndex } = plainLinear(request);
  need(codes.shape[0] === l.O && codes.shape[1] === l.I, "int_weight: shape");
  know(l.storesOffsets || !hasOffset, "offset");
  know(l.layout.floats.includes(scales.dtype), "scales: dtype");
  const stored = l.storesOffsets && !hasOffset ? array(scales.dtype, l.O, l.G) : zeros;
  if (stored !== zeros)
    stored.data = zeros.data.map((zero, k) => round(-scales.data[k] * zero, scales.dtype));
  need(stored.data.every(Number.isFinite), "a scale times a zero point that overflows");
  const outputs = {};
  store(l, outputs, l.layout.codes, codes, l.I);
  store(l, outputs, l.layout.scales, scales, l.padded);
  if (l.storesZeros) store(l, outputs, l.layout.zeros, stored, l.padded);
  if (l.layout.ragged) outputs.weight_shape = { dtype: "int64", shape: [2], data: [l.O, l.I] };
  if (l.layout.index && hasIndex) outputs[l.layout.index] = groups;
  return outputs;
}
