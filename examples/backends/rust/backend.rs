//! A backend for the vectors of awq_ref in one file of Rust, without a crate: levels L0 to L3, layout gemm.
//! docs/conformance.md says what is asked, docs/layouts.md where bits lie, docs/equations.md what [AWQ-n] is.
//! For a kernel of your own keep what stands above L0, and call it in `unpack_gemm` or `matmul`.

// ---- Refusals: the status of the answer, and why ----
type Answer<T> = Result<T, (&'static str, &'static str)>;
fn need(holds: bool, what: &'static str) -> Answer<()> { holds.then_some(()).ok_or(("invalid", what)) }
fn know(known: bool, what: &'static str) -> Answer<()> { known.then_some(()).ok_or(("unsupported", what)) }

// ---- Numbers: f64, in which a code times a float32 is exact; rounded once, ties to even ----
fn float32(x: f64) -> f64 { x as f32 as f64 }
fn from_half(bits: u64) -> f64 { // an infinity is refused as NaN is
    let (exponent, mantissa) = ((bits >> 10 & 31) as i32, (bits & 1023) as i32);
    let size = (mantissa + if exponent > 0 { 1024 } else { 0 }) as f64 * 2f64.powi(exponent.max(1) - 25);
    if exponent == 31 { f64::NAN } else if bits >> 15 == 1 { -size } else { size }
}
fn to_half(x: f64) -> u64 { // the mantissa as an integer: its carry goes into the exponent
    let size = x.abs().min(65536.0);
    let exponent = ((size.to_bits() >> 52) as i32 - 1023).max(-14);
    let bits = (exponent + 14) * 1024 + (size * 2f64.powi(10 - exponent)).round_ties_even() as i32;
    bits.min(0x7C00) as u64 | if x < 0.0 { 0x8000 } else { 0 }
}

// ---- Arrays: rows and columns, in C order; a vector is one column ----
type Outputs<'a> = Vec<(&'static str, Array<'a>)>;
struct Array<'a> { dtype: &'a str, shape: [usize; 2], data: Vec<f64> }
fn array<'a>(dtype: &'a str, shape: [usize; 2], element: impl FnMut(usize) -> f64) -> Array<'a> {
    Array { dtype, shape, data: (0..shape[0] * shape[1]).map(element).collect() }
}
fn size_of(t: &str) -> usize { if t.ends_with("32") { 4 } else { 1 + t.ends_with("16") as usize } }
fn encoded((name, Array { dtype, shape, data }): &(&str, Array)) -> String {
    let bits = |x: f64| match *dtype {
        "float16" => to_half(x),
        "float32" => (x as f32).to_bits() as u64,
        _ => x as i64 as u64, // the low bytes are two's complement
    };
    let bytes = data.iter().flat_map(|x| bits(*x).to_le_bytes().into_iter().take(size_of(dtype)));
    let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data":"{hex}"}}"#)
}

// ---- The request: a line of JSON without spaces and escapes, so that a search does for a parser ----
struct Request<'a>(&'a str);
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).map_or("", |(_, rest)| rest);
    rest.split_once(end).map_or(rest, |(found, _)| found)
}
impl<'a> Request<'a> {
    fn has(&self, name: &str) -> bool { self.0.contains(&format!(r#""{name}":"#)) }
    fn word(&self, name: &str) -> &'a str {
        between(self.0, &format!(r#""{name}":"#), ",").trim_matches(['"', '{', '}'])
    }
    fn number(&self, name: &str) -> usize { self.word(name).parse().unwrap_or(0) }
    fn one_of(&self, name: &'static str, words: &[&str]) -> Answer<&'a str> {
        know(words.contains(&self.word(name)), name).map(|_| self.word(name))
    }
    /// An input, finite. 0 in `shape` is any size, "float" is float16 or float32.
    fn input(&self, name: &'static str, dtype: &str, shape: [usize; 2]) -> Answer<Array<'a>> {
        let text = between(self.0, &format!(r#""{name}":{{"dtype":""#), "}");
        let (kind, hex) = (between(text, "", "\""), between(text, r#""data":""#, "\"").as_bytes());
        let mut axes = between(text, "[", "]").split(',').map(|axis| axis.parse().unwrap_or(0));
        let (given, digits) = ([axes.next().unwrap_or(0), axes.next().unwrap_or(1)], 2 * size_of(kind));
        need(kind.starts_with(dtype) && hex.len() == digits * given[0] * given[1], name)?;
        need((0..2).all(|axis| shape[axis] == 0 || shape[axis] == given[axis]), name)?;
        let digit = |at: usize| ((hex[at] & 15) + (hex[at] >> 6) * 9) as u64;
        let bits = |k: usize| (0..digits).map(|j| digit(k * digits + j) << (4 * (j ^ 1))).sum();
        let found = array(kind, given, |k| match kind {
            "float16" => from_half(bits(k)),
            "float32" => f32::from_bits(bits(k) as u32) as f64,
            _ => bits(k) as f64,
        });
        need(found.data.iter().all(|x| x.is_finite()), name).map(|_| found)
    }
}

// ---- L0, layout gemm: words (rows, outputs / 8), codes (outputs, rows); a row is an input or a group ----
const SHIFTS: [u32; 8] = [0, 16, 4, 20, 8, 24, 12, 28]; // where the eight outputs of a word lie
fn unpack_gemm(words: Array) -> Array {
    let [rows, width] = words.shape;
    let word = |row: usize, o: usize| words.data[row * width + o / 8] as u32;
    array("uint8", [width * 8, rows], |k| (word(k % rows, k / rows) >> SHIFTS[k / rows % 8] & 15) as f64)
}
fn pack_gemm(codes: Array) -> Array {
    let (width, rows) = (codes.shape[0] / 8, codes.shape[1]);
    let code = |row: usize, o: usize| (codes.data[o * rows + row] as u32) << SHIFTS[o % 8];
    array("int32", [rows, width], |k| (0..8).map(|n| code(k / width, k % width * 8 + n)).sum::<u32>() as f64)
}
fn transposed(a: Array) -> Array {
    array(a.dtype, [a.shape[1], a.shape[0]], |k| a.data[k % a.shape[0] * a.shape[1] + k / a.shape[0]])
}
struct Linear<'a> { group: usize, codes: Array<'a>, scales: Array<'a>, zeros: Array<'a> } // (O, I), (O, G)
fn sizes(r: &Request, [outputs, inputs]: [usize; 2]) -> Answer<(usize, f64)> { // group_size, the highest code
    know(!["g_idx", "offset", "clip"].iter().any(|name| r.has(name)), "g_idx, offset, clip")?;
    let group = if r.word("group_size") == "-1" { inputs } else { r.number("group_size") };
    need(outputs > 0 && inputs > 0 && group > 0 && inputs % group == 0, "sizes")?;
    r.one_of("bits", &["2", "3", "4", "8"]).map(|_| (group, (1 << r.number("bits")) as f64 - 1.0))
}
fn linear<'a>(r: &Request<'a>) -> Answer<Linear<'a>> { // from plain arrays, or from the layout's tensors
    let (packed, [o, i]) = (!r.has("int_weight"), [r.number("out_features"), r.number("in_features")]);
    know(!r.has("layout") || (r.word("layout") == "gemm" && r.word("bits") == "4" && o % 8 == 0), "layout")?;
    let gemm = |name, rows| r.input(name, "int32", [rows, o / 8]).map(unpack_gemm);
    let codes = if packed { gemm("qweight", i)? } else { r.input("int_weight", "uint8", [o, i])? };
    need(!r.has("layout") || codes.shape == [o, i], "out_features, in_features")?;
    let ((group, qmax), o) = (sizes(r, codes.shape)?, codes.shape[0]);
    let g = codes.shape[1] / group;
    let zeros = if packed { gemm("qzeros", g)? } else { r.input("zero_point", "uint8", [o, g])? };
    let (dtype, shape) = if packed { ("float16", [g, o]) } else { ("float", [o, g]) };
    let scales = r.input("scales", dtype, shape).map(|s| if packed { transposed(s) } else { s })?;
    need(codes.data.iter().chain(&zeros.data).all(|code| *code <= qmax), "a code is too high")?;
    Ok(Linear { group, codes, scales, zeros })
}
fn unpack(l: Linear) -> Answer<Outputs> {
    Ok(vec![("int_weight", l.codes), ("scales", l.scales), ("zero_point", l.zeros)])
}
fn pack(Linear { codes, scales, zeros, .. }: Linear) -> Answer<Outputs> {
    know(scales.dtype == "float16", "float32")?;
    Ok(vec![("qweight", pack_gemm(codes)), ("qzeros", pack_gemm(zeros)), ("scales", transposed(scales))])
}

// ---- L1 [AWQ-4] ----
fn weight(l: &Linear, k: usize) -> f64 {
    (l.codes.data[k] - l.zeros.data[k / l.group]) * l.scales.data[k / l.group]
}
fn dequantize<'a>(r: &Request<'a>, l: Linear) -> Answer<Outputs<'a>> {
    let dtype = r.one_of("weight_dtype", &["float16", "float32"])?;
    Ok(vec![("weight", array(dtype, l.codes.shape, |k| weight(&l, k)))])
}

// ---- L2 [AWQ-1] to [AWQ-3]: each step rounded to float32 ----
fn quantize<'a>(r: &Request<'a>) -> Answer<Outputs<'a>> {
    let weight = r.input("weight", "float32", [0, 0])?;
    let (group, qmax) = sizes(r, weight.shape)?;
    let grid = [weight.shape[0], weight.shape[1] / group];
    let start = if r.one_of("range_rule", &["zero", "minmax"])? == "zero" { 0.0 } else { f64::INFINITY };
    let (symmetric, middle) = (r.word("symmetric") == "true", (qmax + 1.0) / 2.0);
    let empty = |dtype, shape| Array { dtype, shape, data: vec![] };
    let mut scales = empty(r.one_of("scale_dtype", &["float16", "float32"])?, grid);
    let (mut zeros, mut codes) = (empty("uint8", grid), empty("uint8", weight.shape));
    for w in weight.data.chunks(group) {
        let (low, high) = w.iter().fold((start, -start), |(low, high), w| (w.min(low), w.max(high)));
        let width = if symmetric { high.max(-low) } else { float32(high - low) };
        let delta = float32(width.max(float32(1e-5)) / if symmetric { middle - 1.0 } else { qmax });
        let scale = if scales.dtype == "float16" { from_half(to_half(delta)) } else { delta };
        let zero = if symmetric { middle } else { -float32(low / scale).round_ties_even() }.clamp(0.0, qmax);
        need(scale.is_finite(), "scales")?;
        scales.data.push(scale);
        zeros.data.push(zero);
        codes.data.extend(w.iter().map(|w| (float32(w / scale).round_ties_even() + zero).clamp(0.0, qmax)));
    }
    let outputs = [("scales", scales), ("zero_point", zeros), ("int_weight", codes)].into_iter();
    Ok(outputs.take(if r.word("op") == "choose_grid" { 2 } else { 3 }).collect())
}

// ---- L3 [AWQ-10]; d = max |x| / 127 of act_group_size neighbours, act_codes = rint(x / d) ----
fn round_activations<'a>(r: &Request<'a>) -> Answer<Outputs<'a>> {
    let (x, size) = (r.input("x", "float32", [0, 0])?, r.number("act_group_size"));
    need(size > 0 && x.shape[1] % size == 0, "act_group_size")?;
    let most = |g: usize| x.data[g * size..][..size].iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let d = array("float32", [x.shape[0], x.shape[1] / size], |g| float32(most(g) / 127.0));
    let code = |k: usize| float32(x.data[k] / d.data[k / size]).round_ties_even().clamp(-127.0, 127.0);
    let codes = array("int8", x.shape, |k| if d.data[k / size] > 0.0 { code(k) } else { 0.0 });
    Ok(vec![("act_codes", codes), ("act_scales", d)])
}
fn matmul<'a>(r: &Request<'a>, l: Linear) -> Answer<Outputs<'a>> {
    let ([o, i], int8, size) = (l.codes.shape, r.word("op") == "matmul_w4a8", r.number("act_group_size"));
    know(int8 || r.word("precision").starts_with("float"), "precision")?; // any: sums are f64
    let bias = if r.has("bias") { r.input("bias", "float32", [o, 1])?.data } else { vec![0.0; o] };
    let mut x = r.input("x", "float", [0, i])?;
    if int8 {
        let [(_, codes), (_, d)] = &round_activations(r)?[..] else { unreachable!() };
        need(l.group % size == 0, "act_group_size")?;
        x = array("float32", x.shape, |k| codes.data[k] * d.data[k / size]); // exact in f64
    }
    let dot = |k: usize| (0..i).map(|n| x.data[k / o * i + n] * weight(&l, k % o * i + n)).sum::<f64>();
    Ok(vec![("y", array("float32", [x.shape[0], o], |k| bias[k % o] + dot(k)))])
}

// ---- The loop ----
fn answer<'a>(r: &Request<'a>) -> Answer<Outputs<'a>> {
    match r.word("op") {
        "unpack" => unpack(linear(r)?),
        "pack" => pack(linear(r)?),
        "dequantize" | "dequantize_packed" => dequantize(r, linear(r)?),
        "choose_grid" | "quantize_linear" => quantize(r),
        "quantize_activations" => round_activations(r),
        "matmul" | "matmul_packed" | "matmul_w4a8" => matmul(r, linear(r)?),
        _ => Err(("unsupported", "op")),
    }
}
fn main() {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let r = Request(&line);
        let arrays = answer(&r).map(|outputs| outputs.iter().map(encoded).collect::<Vec<_>>().join(","));
        match arrays {
            _ if r.word("op") == "hello" => println!(r#"{{"status":"ok","protocol":1,"name":"Rust"}}"#),
            Ok(arrays) => println!(r#"{{"status":"ok","outputs":{{{arrays}}}}}"#),
            Err((status, what)) => println!(r#"{{"status":"{status}","message":"{what}"}}"#),
        }
    }
}
