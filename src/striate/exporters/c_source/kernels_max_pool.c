static void max_pool(const struct pool *p) {
    float *y = p->y;
    for (int i = 0; i < p->out_height * p->out_width; i++, y += p->channels) {
        int top = i / p->out_width * p->stride[0] - p->padding[0];
        int left = i % p->out_width * p->stride[1] - p->padding[1];
        for (int c = 0; c < p->channels; c++) y[c] = -INFINITY;
        for (int tap = 0; tap < p->kernel[0] * p->kernel[1]; tap++) {
            int row = top + tap / p->kernel[1] * p->dilation[0];
            int column = left + tap % p->kernel[1] * p->dilation[1];
            if (row < 0 || row >= p->height || column < 0 || column >= p->width)
                continue;
            const float *x = p->x + ((ptrdiff_t)row * p->width + column) * p->x_stride;
            for (int c = 0; c < p->channels; c++) y[c] = x[c] > y[c] ? x[c] : y[c];
        }
    }
}
