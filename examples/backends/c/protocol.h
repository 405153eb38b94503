/* The protocol of docs/conformance.md in C99: requests, arrays, answers. It knows nothing about quantization:
   copy it into a backend of your own.

     serve(name, answer)     the loop over standard input; `answer` is called once a request
     says, find, number      what the request says
     input, any_input        arrays of the request: finite numbers, any numbers
     array, output           new arrays, arrays of the answer; elements are doubles, whatever the dtype
     need, know              where something does not hold: answer "invalid" or "unsupported", end the request
     rounded                 to float32 or float16, once, to the nearest, ties to even

   Define _POSIX_C_SOURCE 200809L before any include (getline). */
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char dtype[8];
    long rows, columns; /* a vector has 0 columns */
    double *v;
} Array;

static char *request;
static jmp_buf next_request;
static void *owned[64]; /* what is freed after the request */
static struct {
    const char *name;
    Array array;
} outputs[8];
static int n_owned, n_outputs;

static void check(int holds, const char *status, const char *what) {
    if (holds) return;
    printf("{\"status\":\"%s\",\"message\":\"%s\"}\n", status, what);
    longjmp(next_request, 1);
}
static void need(int holds, const char *what) { check(holds, "invalid", what); }
static void know(int known, const char *what) { check(known, "unsupported", what); }

/* What follows "name":then in the request, or NULL. No spaces, no string that holds a quote or a backslash,
   and of the keys of levels L0 to L3 only those of arrays come twice: a search does for a parser. */
static const char *find(const char *name, const char *then) {
    char key[64];
    int n = snprintf(key, sizeof key, "\"%s\":%s", name, then);
    const char *at = strstr(request, key);
    return at ? at + n : NULL;
}

static long number(const char *name) {
    need(find(name, "") != NULL, name);
    return strtol(find(name, ""), NULL, 10);
}

static int says(const char *name, const char *text) {
    const char *at = find(name, "\"");
    return at && !strncmp(at, text, strlen(text)) && at[strlen(text)] == '"';
}

static int size_of(const char *dtype) { return atoi(dtype + strcspn(dtype, "12368")) / 8; }

static double from_half(uint64_t raw) {
    int exponent = raw >> 10 & 31, mantissa = raw & 1023;
    double size = ldexp(exponent ? 1024 + mantissa : mantissa, exponent ? exponent - 25 : -24);
    return (raw >> 15 ? -1 : 1) * (exponent == 31 ? INFINITY : size); /* NaN is refused as infinity is */
}

/* The mantissa is rounded as an integer; a carry goes into the exponent. */
static unsigned half_bits(double v) {
    double size = fabs(v);
    int exponent = size < 0x1p-14 ? -14 : ilogb(size);
    int raw = size >= 65520 ? 0x7C00 : (exponent + 14) * 1024 + (int)rint(ldexp(size, 10 - exponent));
    return (v < 0 ? 0x8000u : 0) | (unsigned)raw;
}

static double rounded(double v, const char *dtype) {
    return size_of(dtype) == 2 ? from_half(half_bits(v)) : (float)v;
}

static double decode(uint64_t raw, const char *dtype) {
    int above = 64 - 8 * size_of(dtype);
    uint32_t low = (uint32_t)raw;
    float single;
    memcpy(&single, &low, sizeof single);
    if (dtype[0] == 'f') return size_of(dtype) == 2 ? from_half(raw) : single;
    return dtype[0] == 'u' ? (double)raw : (double)((int64_t)(raw << above) >> above);
}

static uint64_t encode(double v, const char *dtype) {
    float single = (float)v;
    uint32_t low;
    memcpy(&low, &single, sizeof low);
    if (dtype[0] == 'f') return size_of(dtype) == 2 ? half_bits(v) : low;
    return (uint64_t)(int64_t)v; /* the low bytes are two's complement */
}

static long count(Array a) { return a.columns ? a.rows * a.columns : a.rows; }

static Array array(const char *dtype, long rows, long columns) {
    Array a = {"", rows, columns, NULL};
    strcpy(a.dtype, dtype);
    a.v = owned[n_owned++] = calloc((size_t)count(a) + 1, sizeof *a.v);
    return a;
}

/* An input of the request. -1 stands for any number of rows or columns, "float" for float16 and float32. */
static Array any_input(const char *name, const char *dtype, long rows, long columns) {
    char kind[8];
    long r = 0, c = 0;
    const char *at = find(name, "{\"dtype\":\"");
    need(at && sscanf(at, "%7[a-z0-9]\",\"shape\":[%ld,%ld", kind, &r, &c) >= 2, name);
    need(!strncmp(kind, dtype, strlen(dtype)) && strcmp(kind, "float64"), name);
    need((rows < 0 || r == rows) && (columns < 0 ? c > 0 : c == columns), name);
    Array a = array(kind, r, c);
    int digits = 2 * size_of(kind);
    at = strstr(at, "\"data\":\"") + strlen("\"data\":\"");
    need((long)strcspn(at, "\"") == digits * count(a), name);
    for (long k = 0; k < count(a); k++, at += digits) {
        uint64_t raw = 0; /* bytes from the lowest, two digits each: digit j has the place j ^ 1 */
        for (int j = 0; j < digits; j++) raw |= (uint64_t)((at[j] & 15) + (at[j] >> 6) * 9) << 4 * (j ^ 1);
        a.v[k] = decode(raw, kind);
    }
    return a;
}

/* The same, without NaN and infinities. */
static Array input(const char *name, const char *dtype, long rows, long columns) {
    Array a = any_input(name, dtype, rows, columns);
    for (long k = 0; k < count(a); k++) need(isfinite(a.v[k]), name);
    return a;
}

static void output(const char *name, Array a) {
    outputs[n_outputs].name = name;
    outputs[n_outputs++].array = a;
}

static void print_array(const char *name, Array a) {
    printf("\"%s\":{\"dtype\":\"%s\",\"shape\":[%ld", name, a.dtype, a.rows);
    if (a.columns) printf(",%ld", a.columns);
    printf("],\"data\":\"");
    for (long k = 0; k < count(a); k++) {
        uint64_t raw = encode(a.v[k], a.dtype);
        for (int j = 0; j < 2 * size_of(a.dtype); j++) putchar("0123456789abcdef"[raw >> 4 * (j ^ 1) & 15]);
    }
    printf("\"}");
}

static int serve(const char *name, void (*answer)(void)) {
    size_t capacity = 0;
    while (getline(&request, &capacity, stdin) > 0) {
        n_owned = n_outputs = 0;
        if (says("op", "hello")) {
            printf("{\"status\":\"ok\",\"protocol\":1,\"name\":\"%s\",\"version\":\"1\"}\n", name);
        } else if (!setjmp(next_request)) {
            answer();
            printf("{\"status\":\"ok\",\"outputs\":{");
            for (int n = 0; n < n_outputs; n++) {
                if (n) printf(",");
                print_array(outputs[n].name, outputs[n].array);
            }
            printf("}}\n");
        }
        while (n_owned) free(owned[--n_owned]);
        fflush(stdout);
    }
    return 0;
}
