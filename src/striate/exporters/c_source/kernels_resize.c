/* The antialiased bilinear resize of PyTorch for 8-bit images, in integer arithmetic.

   Each output pixel is a mean weighted by a triangle, which is stretched if the image
   shrinks. The weights are rounded to integers: w * 2^precision < 2^15. Rows are
   resized first, then columns; after each pass the sums are rounded to 0-255. */
struct axis {
    int size, scaled; /* before and after the resize */
    int before, skip, count; /* border; cut output pixels; computed output pixels */
    int widest, precision; /* most weights of an output pixel */
    int *first, *taps;
    int32_t *weights;
};

static struct axis axis_of(int size, int scaled, int target) {
    struct axis a = {.size = size, .scaled = scaled};
    int space = target - scaled;
    a.before = space > 0 ? space / 2 : 0;
    a.skip = space < 0 ? (1 - space) / 2 : 0;
    a.count = space > 0 ? scaled : target;
    a.widest = size > scaled ? 2 * (size / scaled + 1) + 2 : 4;
    return a;
}

/* Compute the weights of one output pixel. No product may be fused with a sum. */
static int triangle(const struct axis *a, int index, double *values, int *count) {
    double ratio = (double)a->size / a->scaled, support = ratio > 1 ? ratio : 1;
    double inverse = 1 / support, total = 0;
    volatile double center = ratio * (index + 0.5);
    int first = (int)fmax(floor(center - support + 0.5), 0);
    int end = (int)fmin(floor(center + support + 0.5), a->size);
    for (int i = first; i < end; i++) {
        volatile double distance = fabs((i - center + 0.5) * inverse);
        total += values[i - first] = fmax(1 - distance, 0);
    }
    for (int i = first; i < end; i++) values[i - first] /= total;
    *count = end - first;
    return first;
}

static void fill_axis(struct axis *a, double *values) {
    int rows = a->scaled < a->size ? a->scaled : a->size;
    double most = 0;
    for (int i = 0; i < rows; i++) {
        int count;
        triangle(a, i, values, &count);
        for (int j = 0; j < count; j++) most = fmax(most, values[j]);
    }
    double power = 1;
    for (a->precision = 0; a->precision < 22; a->precision++, power *= 2)
        if (floor(0.5 + most * power * 2) >= 32768) break;
    for (int i = 0; i < a->count; i++) {
        a->first[i] = triangle(a, a->skip + i, values, &a->taps[i]);
        for (int j = 0; j < a->taps[i]; j++)
            a->weights[i * a->widest + j] = (int32_t)floor(values[j] * power + 0.5);
    }
}

static uint8_t level(int32_t sum, int precision) {
    if (precision > 0) sum = (sum + (1 << (precision - 1))) >> precision;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* One pass: `step` bytes from pixel to pixel of the axis, `lines` values side by side. */
static void resize_line(const struct axis *a, const uint8_t *x, ptrdiff_t step,
                        uint8_t *y, ptrdiff_t y_step, int lines) {
    for (int i = 0; i < a->count; i++, y += y_step) {
        const int32_t *weights = a->weights + (ptrdiff_t)i * a->widest;
        const uint8_t *from = x + a->first[i] * step;
        for (int j = 0; j < lines; j++) {
            int32_t sum = 0;
            for (int k = 0; k < a->taps[i]; k++) sum += weights[k] * from[k * step + j];
            y[j] = level(sum, a->precision);
        }
    }
}

static int scaled_side(int side, double ratio) {
    double scaled = rint(side * ratio);
    return scaled < 1 ? 1 : (int)scaled;
}

static int resize_image(const uint8_t *pixels, int height, int width, uint8_t *y) {
    struct axis rows, columns;
    if (height == INPUT_HEIGHT && width == INPUT_WIDTH) {
        memcpy(y, pixels, INPUT_HEIGHT * INPUT_WIDTH * INPUT_CHANNELS);
        return RETURN_OK;
    }
    double down = INPUT_HEIGHT / (double)height, across = INPUT_WIDTH / (double)width;
    double ratio = RESIZE_MODE == 'c' ? fmax(down, across) : fmin(down, across);
    int stretch = RESIZE_MODE == 's';
    rows = axis_of(height, stretch ? INPUT_HEIGHT : scaled_side(height, ratio),
                   INPUT_HEIGHT);
    columns = axis_of(width, stretch ? INPUT_WIDTH : scaled_side(width, ratio),
                      INPUT_WIDTH);
    size_t line = (size_t)columns.count * INPUT_CHANNELS;
    size_t row_weights = (size_t)rows.count * (size_t)rows.widest;
    size_t column_weights = (size_t)columns.count * (size_t)columns.widest;
    size_t values = (size_t)(rows.widest > columns.widest ? rows.widest : columns.widest);
    size_t integers = 2 * (size_t)(rows.count + columns.count);
    size_t bytes = values * sizeof(double) + integers * sizeof(int)
        + (row_weights + column_weights) * sizeof(int32_t) + line * (size_t)height;
    double *memory = malloc(bytes);
    if (!memory) return RETURN_NO_MEMORY;
    rows.weights = (int32_t *)(memory + values);
    columns.weights = rows.weights + row_weights;
    rows.first = (int *)(columns.weights + column_weights);
    rows.taps = rows.first + rows.count;
    columns.first = rows.taps + rows.count;
    columns.taps = columns.first + columns.count;
    uint8_t *lines = (uint8_t *)(columns.taps + columns.count);
    fill_axis(&rows, memory);
    fill_axis(&columns, memory);
    int first = rows.first[0];
    int end = rows.first[rows.count - 1] + rows.taps[rows.count - 1];
    for (int row = first; row < end; row++)
        resize_line(&columns, pixels + (ptrdiff_t)row * width * INPUT_CHANNELS,
                    INPUT_CHANNELS, lines + row * line, INPUT_CHANNELS, INPUT_CHANNELS);
    memset(y, BACKGROUND, INPUT_HEIGHT * INPUT_WIDTH * INPUT_CHANNELS);
    y += (rows.before * INPUT_WIDTH + columns.before) * INPUT_CHANNELS;
    resize_line(&rows, lines, (ptrdiff_t)line, y, INPUT_WIDTH * INPUT_CHANNELS,
                (int)line);
    free(memory);
    return RETURN_OK;
}
