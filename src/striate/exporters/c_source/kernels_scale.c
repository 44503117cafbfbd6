/* Batch normalization that is not part of a convolution: x * scale + shift. */
static void scale(const float *x, float *y, int pixels, int channels,
                  const float *scales, const float *shifts) {
    for (int i = 0; i < pixels; i++, x += channels, y += channels)
        for (int c = 0; c < channels; c++) y[c] = x[c] * scales[c] + shifts[c];
}
