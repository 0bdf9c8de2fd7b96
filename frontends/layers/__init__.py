"""The layers, under Keras's names. Start at `core` (Input, Dense, activations)."""

from graphc.frontends.input_spec import InputSpec
from graphc.frontends.layer import Layer
from graphc.frontends.layers.attention import GroupedQueryAttention, MultiHeadAttention
from graphc.frontends.layers.convolution import (
    Conv1D,
    Conv2D,
    Conv3D,
    Convolution1D,
    Convolution2D,
    Convolution3D,
    DepthwiseConv1D,
    DepthwiseConv2D,
)
from graphc.frontends.layers.core import (
    ELU,
    Activation,
    Dense,
    Identity,
    Input,
    InputLayer,
    LeakyReLU,
    PReLU,
    ReLU,
    Softmax,
)
from graphc.frontends.layers.einsum import EinsumDense
from graphc.frontends.layers.embedding import Embedding
from graphc.frontends.layers.merging import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)
from graphc.frontends.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
    RMSNormalization,
)
from graphc.frontends.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    AvgPool1D,
    AvgPool2D,
    AvgPool3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalAvgPool3D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    GlobalMaxPool3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    MaxPool1D,
    MaxPool2D,
    MaxPool3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from graphc.frontends.layers.preprocessing import Rescaling
from graphc.frontends.layers.regularization import Dropout, GaussianDropout, GaussianNoise
from graphc.frontends.layers.reshaping import (
    Flatten,
    Permute,
    RepeatVector,
    Reshape,
    ZeroPadding1D,
    ZeroPadding2D,
    ZeroPadding3D,
)
