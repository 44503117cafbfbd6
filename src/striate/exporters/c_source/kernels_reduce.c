/* Sum, mean or maximum over some dimensions; the results are in row-major order. */
static void reduce(int operation, const float *x, float *y, const int kept[4],
                   const int kept_strides[4], const int n[4], const int strides[4]) {
    int count = kept[0] * kept[1] * kept[2] * kept[3];
    int terms = n[0] * n[1] * n[2] * n[3];
    for (int i = 0; i < count; i++) y[i] = operation == '>' ? -INFINITY : 0;
    for (int term = 0; term < terms; term++) {
        int rest = term;
        const float *from = x;
        for (int dim = 3; dim >= 0; rest /= n[dim], dim--)
            from += (ptrdiff_t)(rest % n[dim]) * strides[dim];
        float *to = y;
        for (int a = 0; a < kept[0]; a++)
            for (int b = 0; b < kept[1]; b++)
                for (int c = 0; c < kept[2]; c++, to += kept[3]) {
                    const float *row = from + (ptrdiff_t)a * kept_strides[0]
                        + (ptrdiff_t)b * kept_strides[1]
                        + (ptrdiff_t)c * kept_strides[2];
                    int step = kept_strides[3];
                    if (operation == '>')
                        for (int d = 0; d < kept[3]; d++, row += step)
                            to[d] = *row > to[d] ? *row : to[d];
                    else
                        for (int d = 0; d < kept[3]; d++, row += step) to[d] += *row;
                }
    }
    if (operation == 'm')
        for (int i = 0; i < count; i++) y[i] /= (float)terms;
}
