/* Local response normalization: x * (k + alpha * sum of squares)^-beta. */
static void lrn(const float *x, float *y, int pixels, int channels, int size,
                float alpha, float beta, float k) {
    for (int i = 0; i < pixels; i++, x += channels, y += channels)
        for (int c = 0; c < channels; c++) {
            int first = c - size / 2, end = first + size;
            float sum = 0;
            for (int j = first < 0 ? 0 : first; j < end && j < channels; j++)
                sum += x[j] * x[j];
            float d = k + alpha * sum, root = sqrtf(d);
            y[c] = x[c] / (beta == 0.75f ? root * sqrtf(root) : powf(d, beta));
        }
}
