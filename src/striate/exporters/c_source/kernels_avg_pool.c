static int between(int value, int low, int high) {
    return value < low ? low : value > high ? high : value;
}

static void avg_pool(const struct pool *p) {
    float *y = p->y;
    for (int i = 0; i < p->out_height * p->out_width; i++, y += p->channels) {
        int top = i / p->out_width * p->stride[0] - p->padding[0];
        int left = i % p->out_width * p->stride[1] - p->padding[1];
        int end_y = between(top + p->kernel[0], top, p->height + p->bottom);
        int end_x = between(left + p->kernel[1], left, p->width + p->right);
        int count = (end_y - top) * (end_x - left);
        int y0 = between(top, 0, p->height), y1 = between(end_y, 0, p->height);
        int x0 = between(left, 0, p->width), x1 = between(end_x, 0, p->width);
        if (!p->count_padding) count = (y1 - y0) * (x1 - x0);
        for (int c = 0; c < p->channels; c++) y[c] = 0;
        for (int row = y0; row < y1; row++)
            for (int column = x0; column < x1; column++) {
                ptrdiff_t pixel = (ptrdiff_t)row * p->width + column;
                const float *x = p->x + pixel * p->x_stride;
                for (int c = 0; c < p->channels; c++) y[c] += x[c];
            }
        for (int c = 0; c < p->channels; c++) y[c] /= (float)count;
    }
}
