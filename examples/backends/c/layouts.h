/* Level L0 in C99: the layouts of docs/layouts.md, as a table and one function for packing and unpacking.

     read_layout    the layout and the sizes that the request names
     read_linear    its linear, from plain arrays or from the layout's tensors
     pack, unpack   the two operations */
#include "protocol.h"

enum { FLOATS, ROWS, COLUMNS, GEMM, FAST }; /* the order of a stored tensor: see place() */
/* 4 bits alone; padded groups; zero points less 1; part-full words, no symmetric zero points; float32 too */
enum { AWQ = 1, PADDED = 2, LESS_ONE = 4, RAGGED = 8, FLOAT32_TOO = 16 };
typedef struct {
    const char *name;
    int order, transposed; /* transposed: out_features are the columns */
} Field;
typedef struct {
    const char *name, *index;
    int is;
    Field codes, zeros, scales;
} Layout;

static const Layout LAYOUTS[] = {
    {"gemm", "", AWQ, {"qweight", GEMM, 1}, {"qzeros", GEMM, 1}, {"scales", FLOATS, 1}},
    {"gemv", "", AWQ | PADDED, {"qweight", ROWS, 0}, {"qzeros", ROWS, 0}, {"scales", FLOATS, 0}},
    {"gemv_fast", "", AWQ | PADDED, {"qweight", FAST, 0}, {"qzeros", FLOATS, 1}, {"scales", FLOATS, 1}},
    {"llm-awq", "", AWQ | PADDED, {"qweight", FAST, 0}, {"scaled_zeros", FLOATS, 1}, {"scales", FLOATS, 1}},
    {"gptq", "g_idx", LESS_ONE, {"qweight", COLUMNS, 1}, {"qzeros", ROWS, 1}, {"scales", FLOATS, 1}},
    {"gptq_v2", "g_idx", 0, {"qweight", COLUMNS, 1}, {"qzeros", ROWS, 1}, {"scales", FLOATS, 1}},
    {"pack-quantized", "weight_g_idx", RAGGED | FLOAT32_TOO, {"weight_packed", ROWS, 0},
     {"weight_zero_point", COLUMNS, 0}, {"weight_scale", FLOATS, 0}},
    {"mlx", "", FLOAT32_TOO, {"weight", ROWS, 0}, {"biases", FLOATS, 0}, {"scales", FLOATS, 0}},
};

static const Layout *layout; /* from here on: the linear that the request is about */
static long O, I, G, group, padded;
static int bits, qmax, has_offset;
static Array codes, scales; /* (O, I), (O, G) */
static Array zeros, groups; /* (O, G): zero points or offsets; (I): the group of each input */

static void read_sizes(long rows, long columns) {
    O = rows, I = columns, group = number("group_size"), bits = (int)number("bits");
    know(bits == 2 || bits == 3 || bits == 4 || bits == 8, "bits");
    need(O > 0 && I > 0 && (group > 0 || group == -1), "sizes");
    qmax = (1 << bits) - 1, group = group == -1 ? I : group, G = padded = (I + group - 1) / group;
    int has_index = find("g_idx", "") || find("weight_g_idx", "");
    int any_size = has_index || says("layout", "gptq") || says("layout", "gptq_v2");
    need(any_size || I % group == 0, "group_size");
}

static void read_layout(void) {
    size_t k = 0, n = sizeof LAYOUTS / sizeof *LAYOUTS;
    while (k < n && !says("layout", LAYOUTS[k].name)) k++;
    know(k < n, "layout");
    layout = &LAYOUTS[k];
    read_sizes(number("out_features"), number("in_features"));
    long block = group >= 128 ? 8 : group == 64 ? 16 : group == 32 ? 32 : 0;
    know((bits == 4 || !(layout->is & AWQ)) && (block || !(layout->is & PADDED)), "bits, group_size");
    know(!says("layout", "mlx") || group == 32 || group == 64 || group == 128, "group_size");
    know(layout->codes.order != FAST || (O % 8 == 0 && I % 64 == 0), "sizes");
    if (layout->is & PADDED) padded = (G + block - 1) / block * block;
}

static int leaves_zeros_out(void) { return layout->is & RAGGED && find("symmetric", "true"); }

/* Where bit t of the field (row, column) lies in a tensor of `width` words a row, from its first bit. */
static long place(int order, long width, long row, long column, int t) {
    long p = row * bits + t, c = column;
    if (order == COLUMNS) return 32 * (p / 32 * width + c) + p % 32;
    if (order == ROWS) return 32 * row * width + c * bits + t;
    if (order == GEMM) return 32 * (row * width + c / 8) + 4 * (c % 8 / 2 + 4 * (c % 2)) + t;
    long word = row / 4 * width + 64 * (c / 64) + 16 * (row % 4) + 8 * (c % 64 / 32) + c % 8;
    return 16 * word + 4 * (c % 32 / 8) + t;
}

/* Packs `plain`, an element a field, into its stored tensor and puts that out, or unpacks the request's.
   gptq stores z - 1: one less in all fields of a word at once; at 3 bits in each field, modulo 8. */
static void move(Field f, Array plain, long columns, int pack) {
    long rows = f.transposed ? columns : O, width = f.transposed ? O : columns;
    long *axis = f.order == COLUMNS ? &rows : &width, word_bits = f.order == FAST ? 16 : 32;
    int whole = f.order == FLOATS || f.order == FAST;
    know(whole || *axis * bits % 32 == 0 || layout->is & RAGGED, "a word that is part full");
    if (!whole) *axis = (*axis * bits + 31) / 32;
    if (f.order == FAST) rows /= 4;
    const char *word = f.order == FAST ? "int16" : says("layout", "mlx") ? "uint32" : "int32";
    const char *dtype = f.order == FLOATS ? plain.dtype : word;
    Array words = pack ? array(dtype, rows, width) : input(f.name, dtype, rows, width);
    int less_one = layout->is & LESS_ONE && plain.v == zeros.v, modulo = less_one && bits == 3;
    double ones = less_one && !modulo ? UINT32_MAX / (uint32_t)qmax : 0;
    for (long k = 0; k < count(words); k++) words.v[k] += pack ? -ones : ones;
    for (long k = 0; k < count(plain); k++) {
        long o = k / plain.columns, i = k % plain.columns;
        long row = f.transposed ? i : o, column = f.transposed ? o : i;
        double *from = pack ? &plain.v[k] : &words.v[row * width + column];
        double *to = pack ? &words.v[row * width + column] : &plain.v[k];
        if (f.order == FLOATS) *to = *from;
        int code = pack && f.order != FLOATS ? ((int)*from - modulo) & qmax : 0;
        for (int t = 0; f.order != FLOATS && t < bits; t++) {
            long at = place(f.order, width, row, column, t);
            double *one = &words.v[at / word_bits];
            if (pack) *one += ldexp(code >> t & 1, (int)(at % word_bits));
            else code |= (int)((int64_t)*one >> at % word_bits & 1) << t;
        }
        if (f.order != FLOATS && !pack) *to = (code + modulo) & qmax;
    }
    if (pack) output(f.name, words);
}

/* The linear of the request: from its plain arrays, or, if packed, from the tensors of its layout. */
static void read_linear(int packed) {
    const char *index = packed ? layout->index : "g_idx";
    if (!packed) codes = input("int_weight", "uint8", -1, -1);
    if (!layout) read_sizes(codes.rows, codes.columns);
    has_offset = packed ? layout->zeros.order == FLOATS : find("offset", "") != NULL;
    if (packed) {
        codes = array("uint8", O, I);
        int single = layout->is & FLOAT32_TOO && find(layout->scales.name, "{\"dtype\":\"float32");
        scales = array(single ? "float32" : "float16", O, G);
        zeros = array(has_offset ? scales.dtype : "uint8", O, G);
        move(layout->codes, codes, I, 0), move(layout->scales, scales, padded, 0);
        if (!leaves_zeros_out()) move(layout->zeros, zeros, padded, 0);
        for (long k = 0; leaves_zeros_out() && k < O * G; k++) zeros.v[k] = (qmax + 1) / 2;
        Array shape = layout->is & RAGGED ? input("weight_shape", "int64", 2, 0) : array("int64", 2, 0);
        need(!(layout->is & RAGGED) || (shape.v[0] == O && shape.v[1] == I), "weight_shape");
    } else {
        need(codes.rows == O && codes.columns == I, "int_weight");
        scales = input("scales", "float", O, G);
        zeros = has_offset ? input("offset", scales.dtype, O, G) : input("zero_point", "uint8", O, G);
    }
    int given = *index && find(index, "") != NULL;
    groups = given ? input(index, "int32", I, 0) : array("int32", I, 0);
    for (long i = 0; i < I; i++) {
        if (!given) groups.v[i] = (double)(i / group);
        need(groups.v[i] >= 0 && groups.v[i] < G, "g_idx");
    }
    for (long k = 0; k < O * I; k++) need(codes.v[k] <= qmax, "int_weight");
    for (long k = 0; k < O * G; k++) need(has_offset || zeros.v[k] <= qmax, "zero_point");
}

static void pack(void) {
    read_layout();
    read_linear(0);
    know(!has_offset || layout->zeros.order == FLOATS, "offset");
    know(!strcmp(scales.dtype, "float16") || layout->is & FLOAT32_TOO, "float32");
    if (layout->zeros.order == FLOATS && !has_offset) { /* -s z, rounded once */
        Array product = array(scales.dtype, O, G);
        for (long k = 0; k < O * G; k++) {
            product.v[k] = rounded(-scales.v[k] * zeros.v[k], scales.dtype);
            need(isfinite(product.v[k]), "a scale times a zero point that overflows");
        }
        zeros = product;
    }
    move(layout->codes, codes, I, 1), move(layout->scales, scales, padded, 1);
    if (!leaves_zeros_out()) move(layout->zeros, zeros, padded, 1);
    if (layout->is & RAGGED) {
        Array shape = array("int64", 2, 0);
        shape.v[0] = (double)O, shape.v[1] = (double)I;
        output("weight_shape", shape);
    }
    if (*layout->index && find("g_idx", "")) output(layout->index, groups);
}

static void unpack(void) {
    output("int_weight", codes), output("scales", scales);
    output(has_offset ? "offset" : "zero_point", zeros);
    if (*layout->index && find(layout->index, "")) output("g_idx", groups);
}
