"""Low-rank adapters of models: `adapters` makes and switches them, `peft` reads and writes PEFT's folders, `merging`
and `bounds` merge them with a certificate. Start at `model`, which has what users call."""
