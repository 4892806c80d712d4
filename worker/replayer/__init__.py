"""VPC Traffic Replay's data plane: mirrored packets in, the same requests out."""

__version__ = "0.1.0"
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"  # of the supervisor and of its shards
