"""Quantization as rewrites: which weights (`targets`), weights as integers (`weights`), activations (`activations`),
what targets match late (`matching`), batch normalizations that go first (`batch_norm`), sizes on disk (`sizes`). What
needs data is in `runtime/quantization`."""
