"""AWS as far as this project talks to it: a strict model of Traffic Mirroring, and harnesses that put it to use."""
