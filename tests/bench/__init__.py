"""What the data path costs, as ratios to yardsticks that run beside it: `make bench`, `python -m tests.bench --help`.

- `rig`        the lab's network with nginx at its ends, recorded traffic, and who plays and receives it
- `wrk`        the client: what is recorded, and the yardstick of what sending a request costs
- `recording`  datagrams that the kernel mirrored, and which of them completes a request
- `sender`     plays recordings to a port at a rate, with `sendmmsg`, in a process of its own
- `listener`   the bare `recv` loop, in a process of its own: the yardstick of what receiving costs
- `subject`    `replayer run` as the bench sees it: CPU time, memory, and when all that was played is accounted for
- `processes`  CPU time and memory as /proc tells them
- `gets`, `uploads`, `ceiling`, `memory`   the four measurements
- `result`     what they found, as a table
- `profile`    where the worker's CPU time goes
"""
