/* Depthwise convolution: one kernel for each channel; weights: [tap][channels, padded].
   The same table as that of the direct convolution; 4 positions share the weights. */
INLINE void depthwise_tile(const float *const *table, int taps, const float *weights,
                           ptrdiff_t padded, int channel, int rows,
                           const struct output *out) {
    vec sum0 = splat(0), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (int tap = 0; tap < taps; tap++) {
        const float *const *row = table + (ptrdiff_t)tap * POSITIONS;
        vec w = load(weights + tap * padded + channel);
        sum0 = multiply_add(load(row[0] + channel), w, sum0);
        if (rows < 4) continue;
        sum1 = multiply_add(load(row[1] + channel), w, sum1);
        sum2 = multiply_add(load(row[2] + channel), w, sum2);
        sum3 = multiply_add(load(row[3] + channel), w, sum3);
    }
    finish(out, 0, channel, sum0);
    if (rows < 4) return;
    finish(out, 1, channel, sum1);
    finish(out, 2, channel, sum2);
    finish(out, 3, channel, sum3);
}

/* The channels that do not fill a vector. */
static void depthwise_rest(const float *const *table, int taps, const float *weights,
                           ptrdiff_t padded, int channel, const struct output *out) {
    for (int i = channel; i < out->count; i++) {
        float sum = out->bias[i];
        for (int tap = 0; tap < taps; tap++)
            sum += table[(ptrdiff_t)tap * POSITIONS][i] * weights[tap * padded + i];
        if (out->residual) sum += out->residual[i];
        sum = sum > out->low ? sum : out->low;
        out->y[i] = sum < out->high ? sum : out->high;
    }
}

static void depthwise(const struct conv *c, const float **table) {
    int positions = c->out_height * c->out_width, taps = c->kernel[0] * c->kernel[1];
    int channels = c->groups, whole = channels / LANES * LANES;
    ptrdiff_t padded = (channels + BLOCK - 1) / BLOCK * BLOCK;
    int part = part_of(positions);
    for (int start = 0; start < positions; start += part) {
        int count = positions - start < part ? positions - start : part;
        fill_table(c, table, start, count);
        for (int i = 0, rows; i < count; i += rows) {
            const float *const *row = (const float *const *)table + i;
            struct output out = shifted(c->out, start + i, 0);
            rows = count - i >= 4 ? 4 : 1;
            if (rows == 4)
                for (int j = 0; j < whole; j += LANES)
                    depthwise_tile(row, taps, c->weights, padded, j, 4, &out);
            else
                for (int j = 0; j < whole; j += LANES)
                    depthwise_tile(row, taps, c->weights, padded, j, 1, &out);
            for (int k = 0; k < rows; k++) {
                struct output rest = shifted(out, k, 0);
                depthwise_rest(row + k, taps, c->weights, padded, whole, &rest);
            }
        }
    }
}
