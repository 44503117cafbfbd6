/* Arithmetic of two arrays with broadcasting: 5 loops; the stride 0 repeats a value. */
#define BINARY_LOOP(expression)                                         \
    for (int i = 0; i < n; i++, a += a_step, b += b_step) y[i] = expression; \
    break;

static void binary_row(int operation, const float *a, int a_step, const float *b,
                       int b_step, float *y, int n) {
    switch (operation) {
    case '+': BINARY_LOOP(*a + *b)
    case '-': BINARY_LOOP(*a - *b)
    case '*': BINARY_LOOP(*a * *b)
    case '/': BINARY_LOOP(*a / *b)
    case '>': BINARY_LOOP(*a > *b ? *a : *b)
    case '<': BINARY_LOOP(*a < *b ? *a : *b)
    }
}

static void binary(int operation, const float *a, const float *b, float *y,
                   const int n[5], const int as[5], const int bs[5]) {
    for (int i = 0; i < n[0]; i++)
        for (int j = 0; j < n[1]; j++)
            for (int k = 0; k < n[2]; k++)
                for (int l = 0; l < n[3]; l++, y += n[4]) {
                    ptrdiff_t a_shift = (ptrdiff_t)i * as[0] + (ptrdiff_t)j * as[1]
                        + (ptrdiff_t)k * as[2] + (ptrdiff_t)l * as[3];
                    ptrdiff_t b_shift = (ptrdiff_t)i * bs[0] + (ptrdiff_t)j * bs[1]
                        + (ptrdiff_t)k * bs[2] + (ptrdiff_t)l * bs[3];
                    binary_row(operation, a + a_shift, as[4], b + b_shift, bs[4], y,
                               n[4]);
                }
}
