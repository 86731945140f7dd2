"""Float network to quantized network, QONNX file and integer network."""
