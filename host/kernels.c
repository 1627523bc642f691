/* The emulator's loops over all elements: each reads and writes memory once (host/kernels.py).
 *
 * Rounding is docs/numerics.md's, with the operations of host/numerics.py: adding and subtracting
 * 1.5 * 2^(23 - m) times the value's own power of two leaves m mantissa bits. That needs IEEE 754
 * as it is: no -ffast-math, no contraction.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* The best vectors of this processor are chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORS __attribute__((target_clones("avx2", "default")))
#else
#define VECTORS
#endif
#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))   /* else no vectors of VECTORS */
#else
#define INLINE static inline
#endif

enum { LANES = 8, ROWS = 128, APART = ROWS + 16, WINDOW = 64, RUN = 1 << 14 };
enum { AS_IT_IS = 0, GRID = 1, UPPER_HALF = 2 };

typedef void Step(void *job, int64_t item);

/* GOMP_parallel of torch's own OpenMP: its threads are awake already, others would disturb them. */
typedef void Team(void (*function)(void *), void *data, unsigned threads, unsigned flags);

typedef struct {
    Step *step;
    void *job;
    int64_t items;
    atomic_llong next;
} Queue;

static void serve(void *queue)
{
    Queue *q = queue;
    for (int64_t item; (item = atomic_fetch_add(&q->next, 1)) < q->items;)
        q->step(q->job, item);
}

/* All items, in any order, by the team or, without one, by the caller alone. */
static void share(Step *step, void *job, int64_t items, Team *team, unsigned threads)
{
    Queue queue = {step, job, items, 0};
    if (team && threads > 1)
        team(serve, &queue, threads, 0);
    else
        serve(&queue);
}

/* host/kernels.py has the same fields in the same order. Strides are in elements. */
typedef struct {
    const void *x;         /* float32, or codes of 8 bits if there is a table */
    const float *table;    /* value of each code, or NULL */
    int64_t batches, rows, length;
    int64_t batch_stride, row_stride, element_stride;
    double *out;           /* [batches, rows, length], contiguous */
    int64_t *counts;       /* [batches, rows, ceil(length / 64)] elements not zero, or NULL */
    int64_t kind;          /* AS_IT_IS, GRID, or UPPER_HALF: to bf16 */
    float smallest;        /* GRID: 2^min_exponent */
    float ceiling;         /* GRID: 2^(max_exponent + 1) */
    float constant;        /* GRID: 1.5 * 2^(23 - m) */
    float largest;         /* what lies beyond becomes +-beyond, and is counted as saturated */
    float beyond;
    atomic_llong saturated;
    atomic_llong special;  /* Inf and NaN in out */
} Conversion;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Words __attribute__((vector_size(4 * LANES)));

/* What was met, lane by lane. */
typedef struct {
    Words saturated, special, nonzero;
} Tally;

INLINE Floats all(float x)
{
    return (Floats){0} + x;
}

INLINE Floats choose(Words where, Floats yes, Floats no)
{
    return (Floats)((where & (Words)yes) | (~where & (Words)no));
}

INLINE Floats to_grid(Floats x, float smallest, float ceiling, float constant)
{
    Floats ulp = (Floats)((Words)x & 0x7F800000);
    ulp = choose(ulp > smallest, ulp, all(smallest));
    ulp = choose(ulp < ceiling, ulp, all(ceiling)) * constant;
    return (x + ulp) - ulp;
}

/* bf16 has fp32's exponents: what remains of the word carries into them, up to infinity. */
INLINE Floats to_upper_half(Floats x)
{
    const Words word = (Words)x;
    return choose(x == x, (Floats)((word + 0x7FFF + (word >> 16 & 1)) & ~0xFFFF), x);
}

/* Some elements, rounded and clamped. A comparison that holds is -1. */
INLINE Floats finish(const Conversion *c, const float *from, Tally *tally)
{
    Floats x;
    memcpy(&x, from, sizeof x);
    if (c->kind == GRID)
        x = to_grid(x, c->smallest, c->ceiling, c->constant);
    else if (c->kind == UPPER_HALF)
        x = to_upper_half(x);
    const Words above = x > c->largest, below = x < -c->largest;
    tally->saturated -= above | below;
    x = choose(above, all(c->beyond), choose(below, all(-c->beyond), x));
    tally->special -= ~(x - x == 0);
    tally->nonzero -= x != 0;
    return x;
}

INLINE int64_t total(Words x)
{
    int64_t sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += x[i];
    return sum;
}

INLINE float element(const Conversion *c, int64_t at)
{
    return c->table ? c->table[((const uint8_t *)c->x)[at]] : ((const float *)c->x)[at];
}

/* A window of a row whose elements are neighbours. */
INLINE void along_row(const Conversion *c, int64_t at, double *restrict out, int64_t *count,
                      int length, Tally *tally)
{
    float buffer[WINDOW];
    const float *from = buffer;
    if (length == WINDOW && !c->table)
        from = (const float *)c->x + at;
    else
        for (int i = 0; i < WINDOW; i++)
            buffer[i] = i < length ? element(c, at + i) : 0;
    tally->nonzero = (Words){0};
    for (int i = 0; i < WINDOW; i += LANES) {
        const Floats x = finish(c, from + i, tally);
        memcpy(buffer + i, &x, sizeof x);
    }
    if (length == WINDOW)            /* a constant makes it vectors without a rest */
        for (int i = 0; i < WINDOW; i++)
            out[i] = buffer[i];
    else
        for (int i = 0; i < length; i++)
            out[i] = buffer[i];
    if (count)
        *count = total(tally->nonzero);
}

/* A window of some rows: reads what lies across the rows, writes along them. */
INLINE void across_rows(const Conversion *c, int64_t at, double *out, int64_t *count, int length,
                        int rows, Tally *tally)
{
    float x[WINDOW][APART], line[ROWS] = {0};   /* a power of two apart, they share cache lines */
    Words nonzero[ROWS / LANES] = {{0}};
    const int64_t along = c->element_stride, across = c->row_stride;
    for (int i = 0; i < length; i++, at += along) {
        const float *from = line;
        if (!c->table && across == 1 && rows % LANES == 0)
            from = (const float *)c->x + at;
        else
            for (int r = 0; r < rows; r++)
                line[r] = element(c, at + r * across);
        for (int r = 0; r < rows; r += LANES) {
            tally->nonzero = nonzero[r / LANES];
            const Floats done = finish(c, from + r, tally);
            nonzero[r / LANES] = tally->nonzero;
            memcpy(x[i] + r, &done, sizeof done);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < length; i++)
            out[r * c->length + i] = x[i][r];
    for (int r = 0; count && r < rows; r++)
        count[r * ((c->length + WINDOW - 1) / WINDOW)] = nonzero[r / LANES][r % LANES];
}

INLINE void convert_tile(Conversion *c, int64_t batch, int64_t row, int64_t window, int rows,
                         Tally *tally)
{
    const int64_t windows = (c->length + WINDOW - 1) / WINDOW;
    const int64_t start = window * WINDOW, line = batch * c->rows + row;
    const int length = c->length - start < WINDOW ? (int)(c->length - start) : WINDOW;
    const int64_t at = batch * c->batch_stride + row * c->row_stride + start * c->element_stride;
    double *out = c->out + line * c->length + start;
    int64_t *count = c->counts ? c->counts + line * windows + window : NULL;
    if (c->element_stride == 1)
        along_row(c, at, out, count, length, tally);
    else
        across_rows(c, at, out, count, length, rows, tally);
}

INLINE void add_up(Conversion *c, const Tally *tally)
{
    atomic_fetch_add(&c->saturated, total(tally->saturated));
    atomic_fetch_add(&c->special, total(tally->special));
}

/* A row, where its elements are neighbours. */
VECTORS static void convert_row(void *job, int64_t item)
{
    Conversion *c = job;
    Tally tally = {0};
    for (int64_t window = 0; window * WINDOW < c->length; window++)
        convert_tile(c, item / c->rows, item % c->rows, window, 1, &tally);
    add_up(c, &tally);
}

/* A window of all rows, where they are neighbours: few pages of memory at a time. */
VECTORS static void convert_window(void *job, int64_t item)
{
    Conversion *c = job;
    const int64_t windows = (c->length + WINDOW - 1) / WINDOW;
    Tally tally = {0};
    for (int64_t row = 0; row < c->rows; row += ROWS)
        convert_tile(c, item / windows, row, item % windows,
                     c->rows - row < ROWS ? (int)(c->rows - row) : ROWS, &tally);
    add_up(c, &tally);
}

void exactum_convert(Conversion *c, Team *team, unsigned threads)
{
    if (c->element_stride == 1)
        share(convert_row, c, c->batches * c->rows, team, threads);
    else
        share(convert_window, c, c->batches * ((c->length + WINDOW - 1) / WINDOW), team, threads);
}

typedef struct {
    const double *x;
    float *out;
    int64_t length;
    double scale;
} Rounding;

/* float64 sums times a power of two as float32; an exact zero as +0. */
VECTORS static void round_run(void *job, int64_t item)
{
    const Rounding *r = job;
    const int64_t start = item * RUN;
    const int64_t length = r->length - start < RUN ? r->length - start : RUN;
    const double *restrict x = r->x + start;
    float *restrict out = r->out + start;
    const double scale = r->scale;
    for (int64_t i = 0; i < length; i++)
        out[i] = (float)((x[i] + 0.0) * scale);
}

void exactum_round(const double *x, float *out, int64_t length, double scale, Team *team,
                   unsigned threads)
{
    Rounding job = {x, out, length, scale};
    share(round_run, &job, (length + RUN - 1) / RUN, team, threads);
}
