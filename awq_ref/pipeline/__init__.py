"""Where the rooms meet: checkpoint folders in, models and quantized folders out.

load        load_model
model       Model
texts       text and ids for calibration and evaluation
statistics  calibrate: observe a model once, quantize it often
walk        all calibration windows through a model; its parts in observation, what is between blocks in states
quantize    quantize_model; one block in block_output, several at once in spread
footprint   the memory that it will need
convert     a quantized folder in another layout;  gguf: a folder as one GGUF file
chat, chat_format    a conversation: its turns, its text, its file
describe    what a folder holds
compare     what quantization did to every linear
outliers    the same function with large activations in a few channels
"""

from awq_ref.pipeline.compare import compare_models
from awq_ref.pipeline.convert import convert_model
from awq_ref.pipeline.describe import describe_model, folder_bytes
from awq_ref.pipeline.gguf import GgufReport, convert_to_gguf
from awq_ref.pipeline.load import load_model
from awq_ref.pipeline.model import Model
from awq_ref.pipeline.quantize import quantize_model
from awq_ref.pipeline.statistics import ModelStatistics, calibrate
from awq_ref.pipeline.texts import evaluation_tokens, read_text

__all__ = [
    "GgufReport",
    "Model",
    "ModelStatistics",
    "calibrate",
    "compare_models",
    "convert_model",
    "convert_to_gguf",
    "describe_model",
    "evaluation_tokens",
    "folder_bytes",
    "load_model",
    "quantize_model",
    "read_text",
]
