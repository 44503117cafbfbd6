"""Metrics of classifiers: accuracy, ROC, calibration, thresholds, significance."""
