"""QONNX file and integer network to hardware projects."""
