/* Copy values between two orders in memory: 5 loops with strides in floats. */
static void copy(const float *x, float *y, const int n[5], const int xs[5],
                 const int ys[5]) {
    for (int a = 0; a < n[0]; a++)
        for (int b = 0; b < n[1]; b++)
            for (int c = 0; c < n[2]; c++)
                for (int d = 0; d < n[3]; d++) {
                    const float *from = x + (ptrdiff_t)a * xs[0] + (ptrdiff_t)b * xs[1]
                        + (ptrdiff_t)c * xs[2] + (ptrdiff_t)d * xs[3];
                    float *to = y + (ptrdiff_t)a * ys[0] + (ptrdiff_t)b * ys[1]
                        + (ptrdiff_t)c * ys[2] + (ptrdiff_t)d * ys[3];
                    for (int e = 0; e < n[4]; e++)
                        to[(ptrdiff_t)e * ys[4]] = from[(ptrdiff_t)e * xs[4]];
                }
}
