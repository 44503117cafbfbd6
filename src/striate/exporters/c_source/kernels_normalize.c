/* (v - 255 * mean) / (255 * std) in single precision, for each of the 256 levels. */
static void normalize(const uint8_t *pixels, float *y) {
    float levels[INPUT_CHANNELS][256];
    for (int c = 0; c < INPUT_CHANNELS; c++)
        for (int v = 0; v < 256; v++)
            levels[c][v] = ((float)v - input_means[c]) / input_stds[c];
    for (int i = 0; i < INPUT_HEIGHT * INPUT_WIDTH; i++)
        for (int c = 0; c < INPUT_CHANNELS; c++) *y++ = levels[c][*pixels++];
}
