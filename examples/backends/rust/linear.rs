//! A linear of the protocol in Rust, and level L0.
//!
//!     Sizes           sizes and widths that a request names
//!     Linear          codes, scales, zero points or offsets: plain arrays, or a layout's tensors
//!     pack, unpack    the two operations
use crate::layouts::{Plan, Trait};
use crate::protocol::{know, need, rounded, Answer, Array, Outputs, Request};

#[derive(Clone, Copy)]
pub struct Sizes {
    pub rows: usize,
    pub inputs: usize,
    pub groups: usize,
    pub group: usize,
    pub bits: usize,
    pub qmax: f64,
    pub symmetric: bool,
}

impl Sizes {
    pub fn new(request: &Request, rows: usize, inputs: usize) -> Answer<Sizes> {
        let (bits, group) = (request.number("bits")?, request.number("group_size")?);
        know([2, 3, 4, 8].contains(&bits), "bits")?;
        need(rows > 0 && inputs > 0 && (group > 0 || group == -1), "sizes")?;
        let group = if group == -1 { inputs } else { group as usize };
        let any_size = ["gptq", "gptq_v2"].contains(&request.word("layout"))
            || request.find("g_idx").or(request.find("weight_g_idx")).is_some();
        need(any_size || inputs % group == 0, "group_size")?;
        let (groups, qmax) = ((inputs + group - 1) / group, ((1 << bits) - 1) as f64);
        let (bits, symmetric) = (bits as usize, request.flag("symmetric"));
        Ok(Sizes { rows, inputs, groups, group, bits, qmax, symmetric })
    }

    pub fn middle(&self) -> f64 {
        (self.qmax + 1.0) / 2.0
    }
}

pub struct Linear {
    pub sizes: Sizes,
    pub codes: Array,
    pub scales: Array,
    pub zeros: Array, // offsets, if has_offset
    pub has_offset: bool,
    pub groups: Array, // the group of every input
    has_index: bool,
}

impl Linear {
    /// `index` is the input with the groups; without it neighbours share one.
    fn checked(request: &Request, sizes: Sizes, parts: [Array; 3], index: &str) -> Answer<Linear> {
        let [codes, scales, zeros] = parts;
        let has_offset = zeros.dtype != "uint8";
        need(codes.data.iter().all(|code| *code <= sizes.qmax), "int_weight")?;
        need(has_offset || zeros.data.iter().all(|zero| *zero <= sizes.qmax), "zero_point")?;
        let has_index = !index.is_empty() && request.find(index).is_some();
        let mut groups = Array::new("int32", &[sizes.inputs]);
        groups.data = (0..sizes.inputs).map(|i| (i / sizes.group) as f64).collect();
        if has_index {
            groups = request.array(index, "int32", &[Some(sizes.inputs)])?;
        }
        need(groups.data.iter().all(|group| (0.0..sizes.groups as f64).contains(group)), index)?;
        Ok(Linear { sizes, codes, scales, zeros, has_offset, groups, has_index })
    }

    pub fn plain(request: &Request) -> Answer<Linear> {
        let codes = request.array("int_weight", "uint8", &[None, None])?;
        let sizes = Sizes::new(request, codes.shape[0], codes.shape[1])?;
        let shape = [Some(sizes.rows), Some(sizes.groups)];
        let scales = request.array("scales", "float", &shape)?;
        let zeros = match request.find("offset") {
            Some(_) => request.array("offset", &scales.dtype, &shape)?,
            None => request.array("zero_point", "uint8", &shape)?,
        };
        Linear::checked(request, sizes, [codes, scales, zeros], "g_idx")
    }

    pub fn packed(request: &Request) -> Answer<Linear> {
        let plan = Plan::new(request)?;
        let Sizes { rows, inputs, groups, symmetric, .. } = plan.sizes;
        let codes = plan.load(plan.layout.codes, inputs, inputs)?;
        let scales = plan.load(plan.layout.scales, plan.padded, groups)?;
        let mut zeros = Array::new("uint8", &[rows, groups]);
        zeros.data.fill(plan.sizes.middle());
        if !(plan.is(Trait::Ragged) && symmetric) {
            zeros = plan.load(plan.layout.zeros, plan.padded, groups)?;
        }
        need(!plan.stores_offsets() || zeros.dtype == scales.dtype, "offsets")?;
        if plan.is(Trait::Ragged) {
            let shape = request.array("weight_shape", "int64", &[Some(2)])?;
            need(shape.data == [rows as f64, inputs as f64], "weight_shape")?;
        }
        Linear::checked(request, plan.sizes, [codes, scales, zeros], plan.layout.index)
    }

    /// Plain where no layout is named.
    pub fn of(request: &Request) -> Answer<Linear> {
        if request.find("layout").is_some() {
            Linear::packed(request)
        } else {
            Linear::plain(request)
        }
    }

    /// Where the scale and zero point of code k stand.
    pub fn group_of(&self, k: usize) -> usize {
        k / self.sizes.inputs * self.sizes.groups + self.groups.data[k % self.sizes.inputs] as usize
    }
}

pub fn unpack(request: &Request) -> Answer<Outputs> {
    let l = Linear::packed(request)?;
    let zeros = if l.has_offset { "offset" } else { "zero_point" };
    let mut outputs = vec![("int_weight", l.codes), ("scales", l.scales), (zeros, l.zeros)];
    if l.has_index {
        outputs.push(("g_idx", l.groups));
    }
    Ok(outputs)
}

pub fn pack(request: &Request) -> Answer<Outputs> {
    let (plan, mut l) = (Plan::new(request)?, Linear::plain(request)?);
    let Sizes { rows, inputs, symmetric, .. } = plan.sizes;
    need(l.codes.shape == [rows, inputs], "int_weight")?;
    know(plan.stores_offsets() || !l.has_offset, "offset")?;
    know(l.scales.dtype == "float16" || plan.is(Trait::Single), "scales")?;
    if plan.stores_offsets() && !l.has_offset {
        l.zeros.dtype = l.scales.dtype.clone();
        for (zero, scale) in l.zeros.data.iter_mut().zip(&l.scales.data) {
            *zero = rounded(-scale * *zero, &l.scales.dtype);
            need(zero.is_finite(), "a scale times a zero point that overflows")?;
        }
    }
    let mut outputs = vec![plan.store(plan.layout.codes, &l.codes, inputs)?];
    outputs.push(plan.store(plan.layout.scales, &l.scales, plan.padded)?);
    if !(plan.is(Trait::Ragged) && symmetric) {
        outputs.push(plan.store(plan.layout.zeros, &l.zeros, plan.padded)?);
    }
    if plan.is(Trait::Ragged) {
        let data = vec![rows as f64, inputs as f64];
        outputs.push(("weight_shape", Array { dtype: "int64".to_string(), shape: vec![2], data }));
    }
    if !plan.layout.index.is_empty() && l.has_index {
        outputs.push((plan.layout.index, l.groups));
    }
    Ok(outputs)
}
