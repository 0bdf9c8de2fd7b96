"""What models come in from: the Keras-style DSL, Python functions (`trace`), files (`load`).

Start at `layer`, `model` and `lowering` for the DSL. `nodes` and `graph` hold functional models, `scopes` who called a
layer, `recording` what a variable is while something is traced. Frontends build graphs and run nothing.
"""

from graphc.frontends import numpy_protocol, serialization
from graphc.frontends.layer import Layer
from graphc.frontends.layers.core import Input
from graphc.frontends.loading import load
from graphc.frontends.lowering import lower
from graphc.frontends.model import Model
from graphc.frontends.scopes import name_scope
from graphc.frontends.sequential import Sequential
from graphc.frontends.tracing import Spec, trace
from graphc.frontends.variable import Variable

serialization.MODELS.update({"Functional": Model, "Model": Model, "Sequential": Sequential})
numpy_protocol.install()
