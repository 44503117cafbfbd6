/* Padding of an image in NHWC order; `before` and `after`: rows, columns, channels. */
static int source_index(int index, int size, int mode) {
    if (index >= 0 && index < size) return index;
    if (mode == 'c') return -1;
    if (mode == 'e') return index < 0 ? 0 : size - 1;
    return index < 0 ? -index : 2 * size - 2 - index; /* reflect */
}

static void pad(const float *x, float *y, const int size[3], const int before[3],
                const int after[3], int mode, float value) {
    int channels = before[2] + size[2] + after[2];
    for (int row = -before[0]; row < size[0] + after[0]; row++)
        for (int column = -before[1]; column < size[1] + after[1]; column++) {
            int from_row = source_index(row, size[0], mode);
            int from_column = source_index(column, size[1], mode);
            int inside = from_row >= 0 && from_column >= 0;
            for (int c = 0; c < channels; c++, y++) {
                int from = source_index(c - before[2], size[2], mode);
                ptrdiff_t pixel = (ptrdiff_t)from_row * size[1] + from_column;
                *y = inside && from >= 0 ? x[pixel * size[2] + from] : value;
            }
        }
}
