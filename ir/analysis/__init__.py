"""What is known of a graph without running it: `cost` (operations and bytes moved) and `liveness` (bytes held)."""
