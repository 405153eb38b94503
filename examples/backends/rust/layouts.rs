//! The layouts of docs/layouts.md in Rust, as a table and one pair of functions.
//!
//!     Plan           the layout that a request names, for its sizes
//!     store, load    a plain array -> a stored tensor, and back
use crate::linear::Sizes;
use crate::protocol::{know, need, Answer, Array, Refusal, Request};

#[derive(Clone, Copy, PartialEq)]
pub enum Order {
    Floats,
    Rows,
    Columns,
    Gemm,
    Fast,
}
use Order::*;

/// 4 bits alone; padded groups; zero points less 1; part-full words, no symmetric zeros; float32; uint32.
#[derive(Clone, Copy, PartialEq)]
pub enum Trait {
    Awq,
    Padded,
    LessOne,
    Ragged,
    Single,
    Unsigned,
}
use Trait::*;

/// A field of a layout: its tensor, the order of that, and whether out_features are its columns.
pub type Field = (&'static str, Order, bool);

#[derive(Clone, Copy)]
pub struct Layout {
    pub codes: Field,
    pub zeros: Field,
    pub scales: Field,
    pub index: &'static str,
    is: &'static [Trait],
}

const fn row(codes: Field, zeros: Field, scales: Field, index: &'static str, is: &'static [Trait]) -> Layout {
    Layout { codes, zeros, scales, index, is }
}

const GEMM: (Field, Field) = (("qweight", Gemm, true), ("qzeros", Gemm, true));
const GEMV: (Field, Field) = (("qweight", Rows, false), ("qzeros", Rows, false));
const FAST: Field = ("qweight", Fast, false);
const GPTQ: (Field, Field) = (("qweight", Columns, true), ("qzeros", Rows, true));
const PACKED: (Field, Field) = (("weight_packed", Rows, false), ("weight_zero_point", Columns, false));
const MLX: (Field, Field) = (("weight", Rows, false), ("biases", Floats, false));
const BY_GROUP: Field = ("scales", Floats, true);
const BY_ROW: Field = ("scales", Floats, false);
const LAYOUTS: [(&str, Layout); 8] = [
    ("gemm", row(GEMM.0, GEMM.1, BY_GROUP, "", &[Awq])),
    ("gemv", row(GEMV.0, GEMV.1, BY_ROW, "", &[Awq, Padded])),
    ("gemv_fast", row(FAST, ("qzeros", Floats, true), BY_GROUP, "", &[Awq, Padded])),
    ("llm-awq", row(FAST, ("scaled_zeros", Floats, true), BY_GROUP, "", &[Awq, Padded])),
    ("gptq", row(GPTQ.0, GPTQ.1, BY_GROUP, "g_idx", &[LessOne])),
    ("gptq_v2", row(GPTQ.0, GPTQ.1, BY_GROUP, "g_idx", &[])),
    (
        "pack-quantized",
        row(PACKED.0, PACKED.1, ("weight_scale", Floats, false), "weight_g_idx", &[Ragged, Single]),
    ),
    ("mlx", row(MLX.0, MLX.1, BY_ROW, "", &[Single, Unsigned])),
];

/// A layout, applied.
pub struct Plan<'a> {
    pub request: &'a Request,
    pub layout: Layout,
    pub sizes: Sizes,
    pub padded: usize,
}

impl Plan<'_> {
    pub fn new(request: &Request) -> Answer<Plan<'_>> {
        let found = LAYOUTS.iter().find(|(name, _)| *name == request.word("layout"));
        let layout = found.ok_or(Refusal("unsupported", "layout".to_string()))?.1;
        let [rows, inputs] = [request.number("out_features")?, request.number("in_features")?];
        let sizes = Sizes::new(request, rows.max(0) as usize, inputs.max(0) as usize)?;
        know(layout.codes.0 != "weight" || [32, 64, 128].contains(&sizes.group), "group_size")?;
        know(sizes.bits == 4 || !layout.is.contains(&Awq), "bits")?;
        know(layout.codes.1 != Fast || (sizes.rows % 8 == 0 && sizes.inputs % 64 == 0), "sizes")?;
        let block = match sizes.group {
            _ if !layout.is.contains(&Padded) => 1,
            128.. => 8,
            64 => 16,
            32 => 32,
            _ => return Err(Refusal("unsupported", "group_size".to_string())),
        };
        Ok(Plan { request, layout, sizes, padded: (sizes.groups + block - 1) / block * block })
    }

    pub fn is(&self, what: Trait) -> bool {
        self.layout.is.contains(&what)
    }

    pub fn stores_offsets(&self) -> bool {
        self.layout.zeros.1 == Floats
    }

    /// Where bit t of the field (row, column) lies in a tensor of `width` words a row: word, bit in it.
    fn place(&self, order: Order, row: usize, column: usize, t: usize, width: usize) -> (usize, usize) {
        let (across, down, c) = (column * self.sizes.bits + t, row * self.sizes.bits + t, column);
        match order {
            Columns => (down / 32 * width + c, down % 32),
            Gemm => (row * width + c / 8, 4 * (c % 8 / 2 + 4 * (c % 2)) + t),
            Fast => {
                (row / 4 * width + c / 64 * 64 + row % 4 * 16 + c % 64 / 32 * 8 + c % 8, c % 32 / 8 * 4 + t)
            }
            _ => (row * width + across / 32, across % 32),
        }
    }

    /// Shape and dtype of a stored tensor; `columns` are inputs or groups.
    fn stored(&self, (_, order, transposed): Field, columns: usize) -> Answer<([usize; 2], &'static str)> {
        let [rows, width] = if transposed { [columns, self.sizes.rows] } else { [self.sizes.rows, columns] };
        let words = |fields: usize| {
            let bits = fields * self.sizes.bits;
            know(bits % 32 == 0 || self.is(Ragged), "a word that is part full")?;
            Ok((bits + 31) / 32)
        };
        let dtype = if self.is(Unsigned) { "uint32" } else { "int32" };
        Ok(match order {
            Floats => ([rows, width], "float"),
            Fast => ([rows / 4, width], "int16"),
            Columns => ([words(rows)?, width], dtype),
            _ => ([rows, words(width)?], dtype),
        })
    }

    /// gptq stores z - 1: one less in all fields of a word at once (the first); at 3 bits in each, modulo 8.
    fn less_one(&self, field: Field) -> (i64, i64) {
        match self.is(LessOne) && field == self.layout.zeros {
            true if self.sizes.bits == 3 => (0, 1),
            true => (u32::MAX as i64 / self.sizes.qmax as i64, 0),
            false => (0, 0),
        }
    }

    pub fn store(&self, field: Field, plain: &Array, columns: usize) -> Answer<(&'static str, Array)> {
        let (name, order, transposed) = field;
        let (shape, dtype) = self.stored(field, columns)?;
        let (ones, modulo) = self.less_one(field);
        let mut words = Array::new(if order == Floats { &plain.dtype } else { dtype }, &shape);
        words.data.fill(-ones as f64);
        for (k, value) in plain.data.iter().enumerate() {
            let (o, i) = (k / plain.shape[1], k % plain.shape[1]);
            let (row, column) = if transposed { (i, o) } else { (o, i) };
            if order == Floats {
                words.data[row * shape[1] + column] = *value;
                continue;
            }
            for t in 0..self.sizes.bits {
                let (word, bit) = self.place(order, row, column, t, shape[1]);
                words.data[word] += (((*value as i64 - modulo) >> t & 1) << bit) as f64;
            }
        }
        Ok((name, words))
    }

    pub fn load(&self, field: Field, columns: usize, plain_columns: usize) -> Answer<Array> {
        let (name, order, transposed) = field;
        let (shape, dtype) = self.stored(field, columns)?;
        let (ones, modulo) = self.less_one(field);
        let words = self.request.array(name, dtype, &shape.map(Some))?;
        need(order != Floats || words.dtype == "float16" || self.is(Single), name)?;
        let kind = if order == Floats { &words.dtype } else { "uint8" };
        let mut plain = Array::new(kind, &[self.sizes.rows, plain_columns]);
        for (k, value) in plain.data.iter_mut().enumerate() {
            let (o, i) = (k / plain_columns, k % plain_columns);
            let (row, column) = if transposed { (i, o) } else { (o, i) };
            if order == Floats {
                *value = words.data[row * shape[1] + column];
                continue;
            }
            let mut code = 0;
            for t in 0..self.sizes.bits {
                let (word, bit) = self.place(order, row, column, t, shape[1]);
                code |= ((words.data[word] as i64 + ones) >> bit & 1) << t;
            }
            *value = ((code + modulo) & self.sizes.qmax as i64) as f64;
        }
        Ok(plain)
    }
}
