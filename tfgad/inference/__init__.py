"""Image files to results, by a run or by an exported model."""
