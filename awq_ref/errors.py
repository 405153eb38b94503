"""The exceptions of awq_ref: one base class, one class per kind of cause.

Every message says who complains, what must hold, what came, and what to try. The command line prints the
message alone and exits with 2.
"""


class AwqRefError(Exception):
    """Base class: something the caller can mend. Catch this to catch them all."""


class ShapeError(AwqRefError, ValueError):
    """An array has the wrong number of axes or a size that does not fit."""


class DtypeError(AwqRefError, TypeError):
    """An array or a tensor has a dtype that the function does not take."""


class RangeError(AwqRefError, ValueError):
    """A value lies outside what is allowed: NaN, infinity, a token id, a bit width."""


class FormatError(AwqRefError, ValueError):
    """A file or a configuration does not say what its format requires."""


class ChatTemplateError(AwqRefError, ValueError):
    """A chat template cannot be read, refuses a conversation, takes too long, or does what a template may not."""


class MissingTensorError(AwqRefError, KeyError):
    """A checkpoint lacks a tensor or a shard that the model needs."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class UnsupportedError(AwqRefError, NotImplementedError):
    """A model family, format or combination that awq_ref does not know."""


class OutputError(AwqRefError, OSError):
    """The output cannot be written: it exists already, or the disk is full."""


class HubError(AwqRefError, OSError):
    """A model cannot be had from the Hugging Face hub: no such name, no permission, no network, no safetensors."""


class CorpusError(AwqRefError, ValueError):
    """Text for calibration or evaluation is missing, empty, too short or not UTF-8."""


class CalibrationWarning(UserWarning):
    """Calibration that works, but less well than it could; the message says what it costs."""
