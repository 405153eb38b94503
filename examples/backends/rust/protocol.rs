//! The protocol of docs/conformance.md in Rust: requests, arrays, answers. It knows nothing about
//! quantization: copy it into a backend of your own.
//!
//!     serve            the loop over standard input; the callback turns a request into outputs
//!     Request          what the request says: word, number, flag, array
//!     Array            dtype, shape, and the elements as f64, whatever the dtype
//!     need, know       Err: answer "invalid" or "unsupported"
//!     rint, rounded    to an integer; to float32 or float16: once, to the nearest, ties to even
use std::io::{self, BufRead, Write};

/// The status of the answer, and why.
pub struct Refusal(pub &'static str, pub String);

pub type Answer<T> = Result<T, Refusal>;
pub type Outputs = Vec<(&'static str, Array)>;

pub fn need(holds: bool, what: &str) -> Answer<()> {
    if holds {
        Ok(())
    } else {
        Err(Refusal("invalid", what.to_string()))
    }
}

pub fn know(known: bool, what: &str) -> Answer<()> {
    if known {
        Ok(())
    } else {
        Err(Refusal("unsupported", what.to_string()))
    }
}

#[derive(Clone)]
pub struct Array {
    pub dtype: String,
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    pub fn new(dtype: &str, shape: &[usize]) -> Array {
        Array { dtype: dtype.to_string(), shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }
}

/// 1.5 * 2^52 leaves no bit for a fraction.
pub fn rint(x: f64) -> f64 {
    const MAGIC: f64 = 6755399441055744.0;
    if x.abs() < 2f64.powi(51) {
        x + MAGIC - MAGIC
    } else {
        x
    }
}

pub fn rounded(x: f64, dtype: &str) -> f64 {
    if dtype == "float16" {
        from_half(to_half(x))
    } else {
        x as f32 as f64
    }
}

/// The mantissa is rounded as an integer; a carry goes into the exponent.
fn to_half(x: f64) -> u16 {
    let sign = if x < 0.0 { 0x8000 } else { 0 };
    if x.abs() >= 65520.0 {
        return sign | 0x7C00;
    }
    let exponent = ((x.abs().to_bits() >> 52) as i32 - 1023).max(-14);
    sign | ((exponent + 14) * 1024 + rint(x.abs() * 2f64.powi(10 - exponent)) as i32) as u16
}

fn from_half(bits: u16) -> f64 {
    let (exponent, mantissa) = ((bits >> 10 & 31) as i32, (bits & 1023) as f64);
    let size = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 => f64::INFINITY, // NaN is refused as an infinity is
        _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 {
        -size
    } else {
        size
    }
}

/// Bytes of an element; None for what levels L0 to L3 do not ask.
fn size_of(dtype: &str) -> Option<usize> {
    match dtype {
        "uint8" | "int8" => Some(1),
        "int16" | "float16" => Some(2),
        "int32" | "uint32" | "float32" => Some(4),
        "int64" => Some(8),
        _ => None,
    }
}

fn decode(bytes: &[u8], dtype: &str) -> f64 {
    let raw = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | byte as u64);
    let above = 64 - 8 * bytes.len();
    match dtype {
        "float16" => from_half(raw as u16),
        "float32" => f32::from_bits(raw as u32) as f64,
        _ if dtype.starts_with('u') => raw as f64,
        _ => ((raw << above) as i64 >> above) as f64,
    }
}

fn encode(x: f64, dtype: &str) -> u64 {
    match dtype {
        "float16" => to_half(x) as u64,
        "float32" => (x as f32).to_bits() as u64,
        _ => x as i64 as u64, // the low bytes are two's complement
    }
}

pub struct Request(String);

impl Request {
    /// What follows "name": in the request. No spaces, no string that holds a quote or a backslash, and of
    /// the keys of levels L0 to L3 only those of arrays come twice: a search does for a parser.
    pub fn find(&self, name: &str) -> Option<&str> {
        let key = format!("\"{name}\":");
        self.0.find(&key).map(|at| &self.0[at + key.len()..])
    }

    pub fn word(&self, name: &str) -> &str {
        self.find(name)
            .and_then(|text| text.strip_prefix('"'))
            .and_then(|text| text.split('"').next())
            .unwrap_or("")
    }

    pub fn number(&self, name: &str) -> Answer<i64> {
        let digits = self.find(name).and_then(|text| text.split([',', '}']).next());
        digits.and_then(|text| text.parse().ok()).ok_or(Refusal("invalid", name.to_string()))
    }

    pub fn flag(&self, name: &str) -> bool {
        self.find(name).map_or(false, |text| text.starts_with("true"))
    }

    pub fn dtype(&self, name: &str) -> &str {
        let text = self.find(name).and_then(|text| text.strip_prefix("{\"dtype\":\""));
        text.and_then(|text| text.split('"').next()).unwrap_or("")
    }

    /// An input: None in `shape` is any size, "float" is float16 or float32. No NaN, no infinity.
    pub fn array(&self, name: &str, dtype: &str, shape: &[Option<usize>]) -> Answer<Array> {
        let array = self.any_array(name, dtype, shape)?;
        need(array.data.iter().all(|value| value.is_finite()), name)?;
        Ok(array)
    }

    pub fn any_array(&self, name: &str, dtype: &str, shape: &[Option<usize>]) -> Answer<Array> {
        let kind = self.dtype(name);
        let size =
            size_of(kind).filter(|_| kind.starts_with(dtype)).ok_or(Refusal("invalid", name.to_string()))?;
        let rest = self.find(name).and_then(|text| text.split_once("\"shape\":["));
        let (axes, rest) = rest.and_then(|(_, rest)| rest.split_once("],\"data\":\"")).unwrap_or(("", ""));
        let given: Vec<usize> = axes.split(',').filter_map(|axis| axis.parse().ok()).collect();
        need(given.len() == shape.len(), name)?;
        need(shape.iter().zip(&given).all(|(asked, n)| asked.map_or(true, |asked| asked == *n)), name)?;
        let hex = rest.split('"').next().unwrap_or("").as_bytes();
        need(hex.len() == 2 * size * given.iter().product::<usize>(), name)?;
        let digit = |c: u8| (c & 15) + (c >> 6) * 9;
        let bytes: Vec<u8> = hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
        let data = bytes.chunks(size).map(|element| decode(element, kind)).collect();
        Ok(Array { dtype: kind.to_string(), shape: given, data })
    }
}

fn text_of((name, array): &(&str, Array)) -> String {
    let Array { dtype, shape, data } = array;
    let size = size_of(dtype).unwrap_or(1);
    let hex =
        |x: &f64| encode(*x, dtype).to_le_bytes()[..size].iter().map(|byte| format!("{byte:02x}")).collect();
    let digits: Vec<String> = data.iter().map(hex).collect();
    format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data\":\"{}\"}}", digits.concat())
}

pub fn serve(name: &str, answer: impl Fn(&Request) -> Answer<Outputs>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let request = Request(line);
        let text = match request.word("op") {
            "hello" => format!("{{\"status\":\"ok\",\"protocol\":1,\"name\":\"{name}\",\"version\":\"1\"}}"),
            _ => match answer(&request) {
                Ok(outputs) => {
                    let arrays: Vec<String> = outputs.iter().map(text_of).collect();
                    format!("{{\"status\":\"ok\",\"outputs\":{{{}}}}}", arrays.join(","))
                }
                Err(Refusal(status, what)) => format!("{{\"status\":\"{status}\",\"message\":\"{what}\"}}"),
            },
        };
        println!("{text}");
        io::stdout().flush().expect("standard output is closed");
    }
}
