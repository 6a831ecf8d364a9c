"""Export of fitted models: SavedModel, LiteRT for small devices, ONNX for other runtimes."""
