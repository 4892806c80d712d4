"""The control plane of VPC Traffic Replay: a policy in, mirror sessions kept equal to it."""

__version__ = "0.1.0"
