/* A backend for the vectors of awq_ref, levels L0 to L3, in C99 for little-endian machines.
   docs/conformance.md says what is asked, docs/layouts.md where the bits lie (layouts.h), docs/equations.md
   what [AWQ-n] is. README.md says how to build it; -DPORTABLE leaves the intrinsics out. */
#define _POSIX_C_SOURCE 200809L
#include "layouts.h"
#if defined(__SSE2__) && !defined(PORTABLE)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && !defined(PORTABLE)
#include <arm_neon.h>
#endif

static const char *float_dtype(const char *name) {
    know(says(name, "float16") || says(name, "float32"), name);
    return says(name, "float16") ? "float16" : "float32";
}

static void dequantize(void) { /* [AWQ-4]: exact in double, rounded once by output() */
    Array weight = array(float_dtype("weight_dtype"), O, I);
    for (long k = 0; k < O * I; k++) {
        long g = k / I * G + (long)groups.v[k % I];
        if (has_offset) weight.v[k] = codes.v[k] * scales.v[g] + zeros.v[g];
        else weight.v[k] = (codes.v[k] - zeros.v[g]) * scales.v[g];
    }
    output("weight", weight);
}

/* [AWQ-1] to [AWQ-3], each step rounded to float32: a grid, codes on a given grid, or both. */
static void quantize(int choose, int round_too) {
    Array w = input("weight", "float32", -1, -1), clip = {"", 0, 0, NULL};
    read_sizes(w.rows, w.columns);
    if (find("clip", "")) clip = any_input("clip", "float32", O, G);
    const char *dtype = choose ? float_dtype("scale_dtype") : "";
    scales = choose ? array(dtype, O, G) : input("scales", "float", O, G);
    zeros = choose ? array("uint8", O, G) : input("zero_point", "uint8", O, G);
    codes = array("uint8", O, I);
    int symmetric = find("symmetric", "true") != NULL, middle = (qmax + 1) / 2;
    int from_zero = says("range_rule", "zero");
    know(!choose || from_zero || says("range_rule", "minmax"), "range_rule");
    for (long g = 0; g < O * G; g++) {
        long first = g / G * I + g % G * group, end = g % G < G - 1 ? first + group : (g / G + 1) * I;
        double low = from_zero ? 0 : INFINITY, high = from_zero ? 0 : -INFINITY;
        need(!clip.v || clip.v[g] >= 0, "clip");
        for (long k = first; k < end; k++) {
            if (clip.v) w.v[k] = fmax(-clip.v[g], fmin(w.v[k], clip.v[g]));
            low = fmin(low, w.v[k]), high = fmax(high, w.v[k]);
        }
        float width = fmaxf((float)(symmetric ? fmax(-low, high) : high - low), 1e-5f);
        if (choose) scales.v[g] = rounded(width / (float)(symmetric ? middle - 1 : qmax), dtype);
        need(scales.v[g] > 0 && isfinite(scales.v[g]), "scales");
        double zero = symmetric ? middle : -rint((float)(low / scales.v[g]));
        if (choose) zeros.v[g] = fmax(0, fmin(zero, qmax));
        need(zeros.v[g] <= qmax, "zero_point");
        for (long k = first; k < end; k++)
            codes.v[k] = fmax(0, fmin(rint((float)(w.v[k] / scales.v[g])) + zeros.v[g], qmax));
    }
    if (choose) output("scales", scales), output("zero_point", zeros);
    if (round_too) output("int_weight", codes);
}

/* d = max |x| / 127 of `size` neighbours; x becomes its codes, rint(x / d). */
static Array round_activations(Array x, long size) {
    need(size > 0 && x.columns % size == 0, "act_group_size");
    Array d = array("float32", x.rows, x.columns / size);
    for (long k = 0; k < count(x); k++) d.v[k / size] = fmax(d.v[k / size], (float)(fabs(x.v[k]) / 127));
    for (long k = 0; k < count(x); k++) {
        double code = d.v[k / size] > 0 ? rint((float)(x.v[k] / d.v[k / size])) : 0;
        x.v[k] = fmax(-127, fmin(code, 127)); /* more only where d is subnormal */
    }
    return d;
}

static void quantize_activations(void) {
    Array x = input("x", "float32", -1, -1), d = round_activations(x, number("act_group_size"));
    strcpy(x.dtype, "int8");
    output("act_codes", x), output("act_scales", d);
}

/* "In-memory planes" of docs/layouts.md, TinyChatEngine's order for ARM: byte j of 16 holds the codes j and
   j + 16, so that one AND and one shift unpack 32 codes into their order. */
static void pack_plane(const uint8_t codes[32], uint8_t plane[16]) {
    for (int j = 0; j < 16; j++) plane[j] = (uint8_t)(codes[j] | codes[j + 16] << 4);
}

static void unpack_plane(const uint8_t plane[16], uint8_t codes[32]) {
#if defined(__SSE2__) && !defined(PORTABLE)
    const __m128i low = _mm_set1_epi8(0x0F), both = _mm_loadu_si128((const __m128i *)plane);
    _mm_storeu_si128((__m128i *)codes, _mm_and_si128(both, low));
    _mm_storeu_si128((__m128i *)(codes + 16), _mm_and_si128(_mm_srli_epi16(both, 4), low));
#elif defined(__ARM_NEON) && !defined(PORTABLE)
    const uint8x16_t both = vld1q_u8(plane);
    vst1q_u8(codes, vandq_u8(both, vdupq_n_u8(0x0F)));
    vst1q_u8(codes + 16, vshrq_n_u8(both, 4));
#else
    for (int j = 0; j < 16; j++) {
        codes[j] = plane[j] & 0x0F;
        codes[j + 16] = plane[j] >> 4;
    }
#endif
}

/* [AWQ-10] y = bias + sum over groups of s (sum of (q - z) x), or of s (sum of q x) + offset (sum of x).
   With int8 activations x is d times a code; the inner sum is an integer, in doubles as exact as in int32. */
static void matmul(long act_group) {
    Array x = input("x", "float", -1, I), y = array("float32", x.rows, O), bias = {"", 0, 0, NULL}, d = bias;
    if (find("bias", "")) bias = input("bias", "float32", O, 0);
    if (act_group) d = round_activations(x, act_group);
    long step = act_group ? act_group : 1, blocks = (I + 31) / 32;
    need(group % step == 0, "act_group_size");
    uint8_t *row = owned[n_owned++] = calloc(32, (size_t)blocks);
    uint8_t *planes = owned[n_owned++] = calloc(16, (size_t)blocks); /* a row as a model keeps it */
    for (long o = 0; o < O; o++) {
        for (long i = 0; i < I; i++) row[i] = (uint8_t)codes.v[o * I + i];
        for (long b = 0; bits == 4 && b < blocks; b++) pack_plane(row + 32 * b, planes + 16 * b);
        for (long t = 0; t < x.rows; t++) {
            for (long b = 0; bits == 4 && b < blocks; b++) unpack_plane(planes + 16 * b, row + 32 * b);
            double sum = bias.v ? bias.v[o] : 0;
            for (long first = 0; first < I; first += step) {
                long g = o * G + (long)groups.v[first];
                double zero = has_offset ? 0 : zeros.v[g], offset = has_offset ? zeros.v[g] : 0;
                double coded = 0, plain = 0;
                for (long i = first; i < first + step; i++) {
                    coded += (row[i] - zero) * x.v[t * I + i];
                    plain += x.v[t * I + i];
                }
                sum += (scales.v[g] * coded + offset * plain) * (d.v ? d.v[(t * I + first) / step] : 1);
            }
            y.v[t * O + o] = sum;
        }
    }
    output("y", y);
}

/* The operations on a linear, whose arrays are plain or, where a layout is named, packed. */
static void answer_linear(void) {
    int int8 = says("op", "matmul_w4a8"), floats = says("op", "matmul") || says("op", "matmul_packed");
    int weights = says("op", "dequantize") || says("op", "dequantize_packed");
    int packed = find("layout", "") != NULL;
    int half = says("precision", "float16") || says("precision", "float16_weights");
    know(int8 || floats || weights || says("op", "unpack"), "op");
    know(!floats || half || says("precision", "float32"), "precision");
    if (packed) read_layout();
    read_linear(packed);
    if (weights) dequantize();
    else if (int8 || floats) matmul(int8 ? number("act_group_size") : 0);
    else unpack();
}

static void answer(void) {
    layout = NULL;
    if (says("op", "pack")) pack();
    else if (says("op", "choose_grid")) quantize(1, 0);
    else if (says("op", "quantize")) quantize(0, 1);
    else if (says("op", "quantize_linear")) quantize(1, 1);
    else if (says("op", "quantize_activations")) quantize_activations();
    else answer_linear();
}

int main(void) { return serve("awq_ref example, C99", answer); }
