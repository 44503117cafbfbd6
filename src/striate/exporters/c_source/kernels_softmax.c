static void softmax(const float *x, float *y, int rows, int count) {
    for (int row = 0; row < rows; row++, x += count, y += count) {
        float most = x[0], sum = 0;
        for (int i = 1; i < count; i++) most = x[i] > most ? x[i] : most;
        for (int i = 0; i < count; i++) sum += y[i] = expf(x[i] - most);
        for (int i = 0; i < count; i++) y[i] /= sum;
    }
}
