/* Vectors of GCC and clang: 8 floats with AVX, else 4; one float for other compilers. */
#ifndef LANES
#if defined(__AVX__)
#include <immintrin.h>
#define LANES 8
#elif defined(__GNUC__)
#define LANES 4
#else
#define LANES 1
#endif
#endif
#if defined(__ARM_NEON)
#include <arm_neon.h>
#elif defined(__SSE__)
#include <xmmintrin.h>
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline, unused))
#else
#define INLINE static inline
#endif

#if LANES > 1
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t vec_mask __attribute__((vector_size(4 * LANES)));
#else
typedef float vec;
#endif

/* Weights are packed in blocks of 16 output channels; a tile computes two vectors. */
#define BLOCK 16
#define TILE (2 * LANES < BLOCK ? 2 * LANES : BLOCK)

INLINE vec load(const float *values) {
    vec result;
    memcpy(&result, values, sizeof result);
    return result;
}

INLINE void store(float *values, vec result) {
    memcpy(values, &result, sizeof result);
}

INLINE vec splat(float value) {
#if LANES == 8
    return (vec){value, value, value, value, value, value, value, value};
#elif LANES == 4
    return (vec){value, value, value, value};
#else
    return value;
#endif
}

/* a * b + c */
INLINE vec multiply_add(vec a, vec b, vec c) {
#if LANES == 8 && defined(__FMA__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif LANES == 4 && defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

INLINE vec larger(vec a, vec b) {
#if LANES == 8
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif LANES == 4 && defined(__ARM_NEON)
    return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#elif LANES == 4 && defined(__SSE__)
    return (vec)_mm_max_ps((__m128)a, (__m128)b);
#elif LANES == 4
    vec_mask choice = a > b;
    return (vec)((choice & (vec_mask)a) | (~choice & (vec_mask)b));
#else
    return a > b ? a : b;
#endif
}

INLINE vec smaller(vec a, vec b) {
#if LANES == 8
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif LANES == 4 && defined(__ARM_NEON)
    return (vec)vminq_f32((float32x4_t)a, (float32x4_t)b);
#elif LANES == 4 && defined(__SSE__)
    return (vec)_mm_min_ps((__m128)a, (__m128)b);
#elif LANES == 4
    vec_mask choice = a < b;
    return (vec)((choice & (vec_mask)a) | (~choice & (vec_mask)b));
#else
    return a < b ? a : b;
#endif
}

/* Where a layer writes: y = clamp(sum + bias + residual, low, high). */
struct output {
    float *y;
    const float *bias, *residual; /* residual may be NULL */
    ptrdiff_t y_stride, residual_stride; /* floats from position to position */
    int count; /* channels that remain from y on */
    float low, high;
};

INLINE struct output shifted(struct output out, ptrdiff_t position, int channel) {
    out.y += position * out.y_stride + channel;
    if (out.residual) out.residual += position * out.residual_stride + channel;
    out.bias += channel;
    out.count -= channel;
    return out;
}

/* Write LANES channels, from `channel` on, of one position. */
INLINE void finish(const struct output *out, int position, int channel, vec sum) {
    int count = out->count - channel;
    if (count <= 0) return;
    sum += load(out->bias + channel);
    float *y = out->y + position * out->y_stride + channel;
    const float *residual = NULL;
    if (out->residual)
        residual = out->residual + position * out->residual_stride + channel;
    if (count >= LANES) {
        if (residual) sum += load(residual);
        store(y, smaller(larger(sum, splat(out->low)), splat(out->high)));
        return;
    }
    float values[LANES] = {0};
    if (residual) {
        memcpy(values, residual, (size_t)count * sizeof *y);
        sum += load(values);
    }
    store(values, smaller(larger(sum, splat(out->low)), splat(out->high)));
    memcpy(y, values, (size_t)count * sizeof *y);
}
