"""Every error this project raises on purpose. Each message says what is wrong, where, and what to do.

VlaError
 ├─ SpecMismatch        two parts disagree about the contract; names the field
 ├─ BadObservation      an input the policy must not act on: missing camera, shape, dtype, NaN
 ├─ UnknownInstruction  words the policy was never trained on
 ├─ BadConfig           a setting that cannot work; names the setting
 ├─ BadDataset          empty, truncated or foreign data
 ├─ BadCheckpoint       a training run that cannot be loaded or resumed
 ├─ BadBundle           a deployed folder that is incomplete or altered
 ├─ BadCalibration      measurements, or a file of them, from which no calibration may be made
 ├─ UnknownName         no such head, verifier, suite, policy; lists what there is
 └─ Missing             something the machine lacks; says how to get it
"""


class VlaError(Exception):
    """Base of all errors meant for the person at the robot; the CLI prints them without a traceback."""


class SpecMismatch(VlaError):
    """Two specs that must agree do not."""


class BadObservation(VlaError):
    """An observation that must not be acted on."""


class UnknownInstruction(BadObservation):
    """An instruction with words outside the policy's vocabulary."""


class BadConfig(VlaError):
    """A setting, or two together, that cannot work."""


class BadDataset(VlaError):
    """A dataset that is empty, truncated, or not what it claims to be."""


class BadCheckpoint(VlaError):
    """A checkpoint that cannot be loaded or resumed."""


class BadBundle(VlaError):
    """A bundle that is incomplete, altered, or fails its own golden outputs."""


class BadCalibration(VlaError):
    """Measurements that determine nothing or contradict each other, or a calibration of something else."""


class UnknownName(VlaError):
    """A name the registry cannot resolve."""


class Missing(VlaError):
    """A package, device or system library this machine lacks."""
