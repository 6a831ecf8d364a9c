"""Export of fitted models: SavedModel for TensorFlow Serving, LiteRT for small devices."""
