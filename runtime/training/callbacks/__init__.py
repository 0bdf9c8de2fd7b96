"""`graphc.callbacks`: Keras's callbacks. Start at `callback.py`, the base and the list that calls them."""

from graphc.runtime.training.callbacks.averages import SwapEMAWeights
from graphc.runtime.training.callbacks.backup import BackupAndRestore
from graphc.runtime.training.callbacks.callback import Callback, CallbackList
from graphc.runtime.training.callbacks.history import History
from graphc.runtime.training.callbacks.model_checkpoint import ModelCheckpoint
from graphc.runtime.training.callbacks.monitoring import EarlyStopping, LearningRateScheduler, ReduceLROnPlateau
from graphc.runtime.training.callbacks.progress import ProgbarLogger
from graphc.runtime.training.callbacks.recording import CSVLogger, LambdaCallback, TerminateOnNaN
from graphc.runtime.training.callbacks.tensorboard import TensorBoard
