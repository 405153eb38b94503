/* A backend for the vectors of awq_ref in one file of C99: levels L0 to L3, layout gemm, little-endian.
   docs/conformance.md says what is asked, docs/layouts.md where bits lie, docs/equations.md what [AWQ-n] is.
   For a kernel of your own keep what stands above L0, and call it in unpack_gemm() or matmul(). */
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

/* ---- The request: a line of JSON without spaces and escapes, so that a search does for a parser ---- */
static char request[(1 << 24) + 2]; /* lines of L6 have 16 MiB */
static jmp_buf next_request;
static void check(int holds, const char *status, const char *what) {
    if (!holds) printf("{\"status\":\"%s\",\"message\":\"%s\"}\n", status, what), longjmp(next_request, 1);
}
static void need(int holds, const char *what) { check(holds, "invalid", what); }
static void know(int known, const char *what) { check(known, "unsupported", what); }
static const char *find(const char *name) { /* what follows "name": or an empty string */
    char key[64];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *at = strstr(request, key);
    return at ? at + strlen(key) : "";
}
static int says(const char *name, const char *json) { return !strncmp(find(name), json, strlen(json)); }
static long number(const char *name) { return strtol(find(name), NULL, 10); }

/* ---- Arrays: doubles, in which a code times a float32 is exact; rounded once, ties to even ---- */
enum { MAX = 1 << 21 }; /* elements: more do not fit into a line of 4 MiB */
typedef union { uint32_t raw; float single; } Element;
static long rows, columns, n_outputs, op; /* of the last input; of the answer; its row in OPS */
static int digits_of(const char *dtype) { return atoi(dtype + strcspn(dtype, "1368")) / 4; }
static double from_half(uint32_t raw) { /* NaN is refused as infinity is */
    int exponent = raw >> 10 & 31, mantissa = (raw & 1023) + (exponent ? 1024 : 0);
    return (raw >> 15 ? -1 : 1) * (exponent < 31 ? ldexp(mantissa, exponent - 24 - !!exponent) : INFINITY);
}
static uint32_t to_half(double v) { /* the mantissa as an integer: its carry goes into the exponent */
    int exponent = fabs(v) < 0x1p-14 ? -14 : ilogb(v);
    int raw = fabs(v) < 65520 ? (exponent + 14) * 1024 + (int)rint(ldexp(fabs(v), 10 - exponent)) : 0x7C00;
    return (uint32_t)(v < 0 ? raw | 0x8000 : raw);
}
/* An input, finite: r rows, c columns, where 0 is any number. "float" is float16 or float32. */
static void input(const char *name, const char *dtype, long r, long c, double *v) {
    char kind[8];
    const char *at = find(name);
    columns = 1;
    need(sscanf(at, "{\"dtype\":\"%7[a-z0-9]\",\"shape\":[%ld,%ld", kind, &rows, &columns) >= 2, name);
    need(!strncmp(kind, dtype, strlen(dtype)) && (!r || rows == r) && (!c || columns == c), name);
    int digits = digits_of(kind);
    at = strstr(at, "\"data\":\"") + strlen("\"data\":\"");
    need((long)strcspn(at, "\"") == digits * rows * columns && rows * columns <= MAX, name);
    for (long k = 0; k < rows * columns; k++, at += digits) {
        Element e = {0}; /* bytes from the lowest, two digits each: digit j has the place j ^ 1 */
        for (int j = 0; j < digits; j++) e.raw |= (uint32_t)((at[j] & 15) + (at[j] >> 6) * 9) << 4 * (j ^ 1);
        v[k] = *kind != 'f' ? e.raw : digits == 4 ? from_half(e.raw) : e.single;
        need(isfinite(v[k]), name);
    }
}
static void output(const char *name, const char *dtype, long r, long c, const double *v) {
    printf(n_outputs++ ? "," : "{\"status\":\"ok\",\"outputs\":{"); /* after this nothing may be refused */
    printf("\"%s\":{\"dtype\":\"%s\",\"shape\":[%ld,%ld],\"data\":\"", name, dtype, r, c);
    for (long k = 0, digits = digits_of(dtype); k < r * c; k++) {
        Element e = {.single = (float)v[k]};
        if (*dtype != 'f' || digits == 4) e.raw = *dtype == 'f' ? to_half(v[k]) : (uint32_t)(int64_t)v[k];
        for (int j = 0; j < digits; j++) putchar("0123456789abcdef"[e.raw >> 4 * (j ^ 1) & 15]);
    }
    printf("\"}");
}

/* ---- L0, layout gemm. Codes are (O, I), scales and zero points (O, G) ---- */
static long O, I, G, group, qmax, run; /* outputs, inputs, groups of a row; inputs of a group of w, of x */
static double codes[MAX], scales[MAX], zeros[MAX], x[MAX], y[MAX], words[MAX + 3], bias[MAX];
static void unpack_16_bytes(const uint32_t words[4], uint8_t nibbles[32]) { /* one AND, one shift */
#ifdef __SSE2__
    const __m128i both = _mm_loadu_si128((const __m128i *)words), mask = _mm_set1_epi8(15);
    const __m128i low = _mm_and_si128(both, mask), high = _mm_and_si128(_mm_srli_epi16(both, 4), mask);
    _mm_storeu_si128((__m128i *)nibbles, _mm_unpacklo_epi8(low, high));
    _mm_storeu_si128((__m128i *)nibbles + 1, _mm_unpackhi_epi8(low, high));
#elif defined(__ARM_NEON)
    const uint8x16_t both = vreinterpretq_u8_u32(vld1q_u32(words));
    vst2q_u8(nibbles, (uint8x16x2_t){{vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8(both, 4)}});
#else
    for (int n = 0; n < 32; n++) nibbles[n] = words[n / 8] >> 4 * (n % 8) & 15;
#endif
}
static void unpack_gemm(const char *name, long n, double *plain) { /* words (n, O / 8) to codes (O, n) */
    static const int ORDER[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    uint8_t nibbles[32];
    input(name, "int32", n, O / 8, words);
    for (long k = 0; k < O * n; k++) { /* nibble k of all */
        const double *w = words + k / 8;
        if (k % 32 == 0) unpack_16_bytes((uint32_t[4]){w[0], w[1], w[2], w[3]}, nibbles);
        plain[(k % O / 8 * 8 + ORDER[k % 8]) * n + k / O] = nibbles[k % 32];
    }
}
static void read_sizes(long outputs, long inputs) {
    long bits = number("bits"), size = number("group_size") == -1 ? inputs : number("group_size");
    know(bits == 2 || bits == 3 || bits == 4 || bits == 8, "bits");
    know(!*find("layout") || (says("layout", "\"gemm\"") && bits == 4 && outputs % 8 == 0), "layout");
    know(!*find("g_idx") && !*find("offset") && !*find("clip"), "g_idx, offset, clip");
    need(outputs > 0 && size > 0 && inputs > 0 && inputs % size == 0 && outputs <= MAX / inputs, "sizes");
    O = outputs, I = inputs, group = size, G = inputs / size, qmax = (1 << bits) - 1;
}
static void read_linear(void) { /* the layout's tensors, or, where no layout is named, plain arrays */
    if (*find("layout")) {
        read_sizes(number("out_features"), number("in_features"));
        unpack_gemm("qweight", I, codes), unpack_gemm("qzeros", G, zeros);
        input("scales", "float16", G, O, x);
        for (long k = 0; k < O * G; k++) scales[k] = x[k % G * O + k / G];
    } else {
        input("int_weight", "uint8", 0, 0, codes), read_sizes(rows, columns);
        input("scales", "float", O, G, scales), input("zero_point", "uint8", O, G, zeros);
    }
    for (long k = 0; k < O * I; k++) need(codes[k] <= qmax && zeros[k / group] <= qmax, "a code is too high");
}
static void unpack(void) {
    output("int_weight", "uint8", O, I, codes), output("scales", "float16", O, G, scales);
    output("zero_point", "uint8", O, G, zeros);
}

/* ---- L1 [AWQ-4] ---- */
static double weight(long k) { return (codes[k] - zeros[k / group]) * scales[k / group]; }
static void dequantize(void) {
    int half = says("weight_dtype", "\"float16\"");
    know(half || says("weight_dtype", "\"float32\""), "weight_dtype");
    for (long k = 0; k < O * I; k++) y[k] = weight(k);
    output("weight", half ? "float16" : "float32", O, I, y);
}

/* ---- L2 [AWQ-1] to [AWQ-3]: each step rounded to float32 ---- */
static void read_weight(void) { input("weight", "float32", 0, 0, x), read_sizes(rows, columns); }
static void quantize(void) {
    int symmetric = says("symmetric", "true"), half = says("scale_dtype", "\"float16\"");
    double middle = (qmax + 1) / 2, start = says("range_rule", "\"zero\"") ? 0 : INFINITY;
    know(half || says("scale_dtype", "\"float32\""), "scale_dtype");
    know(!start || says("range_rule", "\"minmax\""), "range_rule");
    for (long g = 0; g < O * G; g++) {
        double low = start, high = -start, *w = x + g * group;
        for (long k = 0; k < group; k++) low = fmin(low, w[k]), high = fmax(high, w[k]);
        double width = symmetric ? fmax(-low, high) : (float)(high - low);
        double scale = (float)(fmax(width, 1e-5f) / (symmetric ? middle - 1 : qmax));
        scales[g] = scale = half ? from_half(to_half(scale)) : scale;
        need(isfinite(scale), "scales");
        zeros[g] = symmetric ? middle : fmin(fmax(-rint((float)(low / scale)), 0), qmax);
        for (long k = 0; k < group; k++)
            codes[g * group + k] = fmin(fmax(rint((float)(w[k] / scale)) + zeros[g], 0), qmax);
    }
    output("scales", half ? "float16" : "float32", O, G, scales), output("zero_point", "uint8", O, G, zeros);
    if (says("op", "\"quantize_linear\"")) output("int_weight", "uint8", O, I, codes);
}

/* ---- L3 [AWQ-10] ---- */
static void round_activations(void) { /* y = d, max |x| / 127 of neighbours; x becomes rint(x / d) */
    input("x", "float32", 0, 0, x);
    long size = run = number("act_group_size"), n = rows * columns;
    need(size > 0 && columns % size == 0, "act_group_size");
    for (long k = 0; k < n; k++) y[k / size] = fmax(k % size ? y[k / size] : 0, (float)(fabs(x[k]) / 127));
    for (long k = 0; k < n; k++) x[k] = y[k / size] > 0 ? rint((float)(x[k] / y[k / size])) : 0;
    for (long k = 0; k < n; k++) x[k] = fmin(fmax(x[k], -127), 127); /* beyond only where d is subnormal */
}
static void quantize_activations(void) {
    output("act_codes", "int8", rows, columns, x), output("act_scales", "float32", rows, columns / run, y);
}
static void matmul(void) {
    int int8 = says("op", "\"matmul_w4a8\""), biased = *find("bias");
    know(int8 || says("precision", "\"float"), "precision"); /* any: sums are double */
    if (biased) input("bias", "float32", O, 1, bias);
    int8 ? round_activations() : input("x", "float", 0, I, x);
    for (long k = 0; int8 && k < rows * columns; k++) x[k] *= y[k / run]; /* exact in a double */
    need(columns == I && (!int8 || group % run == 0) && rows <= MAX / O, "sizes");
    for (long k = 0; k < rows * O; k++) {
        y[k] = biased ? bias[k % O] : 0;
        for (long i = 0; i < I; i++) y[k] += weight(k % O * I + i) * x[k / O * I + i];
    }
    output("y", "float32", rows, O, y);
}

/* ---- The loop ---- */
static void hello(void) { printf("{\"status\":\"ok\",\"protocol\":1,\"name\":\"C99\",\"outputs\":{"); }
static void nothing(void) {}
static void unknown(void) { know(0, "op"); }
static const struct { const char *name; void (*read)(void), (*answer)(void); } OPS[] = {
    {"\"unpack\"", read_linear, unpack}, {"\"dequantize\"", read_linear, dequantize},
    {"\"dequantize_packed\"", read_linear, dequantize}, {"\"matmul\"", read_linear, matmul},
    {"\"matmul_packed\"", read_linear, matmul}, {"\"matmul_w4a8\"", read_linear, matmul},
    {"\"choose_grid\"", read_weight, quantize}, {"\"quantize_linear\"", read_weight, quantize},
    {"\"quantize_activations\"", round_activations, quantize_activations},
    {"\"hello\"", nothing, hello}, {"", unknown, nothing}}; /* "" is the beginning of all */
int main(void) {
    while (fgets(request, sizeof request, stdin)) {
        for (op = n_outputs = 0; !says("op", OPS[op].name);) op++;
        if (!setjmp(next_request)) OPS[op].read(), OPS[op].answer(), puts("}}");
        fflush(stdout);
    }
}
