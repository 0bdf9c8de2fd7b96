"""The same models in the frameworks themselves, as one writes them by hand. No file here imports graphc: they run in
processes of their own, Keras's in an environment of its own."""
