"""From a method's errors to a score and a map, and from scores to decisions."""
