"""`graphc.models`: what Keras keeps there."""

from graphc.frontends.saving import load_model, save_model
from graphc.runtime.model import Model, Sequential

__all__ = ["Model", "Sequential", "load_model", "save_model"]
