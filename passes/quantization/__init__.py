"""Quantization: weights stored as integers (`weights`), which of them (`targets`)."""
