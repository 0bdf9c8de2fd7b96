"""Low-rank adapters: which weights get one (`settings`), adapters on a module from anywhere (`insert`), several in one
artifact (`switching`). How uses of a kernel are rewritten is in `ir/adapting.py`: models that are recorded need it."""
