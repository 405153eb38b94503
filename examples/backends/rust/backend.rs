//! A backend for the vectors of awq_ref, levels L0 to L3, in Rust without a crate. docs/conformance.md says
//! what is asked, docs/layouts.md where the bits lie (layouts.rs), docs/equations.md what [AWQ-n] is.
//! Every element is an f64: a code times a float32 is exact in it, and what is left to do is to round once.
mod layouts;
mod linear;
mod protocol;

use linear::{Linear, Sizes};
use protocol::{know, need, rint, rounded, serve, Answer, Array, Outputs, Refusal, Request};

fn float32(x: f64) -> f64 {
    x as f32 as f64
}

fn float_dtype<'a>(request: &'a Request, name: &str) -> Answer<&'a str> {
    know(["float16", "float32"].contains(&request.word(name)), name)?;
    Ok(request.word(name))
}

/// [AWQ-4]
fn dequantize(request: &Request) -> Answer<Outputs> {
    let mut weight = Array::new(float_dtype(request, "weight_dtype")?, &[]);
    let l = Linear::of(request)?;
    weight.shape = l.codes.shape.clone();
    let value = |(k, code): (usize, &f64)| {
        let (scale, zero) = (l.scales.data[l.group_of(k)], l.zeros.data[l.group_of(k)]);
        if l.has_offset {
            code * scale + zero
        } else {
            (code - zero) * scale
        }
    };
    weight.data = l.codes.data.iter().enumerate().map(value).collect();
    Ok(vec![("weight", weight)])
}

/// [AWQ-1], [AWQ-2]: scale and zero point of one group, each step rounded to float32.
fn grid_of(group: &[f64], sizes: &Sizes, from_zero: bool, dtype: &str) -> (f64, f64) {
    let (low, high) = if from_zero { (0.0, 0.0) } else { (f64::INFINITY, f64::NEG_INFINITY) };
    let low = group.iter().copied().fold(low, f64::min);
    let high = group.iter().copied().fold(high, f64::max);
    let (width, steps) = match sizes.symmetric {
        true => (high.max(-low), sizes.middle() - 1.0),
        false => (float32(high - low), sizes.qmax),
    };
    let scale = rounded(float32(width.max(float32(1e-5)) / steps), dtype);
    let zero = -rint(float32(low / scale));
    (scale, if sizes.symmetric { sizes.middle() } else { zero.clamp(0.0, sizes.qmax) })
}

/// A grid, codes on the grid that is given, or both.
fn quantize(request: &Request, choose: bool, round: bool) -> Answer<Outputs> {
    let mut weight = request.array("weight", "float32", &[None, None])?;
    let sizes = Sizes::new(request, weight.shape[0], weight.shape[1])?;
    let shape = [sizes.rows, sizes.groups];
    let from_zero = request.word("range_rule") == "zero";
    know(!choose || from_zero || request.word("range_rule") == "minmax", "range_rule")?;
    let (mut scales, mut zeros) = match choose {
        true => (Array::new(float_dtype(request, "scale_dtype")?, &shape), Array::new("uint8", &shape)),
        false => (
            request.array("scales", "float", &shape.map(Some))?,
            request.array("zero_point", "uint8", &shape.map(Some))?,
        ),
    };
    let clips =
        request.find("clip").map(|_| request.any_array("clip", "float32", &shape.map(Some))).transpose()?;
    let mut codes = Array::new("uint8", &weight.shape);
    for g in 0..sizes.rows * sizes.groups {
        let (row, first) = (g / sizes.groups * sizes.inputs, g % sizes.groups * sizes.group);
        let (start, end) = (row + first, row + (first + sizes.group).min(sizes.inputs));
        let group = &mut weight.data[start..end];
        if let Some(clip) = clips.as_ref().map(|clips| clips.data[g]) {
            need(clip >= 0.0, "clip")?;
            group.iter_mut().for_each(|w| *w = w.clamp(-clip, clip));
        }
        if choose {
            (scales.data[g], zeros.data[g]) = grid_of(group, &sizes, from_zero, &scales.dtype);
        }
        let (scale, zero) = (scales.data[g], zeros.data[g]);
        need(scale > 0.0 && scale.is_finite() && zero <= sizes.qmax, "a grid that is none")?;
        for (code, w) in codes.data[start..end].iter_mut().zip(group) {
            *code = (rint(float32(*w / scale)) + zero).clamp(0.0, sizes.qmax); // [AWQ-3]
        }
    }
    let mut outputs = if choose { vec![("scales", scales), ("zero_point", zeros)] } else { vec![] };
    if round {
        outputs.push(("int_weight", codes));
    }
    Ok(outputs)
}

/// Codes rint(x / d), and d = max |x| / 127 of `size` neighbours.
fn round_activations(x: &Array, size: i64) -> Answer<[Array; 2]> {
    need(size > 0 && x.shape[1] % size as usize == 0, "act_group_size")?;
    let size = size as usize;
    let mut codes = Array::new("int8", &x.shape);
    let mut scales = Array::new("float32", &[x.shape[0], x.shape[1] / size]);
    for (g, group) in x.data.chunks(size).enumerate() {
        let d = float32(group.iter().fold(0.0, |most: f64, value| most.max(value.abs())) / 127.0);
        scales.data[g] = d;
        for (i, value) in group.iter().enumerate().filter(|_| d > 0.0) {
            // more than 127 only where d is subnormal
            codes.data[g * size + i] = rint(float32(value / d)).clamp(-127.0, 127.0);
        }
    }
    Ok([codes, scales])
}

/// [AWQ-10] y = bias + sum over groups of s (sum of (q - z) x), or of s (sum of q x) + offset (sum of x).
/// With int8 activations x is d times a code and the inner sum an integer, in f64 as exact as in i32.
fn matmul(request: &Request, int8: bool) -> Answer<Outputs> {
    let known = ["float32", "float16_weights", "float16"].contains(&request.word("precision"));
    know(int8 || known, "precision")?;
    let l = Linear::of(request)?;
    let inputs = l.sizes.inputs;
    let mut x = request.array("x", "float", &[None, Some(inputs)])?;
    let (mut run, mut act_scales) = (1, None);
    if int8 {
        run = request.number("act_group_size")? as usize;
        let [codes, scales] = round_activations(&x, run as i64)?;
        (x, act_scales) = (codes, Some(scales.data));
        need(l.sizes.group % run == 0, "act_group_size")?;
    }
    let mut y = Array::new("float32", &[x.shape[0], l.sizes.rows]);
    if request.find("bias").is_some() {
        y.data = request.array("bias", "float32", &[Some(l.sizes.rows)])?.data.repeat(x.shape[0]);
    }
    for (k, sum) in y.data.iter_mut().enumerate() {
        let (t, o) = (k / l.sizes.rows, k % l.sizes.rows);
        for start in (0..inputs).step_by(run) {
            let g = l.group_of(o * inputs + start);
            let (zero, offset) = if l.has_offset { (0.0, l.zeros.data[g]) } else { (l.zeros.data[g], 0.0) };
            let (mut coded, mut plain) = (0.0, 0.0);
            for i in start..start + run {
                coded += (l.codes.data[o * inputs + i] - zero) * x.data[t * inputs + i];
                plain += x.data[t * inputs + i];
            }
            let d = act_scales.as_ref().map_or(1.0, |scales| scales[(t * inputs + start) / run]);
            *sum += (l.scales.data[g] * coded + offset * plain) * d;
        }
    }
    Ok(vec![("y", y)])
}

fn quantize_activations(request: &Request) -> Answer<Outputs> {
    let x = request.array("x", "float32", &[None, None])?;
    let [codes, scales] = round_activations(&x, request.number("act_group_size")?)?;
    Ok(vec![("act_codes", codes), ("act_scales", scales)])
}

fn main() {
    serve("awq_ref example, Rust", |request| match request.word("op") {
        "pack" => linear::pack(request),
        "unpack" => linear::unpack(request),
        "dequantize" | "dequantize_packed" => dequantize(request),
        "choose_grid" => quantize(request, true, false),
        "quantize" => quantize(request, false, true),
        "quantize_linear" => quantize(request, true, true),
        "matmul" | "matmul_packed" => matmul(request, false),
        "matmul_w4a8" => matmul(request, true),
        "quantize_activations" => quantize_activations(request),
        other => Err(Refusal("unsupported", other.to_string())),
    });
}
