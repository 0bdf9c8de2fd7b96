"""Training: data, losses, optimizers, metrics and callbacks under Keras's names, and the step they make."""
