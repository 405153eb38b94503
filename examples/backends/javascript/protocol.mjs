// The protocol of docs/conformance.md in JavaScript: requests, arrays, answers. It knows nothing about
// quantization: copy it into a backend of your own.
//
//     serve(name, answer)    the loop over standard input; answer(request) returns the outputs by name
//     input, anyInput        arrays of the request: finite numbers, any numbers
//     array                  new ones: {dtype, shape, data}, data a Float64Array
//     need, know             where something does not hold: answer "invalid" or "unsupported"
//     rint, round            to an integer; to float32 or float16: once, to the nearest, ties to even
import { createInterface } from "node:readline";

class Invalid extends Error {}
class Unsupported extends Error {}

export function need(holds, what) {
  if (!holds) throw new Invalid(what);
}

export function know(known, what) {
  if (!known) throw new Unsupported(what);
}

// 1.5 * 2^52 leaves no bit for a fraction.
export const rint = (x) => (Math.abs(x) < 2 ** 51 ? x + 1.5 * 2 ** 52 - 1.5 * 2 ** 52 : x);

const float64 = new DataView(new ArrayBuffer(8));

// The mantissa is rounded as an integer; a carry goes into the exponent.
function toHalf(x) {
  float64.setFloat64(0, Math.abs(x));
  const exponent = Math.max((float64.getUint16(0) >> 4) - 1023, -14);
  const bits = (exponent + 14) * 1024 + rint(Math.abs(x) * 2 ** (10 - exponent));
  return (x < 0 ? 0x8000 : 0) | Math.min(bits, 0x7c00);
}

function fromHalf(bits) {
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  const size = exponent ? (1024 + mantissa) * 2 ** (exponent - 25) : mantissa * 2 ** -24;
  return exponent === 31 ? NaN : bits >> 15 ? -size : size; // an infinity is refused as a NaN is
}

export const round = (x, dtype) => (dtype === "float16" ? fromHalf(toHalf(x)) : Math.fround(x));

// How the elements lie in memory, little-endian as on every machine that runs node.
const TYPES = {
  uint8: Uint8Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  float16: Uint16Array,
  float32: Float32Array,
};

const count = (shape) => shape.reduce((product, size) => product * size, 1);

export const array = (dtype, ...shape) => ({ dtype, shape, data: new Float64Array(count(shape)) });

// An input of the request. A null in `shape` is any size, "float" is float16 or float32.
export function anyInput(request, name, dtype, ...shape) {
  const given = request.inputs[name];
  need(given?.dtype.startsWith(dtype) && given.dtype in TYPES, `${name}: dtype`);
  need(given.shape.length === shape.length, `${name}: axes`);
  need(
    shape.every((size, axis) => size === null || size === given.shape[axis]),
    `${name}: shape`,
  );
  const Type = TYPES[given.dtype];
  const bytes = Uint8Array.from(Buffer.from(given.data, "hex"));
  need(bytes.length === count(given.shape) * Type.BYTES_PER_ELEMENT, `${name}: number of bytes`);
  need(given.data.length === 2 * bytes.length, `${name}: number of digits`);
  const data = Float64Array.from(new Type(bytes.buffer), given.dtype === "float16" ? fromHalf : Number);
  return { dtype: given.dtype, shape: given.shape, data };
}

// The same, without NaN and infinities.
export function input(request, name, dtype, ...shape) {
  const result = anyInput(request, name, dtype, ...shape);
  need(result.data.every(Number.isFinite), `${name}: not finite`);
  return result;
}

function encode({ dtype, shape, data }) {
  const convert = { float16: toHalf, int64: BigInt }[dtype] ?? Number;
  const values = Array.from(data, (value) => convert(value)); // integers lose what is above their width
  return { dtype, shape, data: Buffer.from(TYPES[dtype].from(values).buffer).toString("hex") };
}

function answerTo(request, name, answer) {
  if (request.op === "hello") return { status: "ok", protocol: 1, name, version: "1" };
  try {
    const outputs = Object.entries(answer(request)).map(([key, value]) => [key, encode(value)]);
    return { status: "ok", outputs: Object.fromEntries(outputs) };
  } catch (error) {
    const status =
      error instanceof Invalid ? "invalid" : error instanceof Unsupported ? "unsupported" : "error";
    return { status, message: String(error.message) };
  }
}

export function serve(name, answer) {
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    process.stdout.write(`${JSON.stringify(answerTo(JSON.parse(line), name, answer))}\n`);
  });
}
