"""Training low-rank adapters of a Llama-like decoder: step time and memory, beside PEFT. Start at `report.py`."""
