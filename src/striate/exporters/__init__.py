"""Export of networks: graph of operations, ONNX, OpenVINO, C, parity checks."""
